"""Overlays made of the gates, a button each."""

from __future__ import annotations

from collections.abc import Sequence

from magicgui.widgets import ComboBox, FloatSpinBox
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QGridLayout, QSizePolicy, QToolButton, QVBoxLayout, QWidget

from .form import Form, describe, native

#: Name of each overlay, what its button says, and its tip. The first line is of one gate.
ONE_GATE = (
    ("region", "contour", "Outline of where the gate reaches the coefficient, on the image's grid"),
    ("surface", "surface", "Surface in 3D on which the gate has the coefficient"),
    ("ignored", "ignored", "1 − coefficient: bright where the gate lets nothing pass"),
    ("maximum", "maximum", "Largest coefficient through the slices that are on display"),
)
ALL_GATES = (
    ("product", "product", "All gates multiplied on the image's grid: bright where all are open"),
    ("consensus", "consensus", "Mean of all gates on the image's grid"),
    ("disagreement", "differ", "Largest less smallest coefficient of all gates at each voxel"),
    (
        "conflict",
        "conflict",
        "Where the mean coefficient is 0.5 or more and the foreground improbable, and the reverse",
    ),
)


class OverlayPart(QWidget):
    """Buttons that add layers, object name ``overlays``."""

    asked = Signal(str)  #: name of an overlay

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("overlays")
        self.gate = ComboBox(choices=())
        self.coefficient = FloatSpinBox(min=0, max=1, step=0.05, value=0.5)
        self._one = Form()
        self._one.add(
            "gate", native(self.gate), "overlay_gate", "Of which gate the overlays beneath are made"
        )
        self._one.add(
            "at",
            native(self.coefficient),
            "overlay_coefficient",
            "Coefficient of contour and surface, 0 to 1",
        )
        self.buttons: dict[str, QToolButton] = {}
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addWidget(self._one)
        column.addWidget(self._line(ONE_GATE))
        column.addWidget(self._line(ALL_GATES))

    def set_gates(self, names: Sequence[str], chosen: str | None, highest: float) -> None:
        """Offer the gates of a run; `highest` is the largest coefficient there can be."""
        self.gate.choices = tuple(names)
        if chosen in names:
            self.gate.value = chosen
        self.coefficient.max = highest
        self.coefficient.step = highest / 20
        self.coefficient.native.setDecimals(2 if highest >= 0.5 else 8)
        self.coefficient.value = highest / 2

    def allow(self, reasons: dict[str, str]) -> None:
        """Enable each button, or say why it cannot be used."""
        for name, _text, tip in (*ONE_GATE, *ALL_GATES):
            reason = reasons.get(name, "")
            self.buttons[name].setEnabled(not reason)
            self.buttons[name].setToolTip(reason or tip)

    def _line(self, overlays: Sequence[tuple[str, str, str]]) -> QWidget:
        line = QWidget()
        grid = QGridLayout(line)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(4)
        for index, (name, text, tip) in enumerate(overlays):
            button = QToolButton()
            button.setText(text)
            describe(button, f"overlay_{name}", tip)
            button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
            button.clicked.connect(self._on_click)
            grid.addWidget(button, 0, index)
            grid.setColumnStretch(index, 1)
            self.buttons[name] = button
        return line

    def _on_click(self) -> None:
        sender = self.sender()
        if sender is not None:
            self.asked.emit(sender.objectName().removeprefix("overlay_"))
