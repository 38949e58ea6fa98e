"""One gate in *Intervene*: what it is set to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from magicgui.widgets import ComboBox
from napari.layers import Image, Labels
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QToolButton, QVBoxLayout, QWidget
from superqt import QElidingLabel

from napari_attention_unet.io.layers import RESULT_KEY
from napari_attention_unet.prediction import GateMap

from .form import LABEL_WIDTH, beside, describe, native
from .layer_box import LayerBox

if TYPE_CHECKING:
    from napari_attention_unet.inspect.interventions import Switch

COMPUTED, PAINTED = "computed", "painted"
_SWITCHES = [
    ("as computed", COMPUTED),
    ("open (1)", "open"),
    ("closed (0)", "closed"),
    ("its mean", "mean"),
    ("painted", PAINTED),
]
#: Role of Labels layers that are painted on a gate's grid.
ROLE = "painted"


class SwitchRow(QWidget):
    """Name, grid and switch of a gate; where it is painted, also the layer with the paint."""

    changed = Signal()
    asked = Signal(object)  #: a `GateMap` for which a layer to paint on is wanted

    def __init__(self, viewer: Any, gate: GateMap, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.gate = gate
        name = QElidingLabel(gate.name)
        name.setElideMode(Qt.TextElideMode.ElideMiddle)
        name.setMinimumWidth(LABEL_WIDTH)
        name.setProperty("role", "heading")
        name.setToolTip(f"{gate.name}: the gate's module in the network ({gate.kind})")
        grid = QLabel(gate.label)
        grid.setProperty("role", "chip")
        grid.setToolTip("Resolution of the gate's own grid, against the network's input")
        self.switch = ComboBox(choices=_SWITCHES, value=COMPUTED)
        describe(
            native(self.switch),
            f"switch_{gate.name}",
            f"What {gate.name} is set to: as computed; open, everything passes; closed, nothing\n"
            "passes; its mean everywhere, which prefers no place; or painted",
        )
        self.layer = LayerBox(viewer, self._fits)
        describe(
            native(self.layer),
            f"paint_{gate.name}",
            "A Labels layer on the gate's grid, painted with 1 for closed and 2 for open (0 is as\n"
            "computed), or an Image layer of coefficients 0 to 1",
        )
        self.add = QToolButton()
        self.add.setText("new")
        describe(
            self.add,
            f"new_paint_{gate.name}",
            f"Add a Labels layer on the grid of {gate.name} and paint: 1 closes, 2 opens",
        )
        self.add.clicked.connect(self._ask)
        self._paint = beside(self.layer.native, self.add)
        head = QHBoxLayout()
        head.setContentsMargins(0, 0, 0, 0)
        head.setSpacing(8)
        head.addWidget(name, 2)
        head.addWidget(grid)
        head.addWidget(self.switch.native, 3)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addLayout(head)
        column.addWidget(self._paint)
        self.switch.changed.connect(self._on_change)
        self.layer.changed.connect(self._on_change)
        self._on_change()

    @property
    def problem(self) -> str:
        """What is missing before the network can run so; empty if nothing is."""
        if self.switch.value == PAINTED and self.layer.value is None:
            return f"Choose what is painted for {self.gate.name}, or add a new layer to paint on."
        return ""

    @property
    def value(self) -> Switch:
        """What the gate is set to; paint as a copy, which may go on being painted."""
        if self.switch.value != PAINTED:
            return str(self.switch.value)
        layer = self.layer.value
        values = np.asarray(layer.data).reshape(self.gate.coefficients.shape)
        return values.copy() if isinstance(layer, Labels) else values.astype(np.float32)

    def refresh(self) -> None:
        """Follow the viewer's layers."""
        self.layer.refresh()

    def _fits(self, layer: Any) -> bool:
        """Labels painted for this gate, or any map of its own on the gate's grid."""
        if not isinstance(layer, Labels | Image) or getattr(layer, "multiscale", False):
            return False
        about = layer.metadata.get(RESULT_KEY, {})
        if about.get("role") == ROLE:
            return bool(about.get("gate") == self.gate.name) and self._same_shape(layer)
        return not about and self._same_shape(layer)

    def _same_shape(self, layer: Any) -> bool:
        shape = tuple(n for n in layer.data.shape if n > 1)
        return shape == tuple(n for n in self.gate.coefficients.shape if n > 1)

    def _ask(self) -> None:
        self.asked.emit(self.gate)

    def _on_change(self) -> None:
        self._paint.setVisible(self.switch.value == PAINTED)
        self.changed.emit()
