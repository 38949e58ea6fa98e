"""Coefficients of a gate at voxels: the nearest sample, or linear between samples.

Sample ``j`` of a gate has its centre at voxel ``translate + scale * j`` of the caller's array.
Beyond the outermost centres both ways take the outermost sample.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from napari_attention_unet.prediction import GateMap

Interpolation = Literal["nearest", "linear"]
Indices = npt.NDArray[np.int64]
#: Voxels of the image grid that are made at a time.
_SLAB_VOXELS = 2**22


def nearest_samples(gate: GateMap, axis: int, voxels: npt.ArrayLike) -> Indices:
    """Index of the gate's sample nearest to each voxel, along one axis.

    Half-way between two samples the higher one is taken, so that samples which lie on voxels
    serve equally many of them.

    Parameters
    ----------
    gate : GateMap
    axis : int
        0, 1 or 2 for z, y or x.
    voxels : array of float, shape (n,)
        Positions in voxels.
    """
    position = (np.asarray(voxels, np.float64) - gate.translate[axis]) / gate.scale[axis]
    nearest = np.floor(position + 0.5).astype(np.int64)
    return np.clip(nearest, 0, gate.coefficients.shape[axis] - 1)


def neighbours(
    gate: GateMap, axis: int, voxels: npt.ArrayLike
) -> tuple[Indices, Indices, npt.NDArray[np.float32]]:
    """The two samples around each voxel along one axis, and the share of the upper one.

    Parameters
    ----------
    gate, axis, voxels
        As for `nearest_samples`.

    Returns
    -------
    lower, upper : int64 arrays, shape (n,)
    share : float32 array, shape (n,)
        In 0..1; the value is ``(1 - share) * lower + share * upper``.
    """
    last = gate.coefficients.shape[axis] - 1
    position = (np.asarray(voxels, np.float64) - gate.translate[axis]) / gate.scale[axis]
    position = np.clip(position, 0, last)
    lower = np.minimum(position.astype(np.int64), max(last - 1, 0))
    return lower, np.minimum(lower + 1, last), (position - lower).astype(np.float32)


def coefficients_at(
    gate: GateMap, voxels: npt.ArrayLike, interpolation: Interpolation
) -> npt.NDArray[np.float32]:
    """A gate's coefficients at points.

    Parameters
    ----------
    gate : GateMap
    voxels : array of float, shape (n, 3)
        Points (z, y, x) in voxels of the caller's array.
    interpolation : {"nearest", "linear"}

    Returns
    -------
    float32 array, shape (n,)
    """
    points = np.asarray(voxels, np.float64).reshape(-1, 3)
    alpha = gate.coefficients
    if interpolation == "nearest":
        z, y, x = (nearest_samples(gate, axis, points[:, axis]) for axis in range(3))
        return _pick(alpha, z, y, x)
    (z0, z1, wz), (y0, y1, wy), (x0, x1, wx) = (
        neighbours(gate, axis, points[:, axis]) for axis in range(3)
    )

    def plane(z: Indices) -> npt.NDArray[np.float32]:
        lower = _mix(_pick(alpha, z, y0, x0), _pick(alpha, z, y0, x1), wx)
        return _mix(lower, _mix(_pick(alpha, z, y1, x0), _pick(alpha, z, y1, x1), wx), wy)

    return _mix(plane(z0), plane(z1), wz)


def plane_at(gate: GateMap, planes: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """The gate's coefficients at voxel planes: linear along z, on its own grid along y and x.

    Parameters
    ----------
    gate : GateMap
    planes : array of float, shape (n,)
        Positions along z, in voxels.

    Returns
    -------
    float32 array, shape (n, y of the gate, x of the gate)
    """
    lower, upper, share = neighbours(gate, 0, planes)
    alpha = gate.coefficients
    first, second = (np.asarray(alpha[index], np.float32) for index in (lower, upper))
    return _mix(first, second, share[:, None, None])


def slabs(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Ranges of planes that cover a volume, each of a bounded number of voxels."""
    step = max(1, _SLAB_VOXELS // max(1, shape[1] * shape[2]))
    for start in range(0, shape[0], step):
        yield start, min(start + step, shape[0])


def resample(
    gate: GateMap, shape: tuple[int, ...], start: int, stop: int
) -> npt.NDArray[np.float32]:
    """Some planes of a gate's map on the image grid: trilinear, edges held.

    Exact for a map that is affine in the voxel position, between the outermost samples.

    Parameters
    ----------
    gate : GateMap
    shape : tuple of int
        Of the image, (z, y, x).
    start, stop : int
        Range of planes.

    Returns
    -------
    float32 array, shape (stop - start, y, x)
    """
    slab = plane_at(gate, np.arange(start, stop))
    for axis in (1, 2):
        lower, upper, share = neighbours(gate, axis, np.arange(shape[axis]))
        if axis == 1:
            share = share[:, None]
        slab = _mix(slab.take(lower, axis), slab.take(upper, axis), share)
    return slab


def _pick(
    alpha: npt.NDArray[np.floating[Any]], z: Indices, y: Indices, x: Indices
) -> npt.NDArray[np.float32]:
    return np.asarray(alpha[z, y, x], np.float32)


def _mix(
    lower: npt.NDArray[np.float32], upper: npt.NDArray[np.float32], share: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    return lower + share * (upper - lower)
