"""Run a volume mirrored along axes as well, and average what the network says of it.

The padded volume is mirrored as a whole; outputs and gate maps are turned back onto their own grids
and averaged. A grid whose samples do not fall on themselves when mirrored (those of strided
convolutions lie towards one side) is interpolated linearly.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping
from dataclasses import replace
from itertools import chain, combinations

import torch
from torch import Tensor

from napari_attention_unet.engine.plan import Plan
from napari_attention_unet.engine.planes import Box, Gathered, Planes
from napari_attention_unet.engine.run import Course, Lowered, Receiver, handed_over, run
from napari_attention_unet.engine.whole import Progress
from napari_attention_unet.errors import NotFiniteError
from napari_attention_unet.graph.geometry import grid_of
from napari_attention_unet.graph.lower import Program
from napari_attention_unet.volume import Shape3


def passes(axes: Collection[int]) -> list[tuple[int, ...]]:
    """Every combination of axes along which a volume is mirrored, none of them first."""
    return list(chain.from_iterable(combinations(sorted(axes), n) for n in range(len(axes) + 1)))


def run_mirrored(
    course: Course,
    planes: Planes,
    receiver: Receiver,
    lowered: Lowered,
    imposed: Mapping[str, Tensor],
    axes: Collection[int],
    *,
    on_disk: bool = False,
) -> Generator[Progress | Plan, None, None]:
    """Run a network over a volume and its mirror images, and hand over the mean.

    Parameters, steps and errors are those of `run`, and these:

    Parameters
    ----------
    axes : collection of int
        0, 1, 2 for z, y, x; every combination of them is run.
    on_disk : bool
        Whether the sums wait in temporary files.
    """
    _, _, z, y, x = planes.shape
    mean = _Mean(course.program, (z, y, x), on_disk)
    every = passes(axes)
    try:
        for index, mirrored in enumerate(every):
            mean.begin(mirrored, 1 / len(every))
            given = {name: mean.mirrored(name, value) for name, value in imposed.items()}
            for step in run(course, Mirrored(planes, mirrored), mean, lowered, given):
                if isinstance(step, Plan):
                    yield replace(step, work=step.work * (len(every) - index))
                else:
                    words = f"pass {index + 1} of {len(every)}: {step.message}".rstrip(": ")
                    yield replace(step, message=words)
        yield from handed_over(mean.sums.results(), receiver)
    finally:
        mean.sums.close()


class Mirrored:
    """A volume mirrored along some axes."""

    def __init__(self, planes: Planes, axes: Collection[int]) -> None:
        self.shape = planes.shape
        self._planes, self._axes = planes, tuple(axes)

    def read(self, box: Box) -> Tensor:
        """A box of the mirrored volume."""
        there = [
            slice(n - cut.stop, n - cut.start) if axis in self._axes else cut
            for axis, (cut, n) in enumerate(zip(box, self.shape[2:], strict=True))
        ]
        values = self._planes.read((there[0], there[1], there[2]))
        return values.flip([2 + axis for axis in self._axes])


class _Mean:
    """Receives the results of one pass after the other, and sums them up on their own grids."""

    def __init__(self, program: Program, extent: Shape3, on_disk: bool) -> None:
        graph = program.graph
        names = (graph.output, *(gate.node for gate in graph.gates))
        shapes = {name: program.shape_at(name, extent) for name in names}
        self._output, self._shapes = graph.output, shapes
        self.sums = Gathered(shapes, on_disk=on_disk)
        self._lines = {}
        for name, shape in shapes.items():
            grid = grid_of(graph, name, extent)
            lines = zip(shape[2:], grid.scale, grid.translate, extent, strict=True)
            self._lines[name] = [mirror_line(*line) for line in lines]
        self.taken: dict[str, int] = {}
        self._axes: tuple[int, ...] = ()
        self._weight = 1.0

    def begin(self, axes: tuple[int, ...], weight: float) -> None:
        """A pass, and its weight in the mean."""
        self._axes, self._weight = axes, weight
        self.taken = dict.fromkeys(self._shapes, 0)

    def mirrored(self, name: str, value: Tensor) -> Tensor:
        """A given map as this pass sees it; the nearest samples where grids do not agree."""
        for axis in self._axes:
            value = value.index_select(2 + axis, self._lines[name][axis].argmax(1))
        return value

    def __call__(self, name: str, begin: Shape3, values: Tensor) -> None:
        """Add planes to the sums; a `Receiver`."""
        start, taken = begin[0], self.taken[name]
        values = values[:, :, max(0, taken - start) :]
        if not values.shape[2]:
            return
        good = values.isfinite().all() if name == self._output else not values.isnan().any()
        if not good:
            raise NotFiniteError(name)
        z, y, x = self._lines[name]
        if 2 in self._axes:
            values = values @ x.T
        if 1 in self._axes:
            values = y @ values
        first, stop = taken, taken + values.shape[2]
        self.taken[name] = stop
        if 0 in self._axes:
            reached = z[:, first:stop].any(1).nonzero()
            low, high = int(reached[0]), int(reached[-1]) + 1
            values = torch.einsum("oz,bczyx->bcoyx", z[low:high, first:stop], values)
            first, stop = low, high
        self.sums.results()[name][:, :, first:stop] += values * self._weight


def mirror_line(size: int, scale: float, translate: float, extent: int) -> Tensor:
    """Weights that bring samples along an axis of a mirrored volume back onto their own grid.

    Parameters
    ----------
    size : int
        Number of samples.
    scale, translate : float
        Sample ``j`` lies at voxel ``translate + scale * j``.
    extent : int
        Voxels of the volume along the axis.

    Returns
    -------
    Tensor, shape (size, size), float32
        Rows sum to 1: a reversed identity where the grid is symmetric in the volume.
    """
    there = (extent - 1 - 2 * translate) / scale - torch.arange(size, dtype=torch.float64)
    offset = there.clamp(0, size - 1)[:, None] - torch.arange(size, dtype=torch.float64)
    return (1 - offset.abs()).clamp_min(0).float()
