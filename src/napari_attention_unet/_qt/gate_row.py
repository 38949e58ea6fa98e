"""One gate in the list: shown or not, its grid, its numbers and its colour bar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QToolButton, QVBoxLayout, QWidget
from superqt import QElidingLabel

from napari_attention_unet.inspect.measures import GateMeasures, flag_words

from .legend import ColourBar, number
from .style import Palette, set_property


@dataclass(frozen=True)
class ShownGate:
    """A gate of the latest run and the layer that shows it.

    Attributes
    ----------
    layer : napari.layers.Image
        Its coefficients on its own grid.
    grid : str
        Resolution of its grid, e.g. ``"1/2"``.
    measures : tuple of GateMeasures
        Its statistics, one a time point that was run.
    """

    layer: Any
    grid: str
    measures: tuple[GateMeasures, ...]

    @property
    def name(self) -> str:
        """The gate's module in the network."""
        return self.measures[0].name

    def limits(self, scaling: str) -> tuple[float, float]:
        """Display range: ``"full"`` or ``"percentile"``, over all time points; never empty.

        Full is 0 to 1 for a sigmoid, 0 to the maximum for a spatial softmax, whose coefficients
        sum to 1 over the volume, and what is found for a candidate.
        """
        kind = self.measures[0].kind
        if scaling == "percentile":
            low, high = min(m.low for m in self.measures), max(m.high for m in self.measures)
        elif kind in ("sigmoid", "squeeze-excitation"):
            low, high = 0.0, 1.0
        else:
            low = 0.0 if kind == "softmax" else min(m.minimum for m in self.measures)
            high = max(m.maximum for m in self.measures)
        if high <= low:  # napari needs a range
            high = low + 1e-3 * (abs(low) or 1.0)
        return low, high


class GateRow(QFrame):
    """One line of the gates part."""

    solo = Signal(object)  #: emitted with the layer when its solo button is clicked
    chosen = Signal(object)  #: emitted with the layer when the line is clicked

    def __init__(self, gate: ShownGate, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.gate = gate
        self.setProperty("role", "card")
        self.setAccessibleName(f"gate {gate.name}")

        self.eye = QToolButton()
        self.eye.setProperty("role", "eye")
        self.eye.setCheckable(True)
        self.eye.setFixedSize(22, 20)
        self.eye.setToolTip(f"Show or hide {gate.name}")
        self.eye.setAccessibleName(f"show {gate.name}")
        self.eye.toggled.connect(self._show_layer)
        name = QElidingLabel(gate.name)
        name.setElideMode(Qt.TextElideMode.ElideMiddle)
        name.setProperty("role", "heading")
        name.setToolTip(f"{gate.name}: the gate's module in the network ({gate.measures[0].kind})")
        grid = _label("chip", "Resolution of the gate's own grid, against the network's input")
        grid.setText(gate.grid)
        self.extent = _label("dim", "Smallest and largest coefficient")
        self.solo_button = QToolButton()
        self.solo_button.setText("solo")
        self.solo_button.setCheckable(True)
        self.solo_button.setToolTip(
            f"Show {gate.name} alone over the image; once more brings the mask and the others back"
        )
        self.solo_button.setAccessibleName(f"solo {gate.name}")
        self.solo_button.clicked.connect(self._solo_clicked)
        top = QHBoxLayout()
        top.setContentsMargins(0, 0, 0, 0)
        top.setSpacing(6)
        top.addWidget(self.eye)
        top.addWidget(name, 1)
        top.addWidget(grid)
        top.addWidget(self.extent)
        top.addWidget(self.solo_button)

        self.bar = ColourBar()
        self.bar.setToolTip(
            "Colours of the map, with the coefficients at their ends.\n"
            "▲ mean inside the mask, △ mean outside; the line stands at the coefficient under the\n"
            "cursor"
        )
        self.numbers = _label(
            "dim",
            "Mean coefficient inside and outside the mask.\n"
            "AUC: the chance that a voxel of the mask has a higher coefficient than one outside;\n"
            "0.5 says nothing about the mask, 1 tells it apart entirely.",
        )
        self.reading = _label("value", "Coefficient under the cursor")
        self.reading.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.flag = _label("warning", "Such a gate tells nothing about the image")
        self.flag.setWordWrap(True)
        column = QVBoxLayout(self)
        column.setContentsMargins(6, 3, 6, 3)
        column.setSpacing(2)
        column.addLayout(top)
        column.addWidget(self.bar)
        below = QHBoxLayout()
        below.setContentsMargins(0, 0, 0, 0)
        below.addWidget(self.numbers)
        below.addWidget(self.reading, 1)
        column.addLayout(below)
        column.addWidget(self.flag)

        events = gate.layer.events
        self._events = (events.visible, events.contrast_limits, events.colormap)
        for event in self._events:
            event.connect(self.refresh)
        self.show_time(0)
        self.refresh()

    def show_time(self, index: int) -> None:
        """Show the numbers of one of the time points that were run."""
        m = self.gate.measures[max(0, min(index, len(self.gate.measures) - 1))]
        span = m.maximum - m.minimum
        self.extent.setText(f"{number(m.minimum, span)}–{number(m.maximum, span)}")
        inside, outside = (number(v, abs(m.inside - m.outside)) for v in (m.inside, m.outside))
        self.numbers.setText(f"▲ inside {inside}   △ outside {outside}   AUC {number(m.auc)}")
        self.bar.set_marks(m.inside, m.outside)
        self.flag.setText(flag_words(m))
        self.flag.setVisible(bool(m.flag))

    def show_reading(self, coefficient: float | None) -> None:
        """Show the coefficient under the cursor; None for none."""
        span = self.bar.limits[1] - self.bar.limits[0]
        self.reading.setText("" if coefficient is None else number(coefficient, span))
        self.bar.set_needle(coefficient)

    def detach(self) -> None:
        """Stop listening to the layer."""
        for event in self._events:
            event.disconnect(self.refresh)

    def refresh(self, event: object = None) -> None:
        """Read the layer's visibility, display range and colours."""
        layer = self.gate.layer
        self.eye.blockSignals(True)
        self.eye.setChecked(bool(layer.visible))
        self.eye.blockSignals(False)
        self.bar.set_range(*layer.contrast_limits)
        self.bar.set_colours(layer.colormap.map(np.linspace(0, 1, 128)))

    def set_palette(self, palette: Palette) -> None:
        """Follow napari's theme."""
        self.bar.set_ink(palette.dim, palette.text)

    def set_current(self, current: bool) -> None:
        """Frame the line of the gate that is shown alone."""
        self.solo_button.setChecked(current)
        set_property(self, "current", "true" if current else "false")

    def mousePressEvent(self, event: QMouseEvent | None) -> None:  # noqa: N802
        """A click on the line chooses its layer."""
        self.chosen.emit(self.gate.layer)

    def _show_layer(self, shown: bool) -> None:
        self.gate.layer.visible = shown

    def _solo_clicked(self) -> None:
        self.solo.emit(self.gate.layer)


def _label(role: str, tip: str) -> QLabel:
    label = QLabel()
    label.setProperty("role", role)
    label.setToolTip(tip)
    return label
