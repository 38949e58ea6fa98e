"""Resampling to another grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

import torch
from torch import Tensor

from napari_attention_unet.volume import Shape3

from .base import Operation, Range, Window


@dataclass(frozen=True, eq=False)
class Resize(Operation):
    """Nearest or trilinear resampling, planes first and then between them.

    Attributes
    ----------
    mode : str
        ``"nearest"``, ``"nearest-exact"`` or ``"trilinear"``.
    align_corners : bool
        Of the trilinear mode.
    factors : three floats or None
        Factors that place the samples; None for the ratio of the sizes.
    sizes_at : callable
        From the extent of the network's input to the output's spatial shape.
    """

    mode: str
    align_corners: bool
    factors: tuple[float, float, float] | None
    sizes_at: Callable[[Shape3], Shape3]

    @property
    def shifts(self) -> bool:
        """Whether a shifted input gives the shifted output: only the ratio of sizes counts."""
        return self.factors is None and not self.align_corners

    def _source(self, axis: int, index: int, before: int, after: int) -> float:
        """Where output sample `index` lies among `before` input samples."""
        if self.align_corners:
            return index * (before - 1) / (after - 1) if after > 1 else 0.0
        step = 1 / self.factors[axis] if self.factors else before / after
        if self.mode == "nearest":
            return float(min(floor(index * step), before - 1))
        centre = (index + 0.5) * step
        if self.mode == "nearest-exact":
            return float(min(floor(centre), before - 1))
        return min(max(centre - 0.5, 0.0), before - 1.0)

    def reads(
        self, axis: int, start: int, stop: int, sizes: Sequence[int], size: int
    ) -> list[Range]:
        """The samples on both sides of each wanted one."""
        low = self._source(axis, start, sizes[0], size)
        high = self._source(axis, stop - 1, sizes[0], size)
        return [(floor(low), min(ceil(high) + 1, sizes[0]))]

    def run(self, pieces: Sequence[Any], window: Window) -> Tensor:
        """In the plane by torch's operator, between planes in coordinates of the whole volume."""
        x = self.cast(pieces[0])
        (low, _), *_ = self.reads(0, window.start, window.stop, window.depths, window.depth)
        planes = x.squeeze(0).transpose(0, 1)  # (z, channel, y, x): a view, planes are a batch
        size = list(self.sizes_at(window.extent)[1:])
        factors = None if self.factors is None else list(self.factors[1:])
        given = (None, factors) if factors else (size, None)
        aten: Any = torch.ops.aten
        if self.mode == "trilinear":
            planes = aten.upsample_bilinear2d.vec(planes, given[0], self.align_corners, given[1])
        elif self.mode == "nearest":
            planes = aten.upsample_nearest2d.vec(planes, given[0], given[1])
        else:
            planes = aten._upsample_nearest_exact2d.vec(planes, given[0], given[1])
        source = [
            self._source(0, index, window.depths[0], window.depth) - low
            for index in range(window.start, window.stop)
        ]
        return self._between(planes, source).transpose(0, 1).unsqueeze(0)

    def _between(self, planes: Tensor, source: list[float]) -> Tensor:
        below = [floor(s) for s in source]
        share = [s - b for s, b in zip(source, below, strict=True)]
        if not any(share) and below == list(range(len(planes))):
            return planes
        device = planes.device
        index = torch.tensor(below, device=device)
        first = planes.index_select(0, index)
        if not any(share):
            return first
        above = planes.index_select(0, (index + 1).clamp_max(len(planes) - 1))
        weight = torch.tensor(share, dtype=planes.dtype, device=device).view(-1, 1, 1, 1)
        return torch.lerp(first, above, weight)
