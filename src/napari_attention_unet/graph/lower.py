"""Lowering: a graph becomes a list of operations for one device and precision.

Batch normalisation and activations are folded into the convolutions before them, weights are cast
and laid out once, and each convolution gets its kernel. In reduced precision, what decides stays in
float32: the convolutions before each gate's sigmoid, the sigmoid, and the output; and the input is
read in float32 by the first convolution, which has few channels and is no slower for it.
"""

from __future__ import annotations

from collections.abc import Collection, Generator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from napari_attention_unet.graph.around import Around, shape3
from napari_attention_unet.graph.convolutions import convolution, skipped
from napari_attention_unet.graph.graph import Extent, Graph, Node, Ref, substitute
from napari_attention_unet.graph.operations import (
    Gating,
    Geometry,
    GlobalPooling,
    GroupNormalization,
    Operation,
    Pointwise,
    Pooling,
    Resize,
    ScaleShift,
    SpatialSoftmax,
    Whole,
)
from napari_attention_unet.volume import Shape3

T = TypeVar("T")

#: Operators that treat planes alike although they are not element-wise, by how they do it.
_ALONG_CHANNELS = ("cat", "softmax", "_softmax", "log_softmax", "slice")
_REDUCTIONS = ("mean", "sum", "amax", "amin")
#: Operators that may reduce all voxels to one, and whether to the largest.
_POOLS = {"mean": False, "adaptive_avg_pool3d": False, "adaptive_max_pool3d": True, "amax": True}
_SPACE = (2, 3, 4)
_WEIGHTED = ("conv3d", "conv_transpose3d", "linear")
#: What may lie between a gate's convolutions.
_IN_SUMS = ("add", "relu", "leaky_relu", "prelu", "batch_norm", "upsample_trilinear3d")


@dataclass(frozen=True, eq=False, repr=False)
class Program:
    """A lowered network.

    Attributes
    ----------
    graph : Graph
        What it was made of.
    operations : tuple of Operation
        In order.
    device : torch.device
        Where its weights are.
    dtype : torch.dtype
        In which most of it computes.
    rates : dict of str to float
        Work per second of each operation on this device, as executors learn it.
    """

    graph: Graph
    operations: tuple[Operation, ...]
    device: torch.device
    dtype: torch.dtype
    rates: dict[str, float] = field(default_factory=dict)
    _shapes: dict[tuple[str, Shape3], tuple[int, ...]] = field(default_factory=dict)

    @cached_property
    def unknown(self) -> tuple[str, ...]:
        """Operators that need a whole volume at once because nothing is known of them."""
        return tuple(
            dict.fromkeys(
                self.graph.nodes[op.name].op
                for op in self.operations
                if isinstance(op, Whole) and any(map(self.grows, (op.name, *op.inputs)))
            )
        )

    def grows(self, name: str) -> bool:
        """Whether the size of a value depends on the input's extents."""
        node = self.graph.nodes.get(name)
        return node is None or any(isinstance(size, Extent) for size in node.shape)

    def shape_at(self, name: str, extent: Shape3) -> tuple[int, ...]:
        """Shape of a value, or of the input, for an input of the spatial shape `extent`."""
        key = (name, extent)
        if key not in self._shapes:  # exact fractions are slow, and each is asked for often
            self._shapes[key] = self.graph.shape_at(name, extent)
        return self._shapes[key]

    def needed(self, wanted: Collection[str], given: Collection[str] = ()) -> list[Operation]:
        """The operations that lead to `wanted` values when those in `given` are imposed."""
        alive, needed = set(wanted), []
        for op in reversed(self.operations):
            if op.name in alive and op.name not in given:
                needed.append(op)
                alive.update(op.inputs)
        return needed[::-1]


def lower(graph: Graph, device: torch.device, dtype: torch.dtype) -> Program:
    """Lower a graph.

    Parameters
    ----------
    graph : Graph
        Of the network.
    device : torch.device
        Where it will run.
    dtype : torch.dtype
        ``torch.float32``, or ``torch.bfloat16`` or ``torch.float16`` for reduced precision.
    """
    return finished(lower_steps(graph, device, dtype))


