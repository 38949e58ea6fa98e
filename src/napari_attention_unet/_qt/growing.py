"""Layers of a run that is under way: they grow as its planes are finished.

The layers show the very arrays that the run fills, so nothing is copied. A layer is drawn again
only where a displayed slice changed, a few times a second at most, and in 3D at the end alone:
there each drawing would upload the whole volume.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from napari.layers import Layer

from napari_attention_unet.io.layers import RESULT_KEY
from napari_attention_unet.io.placement import LayerAxes
from napari_attention_unet.prediction import Slices

#: Appended to the name of a layer while it grows, and when its run did not come to its end.
RUNNING, PARTIAL = " (running)", " (partial)"
#: Seconds between two drawings of a layer at least.
REDRAW_EVERY = 0.2

#: Role and gate, by which a layer of a run is known.
Key = tuple[str, str]


def key_of(metadata: Mapping[str, Any]) -> Key:
    """By what a layer with this metadata is known among those of its run."""
    about = metadata[RESULT_KEY]
    return str(about["role"]), str(about.get("gate") or about.get("class") or "")


class Growing:
    """The layers of one run.

    Parameters
    ----------
    viewer : napari viewer
        Where they are.
    layers : list of napari layers
        As they were added, without anything on them yet.
    axes : LayerAxes
        Of these layers.
    """

    def __init__(self, viewer: Any, layers: list[Layer], axes: LayerAxes) -> None:
        self._viewer, self._axes = viewer, axes
        self.layers: dict[Key, Any] = {key_of(layer.metadata): layer for layer in layers}
        self._visible = {key: layer.visible for key, layer in self.layers.items()}
        self._due: dict[Key, list[Slices]] = {key: [] for key in self.layers}
        self._drawn = dict.fromkeys(self.layers, 0.0)
        for layer in layers:
            layer.name += RUNNING
            layer.metadata[RESULT_KEY]["state"] = "running"

    def grow(self, changed: Mapping[Key, Slices]) -> None:
        """Parts of the arrays are finished: draw what is in sight of them."""
        now = time.perf_counter()
        for key, box in changed.items():
            if key in self._due:
                self._due[key].append(box)
        if self._viewer.dims.ndisplay != 2:
            return
        for key, boxes in self._due.items():
            layer = self.layers[key]
            if not boxes or now - self._drawn[key] < REDRAW_EVERY:
                continue
            shown = layer in self._viewer.layers and layer.visible
            if shown and any(self._in_sight(layer, box) for box in boxes):
                layer.refresh(thumbnail=False, highlight=False, extent=False)
                self._drawn[key] = time.perf_counter()
            boxes.clear()

    def untouched(self, layer: Any) -> bool:
        """Whether a layer is shown or hidden as it was in the beginning."""
        return bool(layer.visible == self._visible.get(key_of(layer.metadata)))

    def stop(self) -> None:
        """The run did not come to its end: keep what there is, marked."""
        for layer in self.layers.values():
            layer.metadata[RESULT_KEY]["state"] = "partial"
            if layer in self._viewer.layers:
                layer.name = layer.name.replace(RUNNING, "") + PARTIAL
                layer.refresh()

    def remove(self) -> None:
        """Take the layers out of the viewer."""
        for layer in self.layers.values():
            if layer in self._viewer.layers:
                self._viewer.layers.remove(layer)
        self.layers = {}

    def _in_sight(self, layer: Any, box: Slices) -> bool:
        """Whether the displayed slice goes through a box of the layer's array."""
        here = np.rint(layer.world_to_data(self._viewer.dims.point[-layer.ndim :]))
        hidden = {axis - (self._viewer.dims.ndim - layer.ndim) for axis in self._not_displayed()}
        return all(
            axis not in hidden or cut.start <= here[axis] < cut.stop
            for axis, cut in zip(self._axes.spatial, box, strict=True)
        )

    def _not_displayed(self) -> tuple[int, ...]:
        axes: tuple[int, ...] = self._viewer.dims.not_displayed
        return axes
