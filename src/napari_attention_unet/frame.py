"""The frame: where the network's grid lies in the caller's array.

The network sees the array turned to its orientation, resampled to its voxel size and padded at
the end of each axis. `Frame` holds that map; it is separable, one line of numbers an axis, so
it is exact both ways: logits come back onto the caller's voxels, and the samples of a gate get
the scale and translate at which they lie in the caller's array.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_attention_unet.errors import InputError
from napari_attention_unet.models.card import ModelCard
from napari_attention_unet.units import is_length, unit_ratio
from napari_attention_unet.volume import Shape3, Vec3, Volume, axes_between

#: Voxel sizes that differ by less than this share are taken as equal: no resampling.
SAME_SIZE = 0.01


@dataclass(frozen=True)
class Frame:
    """Map between the caller's array and the network's grid.

    Attributes
    ----------
    shape : tuple of int
        Spatial shape of the caller's array.
    axes, flipped : tuple
        The network's axis ``k`` is the caller's ``axes[k]``, reversed where ``flipped[k]``
        (as of `volume.axes_between`).
    ratio : tuple of float
        Per network axis, its voxel size in voxels of the caller: network voxel ``j`` has its
        centre at voxel ``(j + 0.5) * ratio - 0.5`` of the turned array.
    size : tuple of int
        Voxels of the network's grid that show the image.
    padded : tuple of int
        `size` rounded up to multiples of the network's stride.
    """

    shape: Shape3
    axes: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]
    ratio: Vec3
    size: Shape3
    padded: Shape3

    @property
    def turned(self) -> Shape3:
        """Shape of the caller's array with its axes in the network's order."""
        z, y, x = (self.shape[a] for a in self.axes)
        return z, y, x

    def turn(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """View of a caller's array ``(channel, z, y, x)`` in the network's orientation."""
        turned = array.transpose(0, *(a + 1 for a in self.axes))
        return turned[:, *(slice(None, None, -1 if f else 1) for f in self.flipped)]

    def turn_back(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Inverse of `turn`."""
        flipped = array[:, *(slice(None, None, -1 if f else 1) for f in self.flipped)]
        return flipped.transpose(0, *(self.axes.index(k) + 1 for k in range(3)))

    def to_network(self) -> Resampling:
        """Resampling of the turned array to the network's grid."""
        return Resampling.between(self.turned, self.size, self.ratio)

    def to_caller(self) -> Resampling:
        """Resampling of the network's (cropped) grid to the turned array."""
        z, y, x = (1.0 / r for r in self.ratio)
        return Resampling.between(self.size, self.turned, (z, y, x))

    def place(
        self, coefficients: npt.NDArray[Any], scale: Vec3, translate: Vec3
    ) -> tuple[npt.NDArray[Any], Vec3, Vec3]:
        """Bring a gate's map to the caller's axes.

        Parameters
        ----------
        coefficients : array, shape (z, y, x)
            On a grid of the network's padded input.
        scale, translate : tuple of float
            Sample ``j`` lies at voxel ``translate + scale * j`` of the network's grid.

        Returns
        -------
        coefficients : array, shape (z, y, x)
            Turned back, without the samples whose centre lies outside the volume; the nearest
            one is kept on an axis that would have none.
        scale, translate : tuple of float
            The same in voxels of the caller's array; `scale` is positive.
        """
        kept = self.kept(coefficients.shape, scale, translate)
        inside = coefficients[tuple(slice(low, high) for low, high in kept)]
        back = np.ascontiguousarray(self.turn_back(inside[None])[0])
        return back, *self.grid_back(kept, scale, translate)

    def grid_back(
        self, kept: Sequence[tuple[int, int]], scale: Vec3, translate: Vec3
    ) -> tuple[Vec3, Vec3]:
        """Scale and translate on the caller's axes of the samples of a grid that are `kept`."""
        spacing, start = [0.0] * 3, [0.0] * 3
        for k, (low, high) in enumerate(kept):
            first, step = self._line(k, scale, translate)
            last = self.turned[k] - 1 - (first + step * (high - 1))
            spacing[self.axes[k]] = step
            start[self.axes[k]] = last if self.flipped[k] else first + step * low
        return (spacing[0], spacing[1], spacing[2]), (start[0], start[1], start[2])

    def shape_back(self, turned: Shape3) -> Shape3:
        """Shape on the caller's axes of what has the shape `turned` on the network's."""
        z, y, x = (turned[self.axes.index(axis)] for axis in range(3))
        return z, y, x

    def planes_back(self, turned: Shape3, start: int, stop: int) -> tuple[slice, slice, slice]:
        """Where planes ``start..stop`` of an array of shape `turned` lie on the caller's axes."""
        if self.flipped[0]:
            start, stop = turned[0] - stop, turned[0] - start
        box = [slice(0, n) for n in self.shape_back(turned)]
        box[self.axes[0]] = slice(start, stop)
        return box[0], box[1], box[2]

    def place_back(
        self, placed: npt.NDArray[Any], shape: Shape3, scale: Vec3, translate: Vec3
    ) -> npt.NDArray[np.float32]:
        """Inverse of `place`.

        Parameters
        ----------
        placed : array
            Coefficients as `place` gave them.
        shape : tuple of int
            Of the network's own map.
        scale, translate : tuple of float
            As `place` took them.

        Returns
        -------
        array, shape `shape`, float32
            NaN where `place` dropped samples.

        Raises
        ------
        InputError
            If `placed` does not have the shape that `place` gives.
        """
        kept = self.kept(shape, scale, translate)
        full = np.full(shape, np.nan, np.float32)
        inside = full[tuple(slice(low, high) for low, high in kept)]
        expected = self.turn_back(inside[None])[0].shape
        if tuple(placed.shape) != expected:
            raise InputError(
                f"The coefficients have the shape {tuple(placed.shape)}; this gate's map of this "
                f"volume has {expected}."
            )
        inside[...] = self.turn(placed[None])[0]
        return full

    def _line(self, k: int, scale: Vec3, translate: Vec3) -> tuple[float, float]:
        """First sample and distance of samples along a network axis, in turned voxels."""
        return (translate[k] + 0.5) * self.ratio[k] - 0.5, scale[k] * self.ratio[k]

    def kept(self, shape: Sequence[int], scale: Vec3, translate: Vec3) -> list[tuple[int, int]]:
        """Ranges of samples of a grid inside the volume along the network's axes, see `place`."""
        ranges = []
        for k, voxels in enumerate(self.turned):
            first, step = self._line(k, scale, translate)
            centres = first + step * np.arange(shape[k])
            outside = np.maximum(-0.5 - centres, centres - (voxels - 0.5))
            inside = np.flatnonzero(outside < 1e-6)
            nearest = int(outside.argmin())
            low, high = (int(inside[0]), int(inside[-1])) if inside.size else (nearest, nearest)
            ranges.append((low, high + 1))
        return ranges


