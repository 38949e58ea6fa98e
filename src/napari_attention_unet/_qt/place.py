"""Where a run lies in the viewer: from the canvas to voxels, and from voxels to new layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pint

from napari_attention_unet.io.layers import RESULT_KEY
from napari_attention_unet.io.placement import (
    Array,
    LayerAxes,
    index_to_world,
    layer_axes,
    placed,
)
from napari_attention_unet.volume import Vec3, as_vec3

_ONES: Vec3 = (1.0, 1.0, 1.0)
_ZEROS: Vec3 = (0.0, 0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Place:
    """The place of a run, told by one of its layers as that lies now.

    Attributes
    ----------
    layer : napari layer
        One of the run's own layers: it may be moved, and its source may be gone.
    axes : LayerAxes
        Of that layer.
    scale, translate : tuple of float
        Sample ``j`` of the layer lies at voxel ``translate + scale * j`` of the volume (z, y, x).
    ratio : array
        Lengths of the viewer's units in those of the layer, one an axis of the layer.
    """

    layer: Any
    axes: LayerAxes
    scale: Vec3
    translate: Vec3
    ratio: Array

    def voxel(self, position: Sequence[float]) -> tuple[int, Vec3] | None:
        """The voxel under a position of the viewer's world.

        Parameters
        ----------
        position : sequence of float
            World coordinates, one an axis of the viewer.

        Returns
        -------
        time : int
            Which of the time points that were run; 0 without a time axis.
        voxel : tuple of float
            (z, y, x) of the volume that was run; it may lie outside of it.
            None is returned at a time point that was not run, and in a viewer of fewer axes.
        """
        n = len(self.ratio)
        if len(position) < n:
            return None
        world = np.asarray(position[-n:], dtype=np.float64) * self.ratio
        matrix = index_to_world(self.layer)
        index = np.linalg.solve(matrix[:-1, :-1], world - matrix[:-1, -1])
        time = 0
        if self.axes.time is not None:
            time = round(float(index[self.axes.time]))
            if not 0 <= time < self.layer.data.shape[self.axes.time]:
                return None
        own = index[list(self.axes.spatial)]
        return time, as_vec3(np.add(self.translate, np.multiply(self.scale, own)))

    def world(self, voxel: Sequence[float], time: int = 0) -> Array:
        """World coordinates of a voxel (z, y, x), in the layer's units, one an axis of it."""
        index = np.zeros(len(self.ratio))
        if self.axes.time is not None:
            index[self.axes.time] = time
        index[list(self.axes.spatial)] = np.divide(np.subtract(voxel, self.translate), self.scale)
        matrix = index_to_world(self.layer)
        return np.asarray(matrix[:-1, :-1] @ index + matrix[:-1, -1])

    def expand(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """An array (z, y, x), or one with time before them, on all axes of the layer."""
        axes = self.axes
        names = [axis for axis in (axes.time,) if axis is not None and array.ndim == 4]
        order = [*names, *axes.spatial]
        turned = array.transpose(np.argsort(order))
        missing = [a for a in range(len(self.ratio)) if a not in order]
        return np.expand_dims(turned, tuple(missing)) if missing else turned

    def arguments(
        self, scale: Vec3 = _ONES, translate: Vec3 = _ZEROS, time: int = 0
    ) -> dict[str, Any]:
        """How to add what `expand` gives, as keyword arguments of a layer.

        Parameters
        ----------
        scale, translate : tuple of float
            Sample ``j`` lies at voxel ``translate + scale * j`` (z, y, x).
        time : int
            Which of the time points that were run it is, or is the first of it.
        """
        spatial = list(self.axes.spatial)
        origin, step = np.zeros(len(self.ratio)), np.ones(len(self.ratio))
        origin[spatial] = np.divide(np.subtract(translate, self.translate), self.scale)
        step[spatial] = np.divide(scale, self.scale)
        if self.axes.time is not None:
            origin[self.axes.time] = time
        return placed(self.layer, origin, step)

    def indices_in(
        self, other: Any, world_units: Sequence[Any] | None, time: int = 0
    ) -> tuple[npt.NDArray[Any], Array]:
        """The volume that another layer has at a time point, and how voxels lie in it.

        Parameters
        ----------
        other : napari Labels or Image layer
            Its own axes are told apart as in `layer_axes`.
        world_units : sequence of pint.Unit or None
            Of the viewer's axes.
        time : int
            Which of the time points that were run.

        Returns
        -------
        data : array, shape (z, y, x)
            Of `other`, at that time.
        matrix : (4, 4) array
            From a voxel (z, y, x) that was run to an index of `data`.

        Raises
        ------
        InputError
            If the other layer is no volume.
        """
        axes = layer_axes(other)
        own, ratio = index_to_world(other), _ratio_of(other, world_units)
        corners = np.vstack([np.zeros(3), np.eye(3)])
        found = []
        for voxel in corners:
            world = (self.world(voxel, time) / self.ratio)[-len(ratio) :]
            world = np.concatenate([np.zeros(len(ratio) - len(world)), world]) * ratio
            found.append(np.linalg.solve(own[:-1, :-1], world - own[:-1, -1]))
        data = other.data[0] if other.multiscale else other.data
        pick: list[Any] = [slice(None)] * data.ndim
        if axes.time is not None:
            pick[axes.time] = int(np.clip(round(found[0][axes.time]), 0, data.shape[axes.time] - 1))
        if axes.channel is not None:
            pick[axes.channel] = 0
        spatial = list(axes.spatial)
        kept = sorted(spatial)
        matrix = np.eye(4)
        matrix[:3, 3] = found[0][spatial]
        matrix[:3, :3] = np.stack([(each - found[0])[spatial] for each in found[1:]], axis=1)
        return data[tuple(pick)].transpose([kept.index(a) for a in spatial]), matrix


def place_of(
    layer: Any, leading: Literal["time", "channel"], world_units: Sequence[Any] | None
) -> Place:
    """The place that a layer of a run tells.

    Parameters
    ----------
    layer : napari layer
        With our metadata.
    leading : {"time", "channel"}
        As in `layer_axes`.
    world_units : sequence of pint.Unit or None
        Of the viewer's axes; None where its layers do not agree on any.
    """
    about = layer.metadata[RESULT_KEY]
    gate = about["role"] == "gate"
    return Place(
        layer,
        layer_axes(layer, leading),
        as_vec3(about["scale"]) if gate else _ONES,
        as_vec3(about["translate"]) if gate else _ZEROS,
        _ratio_of(layer, world_units),
    )


def _ratio_of(layer: Any, world_units: Sequence[Any] | None) -> Array:
    return _ratio(None if world_units is None else tuple(world_units), tuple(layer.units))


@lru_cache(maxsize=16)  # pint takes longer than all the rest of a mouse move
def _ratio(world: tuple[pint.Unit, ...] | None, own: tuple[pint.Unit, ...]) -> Array:
    if world is None or len(world) < len(own):
        return np.ones(len(own))
    pairs = zip(world[-len(own) :], own, strict=True)
    return np.array([_length(a, b) for a, b in pairs])


def _length(unit: pint.Unit, other: pint.Unit) -> float:
    if unit == other or unit.dimensionality != other.dimensionality:
        return 1.0
    return float((1 * unit).to(other).magnitude)
