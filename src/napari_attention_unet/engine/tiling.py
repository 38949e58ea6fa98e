"""How a volume is cut into tiles, and how far around itself a tile has to look."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from math import prod

from napari_attention_unet.graph.graph import Extent
from napari_attention_unet.graph.lower import Program
from napari_attention_unet.graph.operations import Operation, Range, Resize
from napari_attention_unet.volume import Shape3


@dataclass(frozen=True)
class Cut:
    """A tile's part of one axis of the padded input.

    Attributes
    ----------
    start, stop : int
        What it reads; multiples of the stride.
    keep_start, keep_stop : int
        What it is kept for; the kept parts of the tiles along an axis follow one another.
    """

    start: int
    stop: int
    keep_start: int
    keep_stop: int

    @property
    def length(self) -> int:
        """Voxels that it reads."""
        return self.stop - self.start


Tile = tuple[Cut, Cut, Cut]


@dataclass(frozen=True)
class Tiling:
    """How a volume is cut into tiles: every combination of the cuts along z, y and x.

    Attributes
    ----------
    axes : three tuples of Cut
        In order along each axis.
    exact : bool
        Whether what a tile keeps equals the whole-volume run; otherwise tiles are blended.
    """

    axes: tuple[tuple[Cut, ...], tuple[Cut, ...], tuple[Cut, ...]]
    exact: bool

    @property
    def count(self) -> int:
        """Number of tiles."""
        return prod(len(cuts) for cuts in self.axes)

    @property
    def largest(self) -> Shape3:
        """Spatial shape of the largest tile."""
        z, y, x = (max(cut.length for cut in cuts) for cuts in self.axes)
        return z, y, x

    @property
    def voxels(self) -> int:
        """Voxels of all tiles together."""
        return prod(sum(cut.length for cut in cuts) for cuts in self.axes)

    def tiles(self) -> Iterator[Tile]:
        """All tiles."""
        yield from product(*self.axes)


class Reach:
    """How far a network looks, as ranges along one axis.

    Parameters
    ----------
    program : Program
        The lowered network.
    operations : sequence of Operation
        Those that run.
    """

    def __init__(self, program: Program, operations: Sequence[Operation]) -> None:
        self.program, self.operations = program, operations
        graph = program.graph
        self.wanted = (graph.output, *(gate.node for gate in graph.gates))

    @property
    def bounded(self) -> bool:
        """Whether an output depends on a part of the input alone, wherever that part lies."""
        shifts = [
            op.local and not (isinstance(op, Resize) and not op.shifts) for op in self.operations
        ]
        if self.program.graph.fixed or not all(shifts):
            return False
        return all(
            samples_per_voxel(self.program, name, axis) for name in self.wanted for axis in range(3)
        )

    def cut(self, extent: Shape3, axis: int, keep: Range) -> Cut:
        """The tile that gives the output and the gates exactly over a range of the input."""
        needed: dict[str, Range] = {}
        for name in self.wanted:
            ratio = samples_per_voxel(self.program, name, axis)
            size = self.program.shape_at(name, extent)[2 + axis]
            last = keep[1] == extent[axis]
            needed[name] = (int(keep[0] * ratio), size if last else int(keep[1] * ratio))
        for op in reversed(self.operations):
            if op.name not in needed:
                continue
            start, stop = needed[op.name]
            sizes = [self.program.shape_at(name, extent)[2 + axis] for name in op.inputs]
            size = self.program.shape_at(op.name, extent)[2 + axis]
            ranges = op.reads(axis, start, stop, sizes, size)
            for name, (low, high) in zip(op.inputs, ranges, strict=True):
                before = needed.get(name, (low, high))
                needed[name] = (min(before[0], low), max(before[1], high))
        low, high = needed.get(self.program.graph.input, keep)
        stride = self.program.graph.stride[axis]
        low, high = min(low, keep[0]), max(high, keep[1])
        return Cut(low // stride * stride, min(-(-high // stride) * stride, extent[axis]), *keep)


def samples_per_voxel(program: Program, name: str, axis: int) -> Fraction:
    """Samples of a value per voxel of the input along an axis; 0 if it does not grow with it."""
    shape = program.graph.nodes[name].shape
    size = shape[2 + axis] if len(shape) == 5 else 1
    if isinstance(size, Extent) and size.axes == (axis,):
        return size.scale
    return Fraction(0)


def exact_cuts(reach: Reach, extent: Shape3, axis: int, parts: int) -> tuple[Cut, ...]:
    """Cut an axis evenly into parts that are kept, each with what it needs around it."""
    stride = reach.program.graph.stride[axis]
    edges = even_starts(extent[axis] // stride, parts)
    return tuple(
        reach.cut(extent, axis, (a * stride, b * stride))
        for a, b in zip(edges, [*edges[1:], extent[axis] // stride], strict=True)
    )


def even_starts(cells: int, parts: int) -> list[int]:
    """Where each of `parts` nearly equal parts of `cells` starts."""
    return [index * cells // parts for index in range(parts)]


def blended_cuts(extent: int, length: int, stride: int) -> tuple[Cut, ...]:
    """Cut an axis into tiles of one length that overlap by half or more, in even steps."""
    if length >= extent:
        return (Cut(0, extent, 0, extent),)
    cells, room = length // stride, (extent - length) // stride
    count = -(-room // max(1, cells // 2)) + 1
    starts = [round(index * room / (count - 1)) * stride for index in range(count)]
    return tuple(Cut(start, start + length, start, start + length) for start in starts)