@dataclass(frozen=True)
class Resampling:
    """Separable linear interpolation between two grids, a range of planes at a time.

    Attributes
    ----------
    weights : three (out, in) float64 tensors, or None for an axis that stays as it is
        Rows sum to 1.
    """

    weights: tuple[Tensor | None, Tensor | None, Tensor | None]

    @classmethod
    def between(cls, source: Shape3, target: Shape3, ratio: Vec3) -> Resampling:
        """Resampling in which target sample ``j`` lies at source ``(j + 0.5) * ratio - 0.5``."""
        z, y, x = (line_weights(*line) for line in zip(target, source, ratio, strict=True))
        return cls((z, y, x))

    def reads(self, start: int, stop: int) -> tuple[int, int]:
        """Range of source planes that target planes ``start..stop`` need."""
        z = self.weights[0]
        if z is None:
            return start, stop
        used = z[start:stop].any(0).nonzero()
        return int(used[0]), int(used[-1]) + 1

    def run(self, planes: Tensor, start: int, stop: int) -> Tensor:
        """Target planes ``start..stop`` of the source planes that `reads` asked for.

        Parameters
        ----------
        planes : Tensor, shape (channel, z, y, x), float
            Source planes.
        """
        z, y, x = (None if w is None else w.to(planes.dtype) for w in self.weights)
        if z is not None:
            low, high = self.reads(start, stop)
            planes = torch.einsum("oz,czyx->coyx", z[start:stop, low:high], planes)
        if y is not None:
            planes = y @ planes
        return planes if x is None else planes @ x.T