def finished(steps: Generator[object, None, T]) -> T:
    """What a generator returns, once it has gone through all its steps."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


def lower_steps(
    graph: Graph, device: torch.device, dtype: torch.dtype
) -> Generator[float, None, Program]:
    """Lower a graph operation by operation, which takes seconds for a wide network; see `lower`.

    Yields
    ------
    float
        Share that is done, 0..1.
    """
    lowering = _Lowering(graph, device, dtype)
    made: list[Operation] = []
    for index, node in enumerate(graph.nodes.values()):
        if node.name not in lowering.around.folded and not skipped(lowering.around, node):
            with torch.inference_mode():
                made.append(lowering.operation(node))
            yield index / len(graph.nodes)
    # an operation is named after the last node folded into it, and stands in its place
    order = {name: index for index, name in enumerate(graph.nodes)}
    made.sort(key=lambda op: order[op.name])
    return Program(graph, tuple(made), device, dtype)


class _Lowering:
    def __init__(self, graph: Graph, device: torch.device, dtype: torch.dtype) -> None:
        self.graph, self.device, self.dtype = graph, device, dtype
        self.around = Around(graph)
        self.exact = set() if dtype == torch.float32 else self._deciding()

    def _deciding(self) -> set[str]:
        """Nodes back from the output and from each gate up to the convolution before.

        From a gate also the sum before that, where it is one of convolutions that read each voxel
        but once: of the skip and of the gating signal.
        """
        found: set[str] = set()
        waiting = list(self.around.kept)
        while waiting:
            node = self.graph.nodes.get(waiting.pop())
            if node is None or node.name in found:
                continue
            found.add(node.name)
            if node.op not in _WEIGHTED:
                waiting.extend(node.inputs)
            elif node.op == "conv3d" and node.shape[1] == 1:
                found |= self._sum(node.inputs[0]) or set()
        return found

    def _sum(self, name: str) -> set[str] | None:
        """The nodes of a sum of cheap convolutions; None where there is something else in it."""
        node = self.graph.nodes.get(name)
        if node is None or (node.op not in _WEIGHTED and node.op not in _IN_SUMS):
            return None
        found = {name}
        if node.op in _WEIGHTED:
            kernel = self.graph.constants[node.inputs[1]].shape[2:] if node.op == "conv3d" else ()
            once = all(k <= s for k, s in zip(kernel, node.args[3], strict=False))
            return found if kernel and once else None
        for source in node.inputs:
            if source not in self.graph.constants:
                part = self._sum(source)
                if part is None:
                    return None
                found |= part
        return found

    def operation(self, node: Node) -> Operation:
        """The operation of a node and of what can be folded into it."""
        known = {
            "conv3d": self._convolution,
            "conv_transpose3d": self._convolution,
            "batch_norm": self._batch_norm,
            "instance_norm": self._group_norm,
            "group_norm": self._group_norm,
            "max_pool3d": self._max_pool,
            "avg_pool3d": self._mean_pool,
            "upsample_nearest3d": self._resize,
            "_upsample_nearest_exact3d": self._resize,
            "upsample_trilinear3d": self._resize,
            "reshape": self._spatial_softmax,
        }.get(node.op)
        if node.op in _POOLS:
            known = self._global_pool
        if node.op == "mul":
            known = self._gating
        made = known(node) if known is not None and self.around.of_volumes(node) else None
        return made if made is not None else self._generic(node)

    def _convolution(self, node: Node) -> Operation | None:
        kept = self._dtype(node)
        # rounding what is read would cost more than all rounding after it
        dtype = torch.float32 if self.graph.input in node.inputs else kept
        return convolution(self.around, node, self.device, dtype, kept)

    # --- what is known ---------------------------------------------------------------------------

    def _batch_norm(self, node: Node) -> Operation | None:
        line = self.around.scale_and_shift(node)
        if line is None:
            return None
        source, dtype = node.args[0], self._dtype(node)
        scale, shift = (t.to(self.device, torch.float32) for t in line)
        node, activation = self.around.fold_activation(node)
        return ScaleShift(node.name, (source.name,), dtype, scale, shift, activation)

    def _group_norm(self, node: Node) -> Operation | None:
        if node.op == "group_norm":
            source, groups, w, b, epsilon, _ = node.args
        else:
            source, w, b, _, _, _, _, epsilon, _ = node.args
            groups = node.shape[1]
        weight, bias = self.around.constant(w), self.around.constant(b)
        if (w is not None and weight is None) or (b is not None and bias is None):
            return None
        dtype = self._dtype(node)
        node, activation = self.around.fold_activation(node)
        weight, bias = (
            None if t is None else t.to(self.device, torch.float32) for t in (weight, bias)
        )
        return GroupNormalization(
            node.name, (source.name,), dtype, groups, weight, bias, epsilon, activation
        )

    def _max_pool(self, node: Node) -> Operation | None:
        source, kernel, stride, padding, dilation, ceil_mode = node.args
        geometry = Geometry(shape3(kernel), shape3(stride), shape3(padding), shape3(dilation))
        return Pooling(node.name, (source.name,), self._dtype(node), geometry, ceil_mode=ceil_mode)

    def _mean_pool(self, node: Node) -> Operation | None:
        source, kernel, stride, padding, ceil_mode, with_padding, divisor = node.args
        if ceil_mode or divisor or (any(padding) and not with_padding):
            return None
        geometry = Geometry(shape3(kernel), shape3(stride), shape3(padding), (1, 1, 1))
        return Pooling(node.name, (source.name,), self._dtype(node), geometry, mean=True)

    def _resize(self, node: Node) -> Operation | None:
        source, *middle, factors = node.args
        mode = {
            "upsample_trilinear3d": "trilinear",
            "upsample_nearest3d": "nearest",
            "_upsample_nearest_exact3d": "nearest-exact",
        }[node.op]
        corners = bool(middle[-1]) if mode == "trilinear" else False
        graph, name = self.graph, node.name

        def sizes_at(extent: Shape3) -> Shape3:
            return shape3(graph.shape_at(name, extent)[2:])

        three = None if factors is None else (factors[0], factors[1], factors[2])
        return Resize(name, (source.name,), self._dtype(node), mode, corners, three, sizes_at)

    def _global_pool(self, node: Node) -> Operation | None:
        largest = _POOLS[node.op]
        if node.op.startswith("adaptive"):
            whole = tuple(node.args[1]) == (1, 1, 1)
        else:
            whole = self._axes(node) == _SPACE
        if not whole or any(isinstance(size, Extent) for size in node.shape):
            return None
        shape = tuple(int(size) for size in node.shape)  # type: ignore[arg-type]
        return GlobalPooling(node.name, node.inputs, torch.float32, largest, shape)

    def _gating(self, node: Node) -> Operation | None:
        names = [v.name for v in node.args[:2] if isinstance(v, Ref)]
        names = [name for name in names if name not in self.graph.constants]
        shapes = [self.around.shape(name) for name in names]
        if len(shapes) != 2 or shapes[0][2:] != shapes[1][2:]:
            return None
        if sorted(shape[1] == 1 for shape in shapes) != [False, True]:
            return None
        return Gating(node.name, (names[0], names[1]), self._dtype(node))

    def _spatial_softmax(self, node: Node) -> Operation | None:
        """All voxels flattened, a softmax over them, and back to voxels."""
        source = node.args[0]
        softmax, back = self.around.only_user(node), None
        if softmax is not None and softmax.op == "softmax" and self._axes(softmax) == (2,):
            back = self.around.only_user(softmax)
        if (
            softmax is None
            or back is None
            or back.op != "reshape"
            or not isinstance(source, Ref)
            or len(node.shape) != 3
            or node.shape[1] != self.around.shape(source.name)[1]
            or back.shape != self.around.shape(source.name)
        ):
            return None
        self.around.folded.update((softmax.name, back.name))
        return SpatialSoftmax(back.name, (source.name,), self._dtype(back))

    # --- everything else -------------------------------------------------------------------------

    def _generic(self, node: Node) -> Operation:
        if self._repeats_channels(node):
            node = replace(node, args=(node.args[0], [*node.shape[:2], -1, -1, -1]))
        constants: list[Tensor] = []

        def placed(leaf: Any) -> Any:
            constant = self.around.constant(leaf)
            if constant is None:
                return leaf
            floating = constant.is_floating_point()
            constants.append(constant.to(self.device, dtype if floating else constant.dtype))
            return constants[-1]

        plane_wise = self.around.spatial(node) and self._plane_wise(node)
        # whatever nobody knows computes in float32, and sums over many voxels with it
        dtype = self._dtype(node) if plane_wise else torch.float32
        args = substitute(node.args, placed)
        inputs = tuple(name for name in node.inputs if name not in self.graph.constants)
        kwargs = {k: dtype if k == "dtype" and v else v for k, v in node.kwargs.items()}
        if any(t.ndim == 5 and t.shape[2] > 1 for t in constants):
            plane_wise = False  # a fixed volume does not slide along
        make = Pointwise if plane_wise else Whole
        return make(node.name, inputs, dtype, node.target, args, kwargs)

    def _repeats_channels(self, node: Node) -> bool:
        if node.op != "expand" or not self.around.spatial(node):
            return False
        return self.around.shape(node.inputs[0])[2:] == node.shape[2:]

    def _plane_wise(self, node: Node) -> bool:
        if node.op in _ALONG_CHANNELS:
            return self._axes(node) == (1,)
        if node.op in _REDUCTIONS:
            return self._axes(node) == (1,) and len(node.shape) == 5
        if node.op in ("prelu", "_to_copy") or self._repeats_channels(node):
            return True
        tags = getattr(node.target, "tags", ())
        return torch.Tag.pointwise in tags

    def _axes(self, node: Node) -> tuple[int, ...]:
        dim: Any = node.args[1] if len(node.args) > 1 else None
        return tuple(dim) if isinstance(dim, list | tuple) else (dim,)

    def _dtype(self, node: Node) -> torch.dtype:
        return torch.float32 if node.name in self.exact else self.dtype
