"""Run a lowered network tile by tile, and merge the output and every gate row by row.

Two ways. *Exact*: each tile reads as far around the part that it keeps as the network looks, so the
merged result equals the whole-volume run; how far is found by following the needed ranges back
through the operations. *Blended*: tiles overlap by half and their results are averaged with
Gaussian weights, for networks that look too far or take statistics of the whole volume.
Tiles start at multiples of the network's stride, so every grid in the network lies as in the whole.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from napari_attention_unet.engine.planes import Planes, Sink
from napari_attention_unet.engine.tiling import Cut, Reach, Tile, Tiling, samples_per_voxel
from napari_attention_unet.engine.whole import Progress, Run, run_whole
from napari_attention_unet.errors import GraphError, MemoryBudgetError
from napari_attention_unet.graph.lower import Program
from napari_attention_unet.volume import Shape3

#: Standard deviation of the weights of blended tiles, in tile lengths (as nnU-Net's).
SIGMA = 1 / 8


def run_tiles(
    program: Program,
    planes: Planes,
    tiling: Tiling,
    sink: Sink,
    imposed: Mapping[str, Tensor] | None = None,
    start: int = 0,
) -> Generator[Progress, None, None]:
    """Run a network over a volume tile by tile.

    Tiles follow one another row by row along z, and results are handed over as far as they are
    final, so that no more than a row of tiles is held. Where memory runs out for an exact tile,
    that tile alone is cut in two and tried again.

    Parameters
    ----------
    program : Program
        The lowered network.
    planes : Planes
        Its input.
    tiling : Tiling
        How it is cut.
    sink : Sink
        Takes the planes of the output and of each gate, in order.
    imposed : dict of str to Tensor, optional
        See `run_whole`.
    start : int
        Rows of tiles that add nothing from this plane of the input on are left out.

    Yields
    ------
    Progress
        As `run_whole`.

    Raises
    ------
    MemoryBudgetError
        If memory runs out even for the smallest tile.
    """
    _, _, *extent = planes.shape
    merge = _Exact if tiling.exact else _Blended
    merged = merge(program, (extent[0], extent[1], extent[2]), tiling, sink)
    rows = [row for row in tiling.axes[0] if merged.end(row) > start]
    count = len(rows) * len(tiling.axes[1]) * len(tiling.axes[2])
    done = 0
    for index, row in enumerate(rows):
        merged.begin(row)
        x = planes.read((slice(row.start, row.stop), slice(0, extent[1]), slice(0, extent[2])))
        waiting = [(row, y, x_) for y in tiling.axes[1] for x_ in tiling.axes[2]][::-1]
        while waiting:
            tile = waiting.pop()
            box = [slice(tile[0].start - row.start, tile[0].stop - row.start)]
            box += [slice(cut.start, cut.stop) for cut in tile[1:]]
            given = {
                name: value[_at(merged.samples(name, tile))]
                for name, value in (imposed or {}).items()
            }
            work = _labelled(run_whole(program, x[_at(box)], given), f"tile {done + 1} of {count}")
            try:
                results = yield from work
            except MemoryBudgetError:
                halves = _halves(tile, merged) if tiling.exact else ()
                if not halves:
                    raise
            else:
                halves = ()
                merged.add(tile, results)
                del results
                done += 1
            if halves:
                waiting.extend(halves)
                count += 1
                yield Progress(0.0, "memory ran out, going on with smaller tiles")
        merged.hand_over(rows[index + 1] if index + 1 < len(rows) else None)
        yield Progress(0.0)


def _labelled(run: Run, label: str) -> Run:
    try:
        while True:
            step = next(run)
            yield Progress(step.work, f"{label}: {step.message}" if step.message else label)
    except StopIteration as end:
        results: dict[str, Tensor] = end.value
        return results
    finally:
        run.close()


def _halves(tile: Tile, merged: _Merged) -> tuple[Tile, ...]:
    """An exact tile as two, cut across the longest axis that it keeps."""
    program = merged.program
    reach = Reach(program, program.needed(merged.names))
    stride = program.graph.stride
    kept = [cut.keep_stop - cut.keep_start for cut in tile]
    axis = max(range(3), key=lambda k: kept[k] // stride[k])
    cells = kept[axis] // stride[axis]
    if cells < 2:
        return ()
    middle = tile[axis].keep_start + cells // 2 * stride[axis]
    made = []
    for keep in ((middle, tile[axis].keep_stop), (tile[axis].keep_start, middle)):
        cuts = list(tile)
        cuts[axis] = reach.cut(merged.extent, axis, keep)
        made.append((cuts[0], cuts[1], cuts[2]))
    return tuple(made)


class _Merged:
    """Planes of the output and the gates, as tiles fill them."""

    def __init__(self, program: Program, extent: Shape3, tiling: Tiling, sink: Sink) -> None:
        graph = program.graph
        self.program, self.extent, self.tiling, self.sink = program, extent, tiling, sink
        self.names = (graph.output, *(gate.node for gate in graph.gates))
        for name in self.names:
            if not all(samples_per_voxel(program, name, axis) for axis in range(3)):
                raise GraphError(
                    f"'{name}' of the network does not grow with its input, so it cannot be put "
                    "together from tiles; use plan='whole'."
                )
        #: By name: the first plane that is held, and the planes.
        self.held: dict[str, tuple[int, Tensor]] = {}

    def samples(self, name: str, tile: Tile) -> tuple[slice, slice, slice]:
        """Where the samples that a tile computes of a value lie in the whole."""
        shape = self.program.shape_at(name, (tile[0].length, tile[1].length, tile[2].length))
        starts = [
            int(cut.start * samples_per_voxel(self.program, name, axis))
            for axis, cut in enumerate(tile)
        ]
        z, y, x = (slice(a, a + n) for a, n in zip(starts, shape[2:], strict=True))
        return z, y, x

    def end(self, row: Cut) -> int:
        """Where a row of tiles ends to add to the result."""
        raise NotImplementedError

    def begin(self, row: Cut) -> None:
        """Make room for a row of tiles."""
        for name in self.names:
            low, high = self.planes(name, row)
            shape = [*self.program.shape_at(name, self.extent)]
            shape[2] = high - low
            fresh = torch.zeros(shape)
            if name in self.held:
                first, values = self.held[name]
                fresh[:, :, first - low : first - low + values.shape[2]] = values
            self.held[name] = (low, fresh)

    def planes(self, name: str, row: Cut) -> tuple[int, int]:
        """Planes of a value to which a row of tiles adds."""
        raise NotImplementedError

    def add(self, tile: Tile, results: Mapping[str, Tensor]) -> None:
        """Take the results of a tile."""
        raise NotImplementedError

    def hand_over(self, following: Cut | None) -> None:
        """Give away what no following row of tiles adds to."""
        for name in self.names:
            low, values = self.held[name]
            upto = low + values.shape[2] if following is None else self.planes(name, following)[0]
            ready = values[:, :, : upto - low]
            self.sink(name, (low, 0, 0), self.final(name, low, ready))
            self.held[name] = (upto, values[:, :, upto - low :])

    def final(self, name: str, start: int, values: Tensor) -> Tensor:
        """Planes to which every tile has added."""
        return values


class _Exact(_Merged):
    def end(self, row: Cut) -> int:
        return row.keep_stop

    def planes(self, name: str, row: Cut) -> tuple[int, int]:
        return self._kept(name, 0, row)

    def add(self, tile: Tile, results: Mapping[str, Tensor]) -> None:
        for name, value in results.items():
            there, here = [], []
            for axis, (cut, samples) in enumerate(zip(tile, self.samples(name, tile), strict=True)):
                low, high = self._kept(name, axis, cut)
                first = self.held[name][0] if axis == 0 else 0
                there.append(slice(low - first, high - first))
                here.append(slice(low - samples.start, high - samples.start))
            self.held[name][1][_at(there)] = value[_at(here)]

    def _kept(self, name: str, axis: int, cut: Cut) -> tuple[int, int]:
        ratio = samples_per_voxel(self.program, name, axis)
        size = self.program.shape_at(name, self.extent)[2 + axis]
        last = cut.keep_stop == self.extent[axis]
        return int(cut.keep_start * ratio), size if last else int(cut.keep_stop * ratio)


class _Blended(_Merged):
    """Weights are a product of one line an axis, and so is their sum: no volume of counts."""

    def end(self, row: Cut) -> int:
        return row.stop

    def planes(self, name: str, row: Cut) -> tuple[int, int]:
        line = self._line(name, 0, row)
        return line.start, line.stop

    def add(self, tile: Tile, results: Mapping[str, Tensor]) -> None:
        for name, value in results.items():
            samples = list(self.samples(name, tile))
            weighted = value
            for axis, line in enumerate(samples):
                weighted = weighted * _along(gaussian(line.stop - line.start), axis)
            first = self.held[name][0]
            samples[0] = slice(samples[0].start - first, samples[0].stop - first)
            self.held[name][1][_at(samples)] += weighted

    def final(self, name: str, start: int, values: Tensor) -> Tensor:
        for axis in range(3):
            total = torch.zeros(self.program.shape_at(name, self.extent)[2 + axis])
            for cut in self.tiling.axes[axis]:
                line = self._line(name, axis, cut)
                total[line] += gaussian(line.stop - line.start)
            if axis == 0:
                total = total[start : start + values.shape[2]]
            values = values / _along(total, axis)
        return values

    def _line(self, name: str, axis: int, cut: Cut) -> slice:
        """Samples of a tile along one axis."""
        tile = [cuts[0] for cuts in self.tiling.axes]
        tile[axis] = cut
        return self.samples(name, (tile[0], tile[1], tile[2]))[axis]


def _at(box: Sequence[slice]) -> tuple[Any, ...]:
    return (..., *box)


def gaussian(size: int) -> Tensor:
    """Weights of a tile along one axis, 1 in its middle, never below a thousandth."""
    offset = (torch.arange(size) - (size - 1) / 2) / (size * SIGMA)
    return torch.exp(-0.5 * offset**2).clamp_min(1e-3)


def _along(line: Tensor, axis: int) -> Tensor:
    return line.view([-1 if k == axis else 1 for k in range(3)])
