"""A two-column form of magicgui controls, in the narrow width of a dock."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QFrame, QGridLayout, QHBoxLayout, QLabel, QSizePolicy, QWidget

from .style import set_property

LABEL_WIDTH = 62


class Form(QWidget):
    """Rows of a label and a control; rows can be hidden."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(8)
        self._grid.setVerticalSpacing(5)
        self._grid.setColumnMinimumWidth(0, LABEL_WIDTH)
        self._grid.setColumnStretch(1, 1)
        self._rows: dict[QWidget, QLabel | None] = {}

    def add(self, label: str, control: QWidget, name: str, tip: str) -> QWidget:
        """Add a row; the label takes the control's tip and moves the focus to it."""
        text = QLabel(label)
        text.setProperty("role", "label")
        text.setToolTip(tip)
        text.setBuddy(control)
        describe(control, name, tip)
        row = self._grid.rowCount()
        self._grid.addWidget(text, row, 0, Qt.AlignmentFlag.AlignVCenter)
        self._grid.addWidget(control, row, 1)
        self._rows[control] = text
        return control

    def add_note(self, note: QWidget) -> None:
        """Add something under the controls' column."""
        self._grid.addWidget(note, self._grid.rowCount(), 1)
        self._rows[note] = None

    def add_wide(self, widget: QWidget) -> None:
        """Add something over both columns."""
        self._grid.addWidget(widget, self._grid.rowCount(), 0, 1, 2)
        self._rows[widget] = None

    def remove(self, control: QWidget) -> None:
        """Take a row away."""
        for widget in (control, self._rows.pop(control)):
            if widget is not None:
                self._grid.removeWidget(widget)
                widget.hide()
                widget.deleteLater()

    def show_row(self, control: QWidget, shown: bool) -> None:
        """Show or hide a row."""
        control.setVisible(shown)
        label = self._rows[control]
        if label is not None:
            label.setVisible(shown)

    def set_label(self, control: QWidget, text: str) -> None:
        """Change a row's label."""
        label = self._rows[control]
        if label is not None:
            label.setText(text)


def describe(control: QWidget, name: str, tip: str) -> None:
    """Give a control its object name, its tip, and the name that screen readers say."""
    control.setObjectName(name)
    control.setToolTip(tip)
    control.setAccessibleName(name.replace("_", " "))
    control.setAccessibleDescription(tip)


def native(control: Any) -> QWidget:
    """The Qt widget of a magicgui control, as narrow as the dock makes it."""
    widget: QWidget = control.native
    widget.setMinimumWidth(0)
    widget.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    return widget


def beside(*widgets: QWidget, stretch: int = 0) -> QWidget:
    """Widgets in one line; the one at the index `stretch` takes the room."""
    line = QWidget()
    layout = QHBoxLayout(line)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(4)
    for index, widget in enumerate(widgets):
        layout.addWidget(widget, 1 if index == stretch else 0)
    return line


class Note(QLabel):
    """A small text that wraps, and is always given the height of all its lines.

    With `least_lines` it keeps room for that many, so that what is around it stays in place.
    """

    def __init__(self, text: str = "", role: str = "dim", least_lines: int = 1) -> None:
        super().__init__(text)
        self._least_lines = least_lines
        self.setProperty("role", role)
        self.setWordWrap(True)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)

    def setText(self, text: str | None) -> None:  # noqa: N802
        """Change the text."""
        super().setText(text)
        self._fit()

    def say(self, text: str, role: str = "dim") -> None:
        """Show a sentence; an empty one hides it."""
        set_property(self, "role", role)
        self.setText(text)
        self.setVisible(bool(text))

    def resizeEvent(self, event: QResizeEvent | None) -> None:  # noqa: N802
        """Make room for the lines at the new width."""
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        least = self._least_lines * self.fontMetrics().lineSpacing()
        self.setMinimumHeight(max(least, self.heightForWidth(self.width())))


def rule() -> QFrame:
    """A thin line between parts."""
    line = QFrame()
    line.setProperty("role", "line")
    line.setFixedHeight(1)
    return line