def line_weights(out: int, size: int, ratio: float) -> Tensor | None:
    """Weights of linear interpolation along one axis, beyond the ends the end sample's value.

    Where the grid gets coarser, the interpolated line is averaged over ``sqrt(ratio**2 - 1)`` old
    samples, so that detail which the coarse grid cannot hold does not alias. Away from the ends a
    straight line stays one: nothing moves.

    Parameters
    ----------
    out, size : int
        Number of samples afterwards and before.
    ratio : float
        Distance of the new samples in old ones.

    Returns
    -------
    Tensor, shape (out, size), float64, or None if nothing changes
    """
    if ratio == 1.0 and out == size:
        return None
    centre = (torch.arange(out, dtype=torch.float64) + 0.5) * ratio - 0.5
    offset = centre.clamp(0, size - 1)[:, None] - torch.arange(size, dtype=torch.float64)
    if ratio <= 1:
        weights = (1 - offset.abs()).clamp_min(0)
    else:
        half = (ratio**2 - 1) ** 0.5 / 2
        weights = _under_hat(offset + half) - _under_hat(offset - half)
    return weights / weights.sum(1, keepdim=True)


def _under_hat(t: Tensor) -> Tensor:
    """Integral up to t of the kernel of linear interpolation, 1 - |t|."""
    t = t.clamp(-1, 1)
    return torch.where(t < 0, (1 + t) ** 2 / 2, 1 - (1 - t) ** 2 / 2)


def frame_for(volume: Volume, card: ModelCard, stride: Shape3) -> Frame:
    """The frame of a volume for a model.

    The volume is turned where both state an orientation, and resampled where both state a voxel
    size. Units that are not lengths (``"pixel"``) count as the card's units when the spacing is
    not 1 on every axis, and as no statement otherwise.

    Parameters
    ----------
    volume : Volume
        What will be run.
    card : ModelCard
        What the network expects.
    stride : tuple of int
        Multiples to which the network's input is padded.
    """
    axes, flipped = (0, 1, 2), (False, False, False)
    if volume.orientation and card.orientation:
        axes, flipped = axes_between(volume.orientation, card.orientation)
    ratio = _ratios(volume, card, axes)
    turned = [volume.shape[a] for a in axes]
    size = [max(1, round(n / r)) for n, r in zip(turned, ratio, strict=True)]
    padded = [-(-n // s) * s for n, s in zip(size, stride, strict=True)]
    return Frame(
        shape=volume.shape,
        axes=axes,
        flipped=flipped,
        ratio=ratio,
        size=(size[0], size[1], size[2]),
        padded=(padded[0], padded[1], padded[2]),
    )


def _ratios(volume: Volume, card: ModelCard, axes: tuple[int, int, int]) -> Vec3:
    if card.voxel_size is None:
        return 1.0, 1.0, 1.0
    factor = 1.0
    if is_length(volume.units) and is_length(card.units):
        factor = unit_ratio(card.units, volume.units)
    elif volume.spacing == (1.0, 1.0, 1.0):
        return 1.0, 1.0, 1.0
    ratios = [
        size * factor / volume.spacing[a] for size, a in zip(card.voxel_size, axes, strict=True)
    ]
    z, y, x = (1.0 if abs(r - 1) < SAME_SIZE else r for r in ratios)
    return z, y, x
