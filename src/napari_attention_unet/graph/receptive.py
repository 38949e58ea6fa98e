"""The receptive field: how much of the input one sample of the output depends on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from napari_attention_unet.volume import Vec3

from .geometry import kernel_of, lines
from .graph import Extent, Graph, Node

#: First and last sample.
Span = tuple[int, int]


def receptive_field(graph: Graph, name: str) -> Vec3:
    """Width along z, y, x, in input voxels, of what one sample of a node depends on.

    Going back from the node, every operator says which samples of its inputs it reads. Neighbouring
    samples may depend on more or less (transposed convolution, up-sampling); the widest counts. The
    ends of the volume do not limit it. Infinite where a sample depends on the whole volume, by
    normalisation, pooling or softmax over space.

    Parameters
    ----------
    graph : Graph
    name : str
        The node, with axes (batch, channel, z, y, x).
    """
    sizes = {
        node: tuple(line.size for line in of) for node, of in lines(graph, graph.traced).items()
    }
    z, y, x = (
        _width(graph, name, axis, {n: s[axis] for n, s in sizes.items()}) for axis in range(3)
    )
    return z, y, x


def _width(graph: Graph, name: str, axis: int, sizes: Mapping[str, int]) -> float:
    backwards = list(graph.nodes.values())[::-1]
    middle = sizes[name] // 2
    widest = 0
    for sample in range(middle, middle + graph.stride[axis]):
        spans: dict[str, Span] = {name: (sample, sample)}
        for node in backwards:
            if node.name not in spans:
                continue
            read = _reads(graph, node, axis, spans[node.name], sizes)
            if read is None:
                return math.inf
            for source, (low, high) in read.items():
                known = spans.get(source, (low, high))
                spans[source] = min(low, known[0]), max(high, known[1])
        if graph.input in spans:
            low, high = spans[graph.input]
            widest = max(widest, high - low + 1)
    return float(widest)


#: Operators that are not element-wise but keep samples at their places.
_IN_PLACE = frozenset(
    ("batch_norm", "cat", "expand", "getitem", "linear", "permute", "reshape", "select", "stack")
) | {"transpose", "prelu", "_to_copy", "select_scatter", "slice_scatter"}


def _reads(
    graph: Graph, node: Node, axis: int, span: Span, sizes: Mapping[str, int]
) -> dict[str, Span] | None:
    """What a node reads of its inputs along an axis; None if the whole volume."""
    sources = [name for name in node.inputs if name in sizes]
    if not sources:
        return {}
    if _is_global(graph, node, axis):
        return None
    rule = _RULES.get(node.op)
    if rule is not None:
        step = _Step(graph, node, axis, sizes[sources[0]], sizes[node.name])
        return {sources[0]: rule(step, *span)}
    size = sizes[node.name]
    return {source: _proportional(*span, sizes[source], size) for source in sources}


def _is_global(graph: Graph, node: Node, axis: int) -> bool:
    """Whether every sample of the result depends on all of the input's along an axis."""
    if node.op in ("adaptive_avg_pool3d", "adaptive_max_pool3d"):
        return bool(node.args[1][axis] == 1)
    if node.op in ("mean", "sum", "var", "std", "amax", "amin", "softmax", "log_softmax"):
        source = graph.nodes.get(node.args[0].name)
        dims = node.args[1] if len(node.args) > 1 else None
        dims = [dims] if isinstance(dims, int) else dims
        if source is None or not dims:
            return True
        return any(isinstance(size := source.shape[d], Extent) and axis in size.axes for d in dims)
    local = node.op in _RULES or node.op in _IN_PLACE
    return not local and torch.Tag.pointwise not in getattr(node.target, "tags", ())


def _proportional(low: int, high: int, before: int, after: int) -> Span:
    return low * before // after, -(-(high + 1) * before // after) - 1


@dataclass(frozen=True, slots=True)
class _Step:
    """One operator along one axis: number of samples that it reads and gives."""

    graph: Graph
    node: Node
    axis: int
    before: int
    after: int

    def at(self, argument: int) -> Any:
        """An argument of one number an axis."""
        return self.node.args[argument][self.axis]

    def kernel(self) -> int:
        return int(kernel_of(self.graph, self.node)[self.axis])


def _conv(step: _Step, low: int, high: int) -> Span:
    stride, padding, dilation = step.at(3), step.at(4), step.at(5)
    return low * stride - padding, high * stride - padding + dilation * (step.kernel() - 1)


def _pool(step: _Step, low: int, high: int) -> Span:
    kernel, stride, padding = step.at(1), step.at(2), step.at(3)
    dilation = step.at(4) if step.node.op == "max_pool3d" else 1
    return low * stride - padding, high * stride - padding + dilation * (kernel - 1)


def _conv_transpose(step: _Step, low: int, high: int) -> Span:
    stride, padding, dilation = step.at(3), step.at(4), step.at(7)
    reach = dilation * (step.kernel() - 1)
    return -((reach - low - padding) // stride), (high + padding) // stride


def _nearest(step: _Step, low: int, high: int) -> Span:
    return low * step.before // step.after, high * step.before // step.after


def _linear(step: _Step, low: int, high: int) -> Span:
    align = step.node.args[2]
    if align and step.after > 1:
        ratio = (step.before - 1) / (step.after - 1)
        return math.floor(low * ratio), math.ceil(high * ratio)
    ratio = step.before / step.after
    return math.floor((low + 0.5) * ratio - 0.5), math.ceil((high + 0.5) * ratio - 0.5)


def _pad(step: _Step, low: int, high: int) -> Span:
    widths = (list(step.node.args[1]) + [0] * 6)[:6]
    before = widths[4 - 2 * step.axis]
    return low - before, high - before


def _slice(step: _Step, low: int, high: int) -> Span:
    _, dim, start, _, stride = step.node.args
    if dim != step.axis + 2:
        return low, high
    start = start.at(step.graph.traced) if isinstance(start, Extent) else start
    return start + low * stride, start + high * stride


_RULES: Mapping[str, Callable[[_Step, int, int], Span]] = {
    "conv3d": _conv,
    "conv_transpose3d": _conv_transpose,
    "max_pool3d": _pool,
    "avg_pool3d": _pool,
    "upsample_nearest3d": _nearest,
    "_upsample_nearest_exact3d": _nearest,
    "upsample_trilinear3d": _linear,
    "constant_pad_nd": _pad,
    "pad": _pad,
    "slice": _slice,
}
