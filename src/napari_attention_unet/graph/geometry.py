"""Where the samples of every tensor of a graph lie in the input.

Per axis a tensor's samples have a distance (``jump``, in input voxels) and a first centre
(``start``, in input voxels). An operator moves them by the arithmetic of receptive-field centres
(Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural Networks", Distill
2019), here extended to transposed convolution, resampling, slicing and padding. All of it is exact,
in fractions.

Where branches meet (add, mul, cat) they may disagree. The branch that has stayed at the finest
scale says where the result lies: in a U-Net the skip, while the other has come by way of a coarser
grid. Branches alike in this share it out evenly, so that the slices of a space-to-depth give the
middle of their cell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from .graph import Extent, Graph, Grid, Node, substitute


@dataclass(frozen=True, slots=True)
class Line:
    """The samples of a tensor along one axis of the input.

    Attributes
    ----------
    size : int
        Number of samples.
    jump, start : Fraction
        Sample ``j`` has its centre at input voxel ``start + jump * j``.
    coarsest : Fraction
        The largest jump on the way from the input.
    """

    size: int
    jump: Fraction = Fraction(1)
    start: Fraction = Fraction(0)
    coarsest: Fraction = Fraction(1)

    def moved(self, size: int, jump: Fraction, start: Fraction) -> Line:
        """Other samples of the same branch."""
        return Line(size, jump, start, max(self.coarsest, jump))

    def windowed(self, size: int, kernel: int, stride: int, padding: int, dilation: int) -> Line:
        """After a convolution or a pooling."""
        reach = Fraction(dilation * (kernel - 1), 2)
        return self.moved(size, self.jump * stride, self.start + (reach - padding) * self.jump)

    def transposed(self, size: int, kernel: int, stride: int, padding: int, dilation: int) -> Line:
        """After a transposed convolution."""
        reach, jump = Fraction(dilation * (kernel - 1), 2), self.jump / stride
        return self.moved(size, jump, self.start + (padding - reach) * jump)

    def resampled(self, size: int, ratio: Fraction) -> Line:
        """After resampling by which the outer edges of the first samples coincide.

        Parameters
        ----------
        size : int
            Number of samples after.
        ratio : Fraction
            Distance of samples after, in distances before.
        """
        return self.moved(size, self.jump * ratio, self.start + (ratio - 1) * self.jump / 2)

    def stretched(self, size: int) -> Line:
        """After resampling by which the centres of the first and of the last samples coincide."""
        return self.moved(size, self.jump * Fraction(self.size - 1, size - 1), self.start)

    def sliced(self, size: int, start: int, step: int = 1) -> Line:
        """After slicing or, with a negative start, padding."""
        return self.moved(size, self.jump * step, self.start + start * self.jump)


Lines = tuple[Line, Line, Line]


def as_grid(lines_: Lines) -> Grid:
    """Scale and translate of a tensor's samples."""
    z, y, x = lines_
    return Grid(
        (float(z.jump), float(y.jump), float(x.jump)),
        (float(z.start), float(y.start), float(x.start)),
    )


def grid_of(graph: Graph, name: str, extent: Sequence[int] | None = None) -> Grid:
    """Where the samples of a node's result lie.

    Parameters
    ----------
    graph : Graph
    name : str
        The node.
    extent : sequence of int, optional
        Spatial shape (z, y, x) of the input, multiples of the stride; `Graph.traced` if not given.
        It matters only after resampling with ``align_corners=True``.
    """
    return as_grid(lines(graph, extent or graph.traced)[name])


def lines(graph: Graph, extent: Sequence[int]) -> dict[str, Lines]:
    """The samples of the input and of every node, for an input of the spatial shape `extent`.

    Tensors that do not depend on the input are left out. A tensor that was reshaped so that it has
    no z, y and x axes keeps the samples that it was made of.
    """
    z, y, x = extent
    found: dict[str, Lines] = {graph.input: (Line(z), Line(y), Line(x))}

    def at(leaf: Any) -> Any:
        return leaf.at(extent) if isinstance(leaf, Extent) else leaf

    for node in graph.nodes.values():
        known = [found[name] for name in node.inputs if name in found]
        if not known:
            continue
        shape = node.shape_at(extent)
        args = substitute(node.args, at)
        step = _Step(graph, node, args, known, shape)
        made = _RULES.get(node.op, _joined)(step)
        found[node.name] = _fitted(made, shape)
    return found


