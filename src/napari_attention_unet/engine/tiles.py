"""Run a lowered network tile by tile, and merge the output and every gate.

Two ways. *Exact*: each tile reads as far around the part that it keeps as the network looks, so the
merged result equals the whole-volume run; how far is found by following the needed ranges back
through the operations. *Blended*: tiles overlap by half and their results are averaged with
Gaussian weights, for networks that look too far or take statistics of the whole volume.
Tiles start at multiples of the network's stride, so every grid in the network lies as in the whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from napari_attention_unet.engine.tiling import Reach, Tile, Tiling, samples_per_voxel
from napari_attention_unet.engine.whole import Progress, Run, run_whole
from napari_attention_unet.errors import GraphError, MemoryBudgetError
from napari_attention_unet.graph.lower import Program
from napari_attention_unet.volume import Shape3

#: Standard deviation of the weights of blended tiles, in tile lengths (as nnU-Net's).
SIGMA = 1 / 8


def run_tiles(
    program: Program,
    x: Tensor,
    tiling: Tiling,
    imposed: Mapping[str, Tensor] | None = None,
) -> Run:
    """Run a network over a volume tile by tile.

    Parameters, results and errors are those of `run_whole`, except that `x` stays where it is.
    Where memory runs out for an exact tile, that tile alone is cut in two and tried again.
    """
    extent: Shape3 = (x.shape[2], x.shape[3], x.shape[4])
    merge = _Exact if tiling.exact else _Blended
    merged = merge(program, extent, tiling)
    waiting = list(tiling.tiles())[::-1]
    count, done = len(waiting), 0
    while waiting:
        tile = waiting.pop()
        box = [slice(cut.start, cut.stop) for cut in tile]
        given = {
            name: value[_at(merged.samples(name, tile))] for name, value in (imposed or {}).items()
        }
        work = _labelled(run_whole(program, x[_at(box)], given), f"tile {done + 1} of {count}")
        try:
            results = yield from work
        except MemoryBudgetError:
            halves = _halves(tile, extent, merged) if tiling.exact else ()
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
    return merged.finish()


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


def _halves(tile: Tile, extent: Shape3, merged: _Merged) -> tuple[Tile, ...]:
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
        cuts[axis] = reach.cut(extent, axis, keep)
        made.append((cuts[0], cuts[1], cuts[2]))
    return tuple(made)


class _Merged:
    """The output and the gates over the whole volume, as tiles fill them."""

    def __init__(self, program: Program, extent: Shape3, tiling: Tiling) -> None:
        graph = program.graph
        self.program, self.extent, self.tiling = program, extent, tiling
        self.names = (graph.output, *(gate.node for gate in graph.gates))
        for name in self.names:
            if not all(samples_per_voxel(program, name, axis) for axis in range(3)):
                raise GraphError(
                    f"'{name}' of the network does not grow with its input, so it cannot be put "
                    "together from tiles; use plan='whole'."
                )
        self.values = {name: torch.zeros(program.shape_at(name, extent)) for name in self.names}

    def samples(self, name: str, tile: Tile) -> tuple[slice, ...]:
        """Where the samples that a tile computes of a value lie in the whole."""
        shape = self.program.shape_at(name, (tile[0].length, tile[1].length, tile[2].length))
        starts = [
            int(cut.start * samples_per_voxel(self.program, name, axis))
            for axis, cut in enumerate(tile)
        ]
        return tuple(slice(a, a + n) for a, n in zip(starts, shape[2:], strict=True))

    def add(self, tile: Tile, results: Mapping[str, Tensor]) -> None:
        raise NotImplementedError

    def finish(self) -> dict[str, Tensor]:
        return self.values


class _Exact(_Merged):
    def add(self, tile: Tile, results: Mapping[str, Tensor]) -> None:
        for name, value in results.items():
            there, here = [], []
            for axis, (cut, samples) in enumerate(zip(tile, self.samples(name, tile), strict=True)):
                ratio = samples_per_voxel(self.program, name, axis)
                last = cut.keep_stop == self.extent[axis]
                low = int(cut.keep_start * ratio)
                high = samples.stop if last else int(cut.keep_stop * ratio)
                there.append(slice(low, high))
                here.append(slice(low - samples.start, high - samples.start))
            self.values[name][_at(there)] = value[_at(here)]


class _Blended(_Merged):
    """Weights are a product of one line an axis, and so is their sum: no volume of counts."""

    def add(self, tile: Tile, results: Mapping[str, Tensor]) -> None:
        for name, value in results.items():
            samples = self.samples(name, tile)
            weighted = value
            for axis, line in enumerate(samples):
                weighted = weighted * _along(gaussian(line.stop - line.start), axis)
            self.values[name][_at(samples)] += weighted

    def finish(self) -> dict[str, Tensor]:
        for name, value in self.values.items():
            for axis in range(3):
                total = torch.zeros(value.shape[2 + axis])
                for cut in self.tiling.axes[axis]:
                    whole = [cuts[0] for cuts in self.tiling.axes]
                    whole[axis] = cut
                    line = self.samples(name, (whole[0], whole[1], whole[2]))[axis]
                    total[line] += gaussian(line.stop - line.start)
                value /= _along(total, axis)
        return self.values


def _at(box: Sequence[slice]) -> tuple[Any, ...]:
    return (..., *box)


def gaussian(size: int) -> Tensor:
    """Weights of a tile along one axis, 1 in its middle, never below a thousandth."""
    offset = (torch.arange(size) - (size - 1) / 2) / (size * SIGMA)
    return torch.exp(-0.5 * offset**2).clamp_min(1e-3)


def _along(line: Tensor, axis: int) -> Tensor:
    return line.view([-1 if k == axis else 1 for k in range(3)])
