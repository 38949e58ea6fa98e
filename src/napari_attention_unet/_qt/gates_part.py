"""The gates part: every gate of the latest run with its numbers, shown, hidden or alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QButtonGroup,
    QHBoxLayout,
    QLabel,
    QSlider,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from .gate_row import GateRow, ShownGate
from .style import Palette

EMPTY = (
    "Press Run: every attention gate of the network appears here with the map of where it looks, "
    "its numbers inside and outside the mask, and its colours."
)
NONE_FOUND = (
    "No attention gate was found in {model}: it is a network without them, so the mask is all "
    "there is to show."
)
NOT_SHOWN = "The gates of this run were not added: tick 'gates' and run again to see them."


class GatesPart(QWidget):
    """List of gates, object name ``gates``."""

    scaling_changed = Signal(str)  #: "full" or "percentile"
    chosen = Signal(object)  #: a layer that the person clicked

    def __init__(self, scaling: str = "full", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("gates")
        self._scaling = scaling
        self._rows: list[GateRow] = []
        self._others: list[Any] = []
        self._before_solo: list[tuple[Any, bool]] = []
        self._alone: Any = None

        title = QLabel("Gates")
        title.setProperty("role", "heading")
        self._range = QButtonGroup(self)
        self.full, self.percentile = QToolButton(), QToolButton()
        for button, text, name, tip in (
            (self.full, "0–1", "full", "Colours from 0 to 1: gates compare with each other"),
            (
                self.percentile,
                "1–99 %",
                "percentile",
                "Colours from the 1st to the 99th percentile of each gate: faint structure shows",
            ),
        ):
            button.setText(text)
            button.setObjectName(f"scaling_{name}")
            button.setCheckable(True)
            button.setChecked(name == scaling)
            button.setToolTip(tip)
            button.setAccessibleName(f"display range {text}")
            self._range.addButton(button)
        self.full.clicked.connect(self._to_full)
        self.percentile.clicked.connect(self._to_percentile)

        self.opacity = QSlider(Qt.Orientation.Horizontal)
        self.opacity.setObjectName("opacity")
        self.opacity.setRange(0, 100)
        self.opacity.setValue(100)
        self.opacity.setToolTip("Opacity of all gate maps")
        self.opacity.setAccessibleName("opacity of all gates")
        self.opacity.valueChanged.connect(self._set_opacity)
        self._percent = QLabel("100 %")
        self._percent.setProperty("role", "dim")
        self._percent.setMinimumWidth(38)
        self._percent.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        head = QHBoxLayout()
        head.setContentsMargins(0, 0, 0, 0)
        head.setSpacing(2)
        head.addWidget(title)
        head.addSpacing(10)
        head.addWidget(self.opacity, 1)
        head.addWidget(self._percent)
        head.addSpacing(6)
        head.addWidget(self.full)
        head.addWidget(self.percentile)

        self.message = QLabel(EMPTY)
        self.message.setObjectName("gates_message")
        self.message.setProperty("role", "dim")
        self.message.setWordWrap(True)

        self._list = QVBoxLayout()
        self._list.setContentsMargins(0, 0, 0, 0)
        self._list.setSpacing(5)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addLayout(head)
        column.addWidget(self.message)
        column.addLayout(self._list)
        self._show_controls(False)

    @property
    def rows(self) -> tuple[GateRow, ...]:
        """The lines, in the order in which the network runs its gates."""
        return tuple(self._rows)

    @property
    def scaling(self) -> str:
        """Display range of all gates, ``"full"`` or ``"percentile"``."""
        return self._scaling

    def set_gates(
        self, gates: Sequence[ShownGate], others: Sequence[Any], message: str, palette: Palette
    ) -> None:
        """Show these gates; the message stands where there is none.

        The display range of the layers is set to the chosen scaling. `others` are the other layers
        of the run, which step back while one gate is shown alone.
        """
        self.clear(message)
        self._others = list(others)
        for gate in gates:
            row = GateRow(gate)
            row.set_palette(palette)
            row.solo.connect(self.toggle_solo)
            row.chosen.connect(self.chosen)
            self._rows.append(row)
            self._list.addWidget(row)
        self._show_controls(bool(gates))
        self._scale()
        if gates:
            self.opacity.blockSignals(True)
            self.opacity.setValue(round(100 * gates[0].layer.opacity))
            self.opacity.blockSignals(False)
            self._percent.setText(f"{self.opacity.value()} %")

    def clear(self, message: str = EMPTY) -> None:
        """Forget all gates and let go of their layers."""
        for row in self._rows:
            row.detach()
            self._list.removeWidget(row)
            row.setParent(None)
            row.deleteLater()
        self._rows.clear()
        self._others.clear()
        self._before_solo.clear()
        self._alone = None
        self.message.setText(message)
        self._show_controls(False)

    def show_time(self, index: int) -> None:
        """Show the numbers of one of the time points that were run."""
        for row in self._rows:
            row.show_time(index)

    def show_reading(self, coefficients: dict[str, float] | None) -> None:
        """Show every gate's coefficient under the cursor, by name; None for none."""
        for row in self._rows:
            row.show_reading(None if coefficients is None else coefficients.get(row.gate.name))

    def forget(self, layer: object) -> None:
        """Let go of a layer that was removed from the viewer."""
        self._others = [other for other in self._others if other is not layer]
        self._before_solo = [pair for pair in self._before_solo if pair[0] is not layer]
        for row in [r for r in self._rows if r.gate.layer is layer]:
            row.detach()
            self._rows.remove(row)
            self._list.removeWidget(row)
            row.setParent(None)
            row.deleteLater()
            if self._alone is layer:
                self.toggle_solo(layer)
            if not self._rows:
                self.clear()

    def set_palette(self, palette: Palette) -> None:
        """Follow napari's theme."""
        for row in self._rows:
            row.set_palette(palette)

    def set_scaling(self, scaling: str) -> None:
        """Switch the display range of all gates."""
        self._scaling = scaling
        (self.full if scaling == "full" else self.percentile).setChecked(True)
        self._scale()

    def toggle_solo(self, layer: Any) -> None:
        """Show one gate alone over the image; the same one again brings the others back."""
        layers = [*(row.gate.layer for row in self._rows), *self._others]
        if self._alone is layer:
            for other, visible in self._before_solo:
                other.visible = visible
            self._alone = None
            self._before_solo.clear()
        else:
            if self._alone is None:
                self._before_solo = [(other, other.visible) for other in layers]
            self._alone = layer
            for other in layers:
                other.visible = other is layer
        for row in self._rows:
            row.set_current(row.gate.layer is self._alone)

    def _to_full(self) -> None:
        self.set_scaling("full")
        self.scaling_changed.emit("full")

    def _to_percentile(self) -> None:
        self.set_scaling("percentile")
        self.scaling_changed.emit("percentile")

    def _scale(self) -> None:
        for row in self._rows:
            low, high = row.gate.limits(self._scaling)
            layer = row.gate.layer
            layer.contrast_limits_range = (
                min(low, layer.contrast_limits_range[0]),
                max(high, layer.contrast_limits_range[1]),
            )
            layer.contrast_limits = (low, high)

    def _set_opacity(self, percent: int) -> None:
        self._percent.setText(f"{percent} %")
        for row in self._rows:
            row.gate.layer.opacity = percent / 100

    def _show_controls(self, shown: bool) -> None:
        for control in (self.opacity, self._percent, self.full, self.percentile):
            control.setVisible(shown)
        self.message.setVisible(not shown)
