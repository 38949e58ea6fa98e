"""Overlays: asked for by a button, made on a thread, added as layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject
from qtpy.QtWidgets import QAbstractButton

from napari_attention_unet.inspect.measures import most_telling
from napari_attention_unet.io.layers import GATE_COLORMAP

from . import tasks
from .inspection import GONE, Inspection
from .outcome import Said
from .overlay_part import OverlayPart
from .place import Place
from .runs import NO_RUN, FinishedRun

if TYPE_CHECKING:
    from napari_attention_unet.inspect.overlays import Overlay

NO_GATES = "This network has no attention gate."
NO_PROBABILITIES = "This needs probabilities: tick them in Run and run again."
SOFTMAX = "The coefficients of a softmax over space have no 1 to be subtracted from."
_COLOURS = {None: "#808080", 0: "transparent", 1: "#4fc3f7", 2: "#e0559b"}
_SURFACE = {"name": "surface", "colors": [[0.31, 0.76, 0.97, 1.0], [0.31, 0.76, 0.97, 1.0]]}


class OverlayControl(QObject):
    """Connects the buttons with the latest run.

    Parameters
    ----------
    inspection : Inspection
        With the run.
    part : OverlayPart
        The buttons.
    shown : QAbstractButton
        Which shows them while it is checked.
    """

    def __init__(self, inspection: Inspection, part: OverlayPart, shown: QAbstractButton) -> None:
        super().__init__(inspection)
        self._inspection, self._viewer, self._part = inspection, inspection.viewer, part
        self._shown = shown
        shown.toggled.connect(self._show)
        self._run: FinishedRun | None = None
        inspection.changed.connect(self.refresh)
        part.gate.changed.connect(self._allow)
        part.asked.connect(self.add)
        self.refresh()

    def refresh(self) -> None:
        """Follow the latest run and what is under way."""
        run = self._inspection.runs.latest
        if run is not self._run:
            self._run = run
            gates = () if run is None else run.predictions[0].gates
            telling = None if run is None else most_telling(list(run.measures[0]))
            softmax = [float(g.coefficients.max()) for g in gates if g.kind == "softmax"]
            highest = max(softmax) if softmax and len(softmax) == len(gates) else 1.0
            self._part.set_gates([gate.name for gate in gates], telling, highest)
        self._allow()
        self._show()

    def add(self, name: str) -> None:
        """Make an overlay of the latest run, and add it."""
        run = self._run
        if run is None or self._inspection.busy:
            return
        time = self._inspection.time_on_display(run)
        place = self._inspection.runs.place(run)
        self._inspection.start(
            "The overlay",
            lambda overlay: self._on_overlay(run, time, name, overlay),
            tasks.overlay,
            run.predictions[time],
            name,
            self._part.gate.value,
            float(self._part.coefficient.value),
            0 if place is None else self._sliced(place),
        )

    def _show(self) -> None:
        self._part.setVisible(self._run is not None and self._shown.isChecked())

    def _sliced(self, place: Place) -> int:
        """The axis of the volume (0, 1, 2 for z, y, x) that the viewer slices."""
        dims = self._viewer.dims
        hidden = [axis - (dims.ndim - len(place.ratio)) for axis in dims.not_displayed]
        sliced = [i for i, axis in enumerate(place.axes.spatial) if axis in hidden]
        return sliced[0] if sliced else 0

    def _allow(self) -> None:
        run = self._run
        missing = NO_RUN if run is None else self._inspection.busy
        names = list(self._part.buttons)
        if missing or run is None:
            self._part.allow(dict.fromkeys(names, missing))
            return
        prediction = run.predictions[0]
        if not prediction.gates:
            self._part.allow(dict.fromkeys(names, NO_GATES))
            return
        kinds = {gate.name: gate.kind for gate in prediction.gates}
        reasons = {}
        if kinds.get(self._part.gate.value) == "softmax":
            reasons["ignored"] = SOFTMAX
        if prediction.probabilities is None:
            reasons["conflict"] = NO_PROBABILITIES
        self._part.allow(reasons)

    def _on_overlay(self, run: FinishedRun, time: int, name: str, overlay: Overlay) -> Said:
        place = self._inspection.runs.place(run)
        if place is None:
            return GONE
        kind, data, arguments = layer_of(overlay, place, time)
        arguments["metadata"] = {"meaning": overlay.meaning}
        layer = self._inspection.add_layer(run, f"overlay {name}", data, kind, arguments)
        if name == "region":
            layer.contour = 2  # what is inside stays in sight
        if kind == "surface":
            layer.shading = "smooth"
            self._viewer.dims.ndisplay = 3
        return Said(f"Added '{overlay.name}'", "good", overlay.meaning)


def layer_of(overlay: Overlay, place: Place, time: int) -> tuple[str, Any, dict[str, Any]]:
    """Kind, data and keyword arguments of the layer that shows an overlay."""
    arguments = place.arguments(overlay.scale, overlay.translate, time)
    arguments["name"] = overlay.name
    if overlay.kind == "surface":
        vertices, faces = overlay.data
        all_axes = np.zeros((len(vertices), len(place.ratio)))
        all_axes[:, list(place.axes.spatial)] = vertices
        values = np.ones(len(vertices), np.float32)
        return "surface", (all_axes, faces, values), arguments | {"colormap": _SURFACE}
    if overlay.kind == "labels":
        names = overlay.labels
        arguments |= {
            "colormap": _COLOURS,
            "features": {"index": [0, *names], "what": ["nothing", *names.values()]},
            "blending": "translucent_no_depth",
            "opacity": 0.9,
        }
        return "labels", place.expand(overlay.data), arguments
    low, high = overlay.limits or (0.0, 1.0)
    if high <= low:  # the same everywhere: napari needs a range
        high = low + 1e-3 * (abs(low) or 1.0)
    arguments |= {
        "colormap": GATE_COLORMAP,
        "blending": "translucent_no_depth",
        "interpolation2d": "linear",
        "interpolation3d": "linear",
        "contrast_limits": (low, high),
    }
    return "image", place.expand(overlay.data), arguments
