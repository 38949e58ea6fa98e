"""Bring recorded operators to one plain form each.

An operator that changes nothing is dropped, the several spellings of one operation become one, and
all arguments are written out. What later stages meet is listed in `Recorder`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch

from .graph import Node, Ref, operator_name, refs, substitute

aten: Any = torch.ops.aten

#: Keyword arguments that say where and how a tensor is stored, not what it holds.
_STORAGE = frozenset(("device", "layout", "memory_format", "pin_memory", "non_blocking", "copy"))
#: Arguments of which volumetric operators take one number an axis, or one for all.
_PER_AXIS = frozenset(
    ("kernel_size", "stride", "padding", "output_padding", "dilation", "output_size")
)
#: Element-wise operators that broadcast their operands.
_BROADCAST = frozenset(("add", "sub", "rsub", "mul", "div", "maximum", "minimum", "where"))


@dataclass(frozen=True)
class Call:
    """One recorded operation: `args` in the order of the schema, sizes as plain numbers."""

    target: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def op(self) -> str:
        """Name of the operator without namespace and overload."""
        return operator_name(self.target)

    @property
    def overload(self) -> str:
        """Name of the overload."""
        return str(getattr(self.target, "_overloadname", ""))


class Recorder:
    """Collects operations as nodes, in their plain form.

    ======================= ============================================================
    ``conv3d``, ``conv_transpose3d``, ``max_pool3d``, ``avg_pool3d``, ``adaptive_*_pool3d``
                            three numbers per argument; ``padding="same"`` is spelled out
    ``batch_norm``          with stored statistics only; otherwise ``instance_norm``
    ``upsample_*3d.vec``    with ``output_size`` and no factors wherever that is the same
    ``reshape``             every way of viewing: view, flatten, squeeze, unsqueeze, ...
    ``expand``              also expand_as, broadcast_to and repeat of single samples
    ``_to_copy``            every cast that changes the type
    ``constant_pad_nd``     and ``pad`` of the other modes
    ``slice``, ``select``   also chunk, split and unbind; bounds are not negative
    ``amax``, ``amin``      also max and min over an axis
    ======================= ============================================================

    Axes (``dim``) are never negative.
    """

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.facts: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}

    def shape(self, value: Ref) -> tuple[int, ...]:
        """Shape of anything that has a name."""
        return self.facts[value.name][0]

    def dtype(self, value: Ref) -> torch.dtype:
        """Type of anything that has a name."""
        return self.facts[value.name][1]

    def add(self, call: Call, name: str, path: str) -> Ref:
        """Record a call under its plain form; what it gives may be an earlier node."""
        while True:
            call = _spelled_out(self, call)
            rule = RULES.get(call.op)
            changed = rule(self, call, name, path) if rule else None
            if isinstance(changed, Ref):
                return changed
            if changed is None or changed == call:
                break
            call = changed
        while name in self.facts:
            name += "_"
        shape, dtype = call.shape, call.dtype
        self.nodes[name] = Node(name, call.target, call.args, call.kwargs, path, shape, dtype)
        self.facts[name] = (shape, dtype)
        return Ref(name)


def _spelled_out(recorder: Recorder, call: Call) -> Call:
    """The call with all defaults written, one number an axis, and no negative ``dim``."""
    schema = getattr(call.target, "_schema", None)
    if schema is None:
        return call
    kwargs = dict(call.kwargs)
    args = list(call.args)
    tensor = next(refs(list(args)), None)
    rank = len(recorder.shape(tensor)) if tensor else 0
    if call.op == "stack":
        rank += 1
    volumetric = call.op.endswith("3d")
    positional = [argument for argument in schema.arguments if not argument.kwarg_only]
    for index, argument in enumerate(positional):
        if index >= len(args):
            default = argument.default_value if argument.has_default_value() else None
            args.append(kwargs.pop(argument.name, default))
        if argument.name in _PER_AXIS and volumetric:
            args[index] = _three(args[index])
        elif argument.name == "dim" and rank:
            args[index] = substitute(args[index], lambda d: d % rank if isinstance(d, int) else d)
    kwargs = {key: item for key, item in kwargs.items() if key not in _STORAGE}
    return replace(call, args=tuple(args), kwargs=kwargs)


def _three(value: Any) -> Any:
    if isinstance(value, int):
        return [value] * 3
    if isinstance(value, list | tuple) and len(value) == 1:
        return [value[0]] * 3
    return list(value) if isinstance(value, tuple) else value


def _broadcast_shape(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    rank = max(len(shape) for shape in shapes)
    aligned = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(max(sizes) for sizes in zip(*aligned, strict=True))


def without_needless_expands(recorder: Recorder) -> dict[str, Node]:
    """The recorded nodes, without each expand whose readers all broadcast their operands anyway."""
    readers: dict[str, list[Node]] = {}
    for node in recorder.nodes.values():
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    instead: dict[str, Ref] = {}

    def follow(value: Any) -> Any:
        return instead.get(value.name, value) if isinstance(value, Ref) else value

    def broadcasts(reader: Node, name: str, small: Ref) -> bool:
        operands = (small if ref.name == name else follow(ref) for ref in refs(reader.args))
        shapes = [recorder.shape(ref) for ref in operands]
        return reader.op in _BROADCAST and _broadcast_shape(shapes) == reader.shape

    kept = {}
    for node in recorder.nodes.values():
        node = replace(node, args=substitute(node.args, follow))
        users = readers.get(node.name, [])
        if node.op == "expand" and all(broadcasts(user, node.name, node.args[0]) for user in users):
            instead[node.name] = node.args[0]
        kept[node.name] = node
    return kept


# Rules. Each takes the recorder, the spelled-out call, and the name and path for nodes that it adds
# on the way; it gives a Ref to an earlier value, another call, or None to keep the call.

_Change = Ref | Call | None
_Rule = Callable[[Recorder, Call, str, str], _Change]


def _identity(recorder: Recorder, call: Call, name: str, path: str) -> _Change:
    value = call.args[0]
    assert isinstance(value, Ref)
    return value


def _reshape(recorder: Recorder, call: Call, name: str, path: str) -> _Change:
    source = call.args[0]
    before = recorder.nodes.get(source.name)
    if before is not None and before.op == "reshape":
        source = before.args[0]
    if recorder.shape(source) == call.shape:
        return Ref(source.name)
    return Call(aten.reshape.default, (source, list(call.shape)), {}, call.shape, call.dtype)


def _expand(recorder: Recorder, call: Call, name: str, path: str) -> _Change:
    source = call.args[0]
    small = recorder.shape(source)
    if small == call.shape:
        return Ref(source.name)
    if call.op == "repeat":
        aligned = (1,) * (len(call.shape) - len(small)) + small
        if any(a not in (1, b) for a, b in zip(aligned, call.shape, strict=True)):
            return None
    return Call(aten.expand.default, (source, list(call.shape)), {}, call.shape, call.dtype)


def _cast(recorder: Recorder, call: Call, name: str, path: str) -> _Change:
    source = call.args[0]
    if recorder.dtype(source) == call.dtype:
        return Ref(source.name)
    return Call(aten._to_copy.default, (source,), {"dtype": call.dtype}, call.shape, call.dtype)


def _pad(recorder: Recorder, call: Call, name: str, path: str) -> _Change:
    widths = list(call.args[1])
    if not any(widths):
        return Ref(call.args[0].name)
    if call.op == "pad" and call.args[2] == "constant":
        value = 0.0 if call.args[3] is None else call.args[3]
        return replace(
            call, target=aten.constant_pad_nd.default, args=(call.args[0], widths, value)
        )
    return None


def _slice(recorder: Recorder, call: Call, name: str, path: str) -> _Change:
    source, dim, start, end, step = call.args
    size = recorder.shape(source)[dim]
    start, end, step = slice(start, end, step).indices(size)
    if (start, end, step) == (0, size, 1):
        return Ref(source.name)
    return replace(call, args=(source, dim, start, end, step))


def _select(recorder: Recorder, call: Call, name: str, path: str) -> _Change:
    source, dim, index = call.args
    return replace(call, args=(source, dim, index % recorder.shape(source)[dim]))


def _conv(recorder: Recorder, call: Call, name: str, path: str) -> _Change:
    if call.overload != "padding":
        return None
    source, weight, bias, stride, padding, dilation, groups = call.args
    kernel = recorder.shape(weight)[2:]
    total = [d * (k - 1) if padding == "same" else 0 for k, d in zip(kernel, dilation, strict=True)]
    even = all(t % 2 == 0 for t in total)
    if not even:  # torch puts the odd sample at the end
        widths = [w for t in reversed(total) for w in (t // 2, t - t // 2)]
        shape = recorder.shape(source)
        padded = (*shape[:2], *(n + t for n, t in zip(shape[2:], total, strict=True)))
        pad = Call(
            aten.constant_pad_nd.default, (source, widths, 0.0), {}, padded, recorder.dtype(source)
        )
        source = recorder.add(pad, name + "_pad", path)
    halves = [t // 2 if even else 0 for t in total]
    args = (source, weight, bias, stride, halves, dilation, groups)
    return replace(call, target=aten.conv3d.default, args=args)


def _batch_norm(recorder: Recorder, call: Call, name: str, path: str) -> _Change:
    if not call.args[5]:
        return None
    # Statistics of a batch of one are those of the instance.
    source, weight, bias, _, _, _, momentum, eps, cudnn = call.args
    args = (source, weight, bias, None, None, True, momentum, eps, cudnn)
    return replace(call, target=aten.instance_norm.default, args=args)


def _instance_norm(recorder: Recorder, call: Call, name: str, path: str) -> _Change:
    if call.args[5]:
        return None
    source, weight, bias, mean, variance, _, momentum, eps, cudnn = call.args
    args = (source, weight, bias, mean, variance, False, momentum, eps, cudnn)
    return replace(call, target=aten.batch_norm.default, args=args)


def _max_pool(recorder: Recorder, call: Call, name: str, path: str) -> _Change:
    source, kernel, stride, padding, dilation, ceil_mode = call.args
    if stride:
        return None
    return replace(call, args=(source, kernel, kernel, padding, dilation, ceil_mode))


def _avg_pool(recorder: Recorder, call: Call, name: str, path: str) -> _Change:
    source, kernel, stride, *rest = call.args
    return None if stride else replace(call, args=(source, kernel, kernel, *rest))


def _upsample(recorder: Recorder, call: Call, name: str, path: str) -> _Change:
    source = call.args[0]
    if recorder.shape(source) == call.shape:
        return Ref(source.name)
    *align, factors = call.args[2:]
    if factors is not None:
        pairs = zip(recorder.shape(source)[2:], call.shape[2:], factors, strict=True)
        # Where they differ, the factor places the samples and not the ratio of sizes: keep it.
        if any(n * Fraction(f) != m for n, m, f in pairs):
            return None
    return replace(call, args=(source, list(call.shape[2:]), *align, None))


def _cat(recorder: Recorder, call: Call, name: str, path: str) -> _Change:
    tensors, dim = call.args
    if len(tensors) == 1:
        return Ref(tensors[0].name)
    if set(tensors) == {tensors[0]} and recorder.shape(tensors[0])[dim] == 1:
        return Call(aten.expand.default, (tensors[0], list(call.shape)), {}, call.shape, call.dtype)
    return None


RULES: dict[str, _Rule] = {
    **dict.fromkeys(
        ("alias", "clone", "contiguous", "detach", "lift_fresh", "lift_fresh_copy", "positive"),
        _identity,
    ),
    **dict.fromkeys(
        ("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"), _identity
    ),
    **dict.fromkeys(
        (
            "reshape",
            "view",
            "_unsafe_view",
            "_reshape_alias",
            "flatten",
            "unflatten",
            "squeeze",
            "unsqueeze",
        ),
        _reshape,
    ),
    **dict.fromkeys(("view_as", "reshape_as"), _reshape),
    **dict.fromkeys(("expand", "expand_as", "broadcast_to", "repeat"), _expand),
    **dict.fromkeys(("to", "type_as", "_to_copy"), _cast),
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad),
    "slice": _slice,
    "select": _select,
    "conv3d": _conv,
    "batch_norm": _batch_norm,
    "instance_norm": _instance_norm,
    "max_pool3d": _max_pool,
    "avg_pool3d": _avg_pool,
    **dict.fromkeys(
        ("upsample_trilinear3d", "upsample_nearest3d", "_upsample_nearest_exact3d"), _upsample
    ),
    "cat": _cat,
}


def one_of(
    recorder: Recorder, call: Call, index: int, parts: Sequence[tuple[int, ...]], dtype: torch.dtype
) -> Call | None:
    """The call that gives result number `index` of an operator with several.

    Parameters
    ----------
    recorder : Recorder
        Knows the shapes.
    call : Call
        The operator with several results.
    index : int
        Which result.
    parts : sequence of tuple of int
        Shapes of the results.
    dtype : torch.dtype
        Of that result.

    Returns
    -------
    Call or None
        None where there is no single-result form.
    """
    call = _spelled_out(recorder, call)
    args, shape = call.args, tuple(parts[index])
    if call.op in ("chunk", "split", "split_with_sizes", "tensor_split", "unsafe_chunk"):
        source, dim = args[0], args[2]
        start = sum(part[dim] for part in parts[:index])
        bounds = (source, dim, start, start + shape[dim], 1)
        return Call(aten.slice.Tensor, bounds, {}, shape, dtype)
    if call.op == "unbind":
        return Call(aten.select.int, (args[0], args[1], index), {}, shape, dtype)
    if index:
        return None
    if call.op in ("max", "min") and call.overload == "dim":
        reduce = aten.amax.default if call.op == "max" else aten.amin.default
        return Call(reduce, (args[0], [args[1]], args[2]), {}, shape, dtype)
    if call.op == "max_pool3d_with_indices":
        return Call(aten.max_pool3d.default, args, {}, shape, dtype)
    return call if call.op in ("batch_norm", "group_norm", "layer_norm") else None