@dataclass(frozen=True, slots=True)
class _Step:
    """One node on the way: arguments with plain sizes, the lines of its inputs, its shape."""

    graph: Graph
    node: Node
    args: tuple[Any, ...]
    known: list[Lines]
    shape: tuple[int, ...]

    @property
    def source(self) -> Lines:
        return self.known[0]

    @property
    def spatial(self) -> tuple[int, ...]:
        """Spatial shape of the result."""
        return self.shape[2:]


def kernel_of(graph: Graph, node: Node) -> tuple[Any, ...]:
    """Spatial shape of the weight of a convolution."""
    weight = node.args[1].name
    if weight in graph.constants:
        return tuple(graph.constants[weight].shape[2:])
    return graph.nodes[weight].shape[2:]


def _fitted(made: Lines, shape: tuple[int, ...]) -> Lines:
    """The lines with the number of samples that there are: after a pixel shuffle they differ."""
    if len(shape) != 5:
        return made
    z, y, x = (
        line if line.size == size else line.resampled(size, Fraction(line.size, size))
        for line, size in zip(made, shape[2:], strict=True)
    )
    return z, y, x


def _each(change: Callable[[Line, int], Line], lines_: Lines) -> Lines:
    z, y, x = (change(line, axis) for axis, line in enumerate(lines_))
    return z, y, x


def _windowed(step: _Step) -> Lines:
    if step.node.op == "conv3d":
        kernel: Sequence[int] = kernel_of(step.graph, step.node)
        stride, padding, dilation = step.args[3:6]
    else:
        kernel, stride, padding = step.args[1:4]
        dilation = step.args[4] if step.node.op == "max_pool3d" else (1, 1, 1)
    return _each(
        lambda line, i: line.windowed(
            step.spatial[i], kernel[i], stride[i], padding[i], dilation[i]
        ),
        step.source,
    )


def _transposed(step: _Step) -> Lines:
    kernel = kernel_of(step.graph, step.node)
    stride, padding, dilation = step.args[3], step.args[4], step.args[7]
    return _each(
        lambda line, i: line.transposed(
            step.spatial[i], kernel[i], stride[i], padding[i], dilation[i]
        ),
        step.source,
    )


def _upsampled(step: _Step) -> Lines:
    align = step.node.op == "upsample_trilinear3d" and step.args[2]
    factors = step.args[-1]

    def change(line: Line, axis: int) -> Line:
        size = step.spatial[axis]
        if align and size > 1 and line.size > 1:
            return line.stretched(size)
        ratio = 1 / Fraction(factors[axis]) if factors else Fraction(line.size, size)
        return line.resampled(size, ratio)

    return _each(change, step.source)


def _padded(step: _Step) -> Lines:
    widths = (list(step.args[1]) + [0] * 6)[:6]  # x first, before and after
    return _each(lambda line, i: line.sliced(step.spatial[i], -widths[4 - 2 * i]), step.source)


def _sliced(step: _Step) -> Lines:
    _, dim, start, _, stride = step.args
    if len(step.shape) != 5:
        return step.source
    return _each(
        lambda line, i: line.sliced(step.spatial[i], start, stride) if i == dim - 2 else line,
        step.source,
    )


def _joined(step: _Step) -> Lines:
    return _each(lambda _, axis: _join([known[axis] for known in step.known]), step.source)


def _join(branches: Sequence[Line]) -> Line:
    size = max(line.size for line in branches)
    placed = [line for line in branches if line.size == size]  # the others are broadcast
    coarsest = min(line.coarsest for line in placed)
    chosen = [line for line in placed if line.coarsest == coarsest]
    start = sum((line.start for line in chosen), Fraction(0)) / len(chosen)
    jump = sum((line.jump for line in chosen), Fraction(0)) / len(chosen)
    return Line(size, jump, start, coarsest)


#: Operators that move samples; all others keep the places of their inputs, joined.
_RULES: Mapping[str, Callable[[_Step], Lines]] = {
    **dict.fromkeys(("conv3d", "max_pool3d", "avg_pool3d"), _windowed),
    "conv_transpose3d": _transposed,
    **dict.fromkeys(
        ("upsample_trilinear3d", "upsample_nearest3d", "_upsample_nearest_exact3d"), _upsampled
    ),
    **dict.fromkeys(("constant_pad_nd", "pad"), _padded),
    "slice": _sliced,
}
