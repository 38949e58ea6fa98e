"""Lowering: a graph becomes a list of operations for one device and precision.

Batch normalisation and activations are folded into the convolutions before them, weights are cast
and laid out once, and each convolution gets its kernel. In reduced precision, what decides stays in
float32: the convolution before each gate's sigmoid, the sigmoid, and the output.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Generator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor

from napari_attention_unet.graph.devices import computed_in, wants_bias
from napari_attention_unet.graph.graph import Extent, Graph, Node, Ref, Size, substitute
from napari_attention_unet.graph.operations import (
    Activation,
    Convolution,
    Geometry,
    GlobalPooling,
    GroupNormalization,
    Kernel,
    Operation,
    Pointwise,
    Pooling,
    Resize,
    ScaleShift,
    SpatialSoftmax,
    TransposedConvolution,
    Whole,
    choose,
)
from napari_attention_unet.volume import Shape3

T = TypeVar("T")

#: Operators that treat planes alike although they are not element-wise, by how they do it.
_ALONG_CHANNELS = ("cat", "softmax", "_softmax", "log_softmax", "slice")
_REDUCTIONS = ("mean", "sum", "amax", "amin")
#: Operators that may reduce all voxels to one, and whether to the largest.
_POOLS = {"mean": False, "adaptive_avg_pool3d": False, "adaptive_max_pool3d": True, "amax": True}
_SPACE = (2, 3, 4)


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
        if node.name not in lowering.folded:
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
        self.users = graph.users()
        self.kept = {graph.output, *(gate.node for gate in graph.gates)}
        self.exact = set() if dtype == torch.float32 else self._deciding()
        self.folded: set[str] = set()

    def _deciding(self) -> set[str]:
        """Nodes back from the output and from each gate up to the convolution before."""
        found: set[str] = set()
        waiting = list(self.kept)
        while waiting:
            node = self.graph.nodes.get(waiting.pop())
            if node is None or node.name in found:
                continue
            found.add(node.name)
            if node.op not in ("conv3d", "conv_transpose3d", "linear"):
                waiting.extend(node.inputs)
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
        made = known(node) if known is not None and self._of_volumes(node) else None
        return made if made is not None else self._generic(node)

    # --- what is known ---------------------------------------------------------------------------

    def _convolution(self, node: Node) -> Operation | None:
        transposed = node.op == "conv_transpose3d"
        if transposed:
            source, w, b, stride, padding, extra, groups, dilation = node.args
        else:
            source, w, b, stride, padding, dilation, groups = node.args
            extra = (0, 0, 0)
        weight, bias = self._constant(w), self._constant(b)
        if not isinstance(source, Ref) or weight is None or (b is not None and bias is None):
            return None
        kernel = (weight.shape[2], weight.shape[3], weight.shape[4])
        geometry = Geometry(
            kernel, _shape3(stride), _shape3(padding), _shape3(dilation), groups, transposed,
            _shape3(extra),
        )  # fmt: skip
        extents = [geometry.extent(axis) for axis in range(3)]
        if transposed and any(
            e > p or n < s for e, p, n, s in zip(extra, padding, extents, stride, strict=True)
        ):
            return None  # output that no input reaches
        if any(p >= e for p, e in zip(padding, extents, strict=True)):
            return None  # output of nothing but padding
        exact = node.name in self.exact
        node, weight, bias = self._fold_batch_norm(node, weight, bias, geometry)
        node, activation = self._fold_activation(node)
        wanted = torch.float32 if exact else self.dtype
        dtype = computed_in(wanted, self.device, transposed=transposed)
        if bias is None and wants_bias(self.device):
            bias = torch.zeros(geometry.groups * weight.shape[1] if transposed else weight.shape[0])
        weight = self._placed(weight, dtype)
        bias = None if bias is None else bias.to(self.device, dtype)
        chosen: Kernel = choose(weight, bias, geometry, activation)
        make = TransposedConvolution if transposed else Convolution
        return make(node.name, (source.name,), dtype, weight, bias, geometry, activation, chosen)

    def _fold_batch_norm(
        self, node: Node, weight: Tensor, bias: Tensor | None, geometry: Geometry
    ) -> tuple[Node, Tensor, Tensor | None]:
        following = self._only_user(node)
        if following is None or following.op != "batch_norm" or following.args[0] != Ref(node.name):
            return node, weight, bias
        line = self._scale_and_shift(following)
        if line is None:
            return node, weight, bias
        scale, shift = line
        weight = weight.double()
        if geometry.transposed:  # (in, out / groups, z, y, x)
            each = weight.view(geometry.groups, -1, *weight.shape[1:])
            weight = (each * scale.view(geometry.groups, 1, -1, 1, 1, 1)).flatten(0, 1)
        else:
            weight = weight * scale.view(-1, 1, 1, 1, 1)
        bias = shift if bias is None else bias.double() * scale + shift
        self.folded.add(following.name)
        return following, weight, bias

    def _scale_and_shift(self, node: Node) -> tuple[Tensor, Tensor] | None:
        """A batch normalisation as ``scale * x + shift`` per channel, in float64."""
        _, weight, bias, mean, variance, _, _, epsilon, _ = node.args
        constants = [self._constant(v) for v in (weight, bias, mean, variance)]
        given = (weight, bias, mean, variance)
        if any(v is not None and c is None for v, c in zip(given, constants, strict=True)):
            return None
        w, b, m, v = (None if c is None else c.double() for c in constants)
        if m is None or v is None:
            return None
        scale = (v + epsilon).rsqrt()
        if w is not None:
            scale = scale * w
        shift = -m * scale
        return scale, shift if b is None else shift + b

    def _fold_activation(self, node: Node) -> tuple[Node, Activation | None]:
        following = self._only_user(node)
        if following is None or following.args[0] != Ref(node.name):
            return node, None
        slope: float | None = None
        if following.op == "relu":
            slope = 0.0
        elif following.op == "leaky_relu":
            slope = float(following.args[1])
        elif following.op == "prelu":
            constant = self._constant(following.args[1])
            if constant is not None and constant.numel() == 1:
                slope = float(constant)
        if slope is None or not 0 <= slope < 1:
            return node, None
        self.folded.add(following.name)
        return following, Activation(slope)

    def _batch_norm(self, node: Node) -> Operation | None:
        line = self._scale_and_shift(node)
        if line is None:
            return None
        source, dtype = node.args[0], self._dtype(node)
        scale, shift = (t.to(self.device, torch.float32) for t in line)
        node, activation = self._fold_activation(node)
        return ScaleShift(node.name, (source.name,), dtype, scale, shift, activation)

    def _group_norm(self, node: Node) -> Operation | None:
        if node.op == "group_norm":
            source, groups, w, b, epsilon, _ = node.args
        else:
            source, w, b, _, _, _, _, epsilon, _ = node.args
            groups = node.shape[1]
        weight, bias = self._constant(w), self._constant(b)
        if (w is not None and weight is None) or (b is not None and bias is None):
            return None
        dtype = self._dtype(node)
        node, activation = self._fold_activation(node)
        weight, bias = (
            None if t is None else t.to(self.device, torch.float32) for t in (weight, bias)
        )
        return GroupNormalization(
            node.name, (source.name,), dtype, groups, weight, bias, epsilon, activation
        )

    def _max_pool(self, node: Node) -> Operation | None:
        source, kernel, stride, padding, dilation, ceil_mode = node.args
        geometry = Geometry(_shape3(kernel), _shape3(stride), _shape3(padding), _shape3(dilation))
        return Pooling(node.name, (source.name,), self._dtype(node), geometry, ceil_mode=ceil_mode)

    def _mean_pool(self, node: Node) -> Operation | None:
        source, kernel, stride, padding, ceil_mode, with_padding, divisor = node.args
        if ceil_mode or divisor or (any(padding) and not with_padding):
            return None
        geometry = Geometry(_shape3(kernel), _shape3(stride), _shape3(padding), (1, 1, 1))
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
            return _shape3(graph.shape_at(name, extent)[2:])

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

    def _spatial_softmax(self, node: Node) -> Operation | None:
        """All voxels flattened, a softmax over them, and back to voxels."""
        source = node.args[0]
        softmax, back = self._only_user(node), None
        if softmax is not None and softmax.op == "softmax" and self._axes(softmax) == (2,):
            back = self._only_user(softmax)
        if (
            softmax is None
            or back is None
            or back.op != "reshape"
            or not isinstance(source, Ref)
            or len(node.shape) != 3
            or node.shape[1] != self._shape(source.name)[1]
            or back.shape != self._shape(source.name)
        ):
            return None
        self.folded.update((softmax.name, back.name))
        return SpatialSoftmax(back.name, (source.name,), self._dtype(back))

    # --- everything else -------------------------------------------------------------------------

    def _generic(self, node: Node) -> Operation:
        constants: list[Tensor] = []

        def placed(leaf: Any) -> Any:
            constant = self._constant(leaf)
            if constant is None:
                return leaf
            floating = constant.is_floating_point()
            constants.append(constant.to(self.device, dtype if floating else constant.dtype))
            return constants[-1]

        plane_wise = self._spatial(node) and self._plane_wise(node)
        # whatever nobody knows computes in float32, and sums over many voxels with it
        dtype = self._dtype(node) if plane_wise else torch.float32
        args = substitute(node.args, placed)
        inputs = tuple(name for name in node.inputs if name not in self.graph.constants)
        kwargs = {k: dtype if k == "dtype" and v else v for k, v in node.kwargs.items()}
        if any(t.ndim == 5 and t.shape[2] > 1 for t in constants):
            plane_wise = False  # a fixed volume does not slide along
        make = Pointwise if plane_wise else Whole
        return make(node.name, inputs, dtype, node.target, args, kwargs)

    def _plane_wise(self, node: Node) -> bool:
        if node.op in _ALONG_CHANNELS:
            return self._axes(node) == (1,)
        if node.op in _REDUCTIONS:
            return self._axes(node) == (1,) and len(node.shape) == 5
        if node.op in ("prelu", "_to_copy"):
            return True
        tags = getattr(node.target, "tags", ())
        return torch.Tag.pointwise in tags

    def _axes(self, node: Node) -> tuple[int, ...]:
        dim: Any = node.args[1] if len(node.args) > 1 else None
        return tuple(dim) if isinstance(dim, list | tuple) else (dim,)

    # --- looking around --------------------------------------------------------------------------

    def _spatial(self, node: Node) -> bool:
        """Whether its output and all that it reads, constants aside, are volumes."""
        return len(node.shape) == 5 and self._of_volumes(node)

    def _of_volumes(self, node: Node) -> bool:
        """Whether all that it reads, constants aside, are volumes."""
        names = [name for name in node.inputs if name not in self.graph.constants]
        volumes = [len(self._shape(name)) == 5 for name in names]
        return node.target is not operator.getitem and bool(volumes) and all(volumes)

    def _shape(self, name: str) -> tuple[Size, ...]:
        one = Fraction(1)
        extents = (Extent((axis,), one) for axis in range(3))
        known = self.graph.nodes.get(name)
        return (1, self.graph.in_channels, *extents) if known is None else known.shape

    def _only_user(self, node: Node) -> Node | None:
        users = self.users[node.name]
        return users[0] if len(users) == 1 and node.name not in self.kept else None

    def _constant(self, value: Any) -> Tensor | None:
        return self.graph.constants.get(value.name) if isinstance(value, Ref) else None

    def _dtype(self, node: Node) -> torch.dtype:
        return torch.float32 if node.name in self.exact else self.dtype

    def _placed(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        placed = weight.to(self.device, dtype)
        return placed.contiguous(memory_format=memory_format(self.device))


def memory_format(device: torch.device) -> torch.memory_format:
    """The layout in which volumes and weights are kept on a device."""
    return torch.contiguous_format if device.type == "mps" else torch.channels_last_3d


def _shape3(values: Any) -> Shape3:
    z, y, x = (int(v) for v in values)
    return z, y, x
