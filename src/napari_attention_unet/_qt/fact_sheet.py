"""Lines of a label and a text, to be read and copied."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QGridLayout, QLabel, QWidget

from .card_facts import Fact
from .form import LABEL_WIDTH, Note


class FactSheet(QWidget):
    """Two columns; lines that are not needed are hidden and used again."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(8)
        self._grid.setVerticalSpacing(4)
        self._grid.setColumnMinimumWidth(0, LABEL_WIDTH)
        self._grid.setColumnStretch(1, 1)
        self._lines: list[tuple[QLabel, Note]] = []

    @property
    def texts(self) -> dict[str, str]:
        """What is shown, by label."""
        return {a.text(): b.text() for a, b in self._lines if not b.isHidden()}

    def show_facts(self, facts: Sequence[Fact]) -> None:
        """Show these lines."""
        while len(self._lines) < len(facts):
            self._add_line()
        for index, (label, text) in enumerate(self._lines):
            shown = index < len(facts)
            label.setVisible(shown)
            text.setVisible(shown)
            if shown:
                fact = facts[index]
                label.setText(fact.label)
                text.setText(fact.text)
                for widget in (label, text):
                    widget.setToolTip(fact.tip)

    def _add_line(self) -> None:
        label, text = QLabel(), Note(role="fact")
        label.setProperty("role", "dim")
        label.setAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)
        row = len(self._lines)
        self._grid.addWidget(label, row, 0)
        self._grid.addWidget(text, row, 1)
        self._lines.append((label, text))
