"""Turn a module into a `Graph`.

The module is recorded at two sizes, on tensors without data. Where the two recordings hold
different numbers, the number depends on the input's extent and becomes an `Extent`; a third size
confirms what was read. No forward pass is computed.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from itertools import combinations
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from napari_attention_unet.errors import GraphError
from napari_attention_unet.volume import Shape3

from .evaluate import evaluate
from .gates import find_gates
from .graph import Extent, Graph, Node, Size, substitute
from .receptive import receptive_field
from .record import INPUT, Recording, record

#: The extents recorded are these multiples of a base. All six differ, and so do the growths along
#: z, y and x, by primes: so a number that changed tells which axis it belongs to.
_FIRST, _SECOND = (2, 3, 4), (5, 8, 11)
#: Bases tried in turn: for networks that halve up to five times, and for up to seven times with
#: factors of three and five. Only the first is of a usual size; nothing has to hold the volume.
_BASES = (32, 1920)
#: For programs that were exported for no large sizes; they cannot choose by size what they run.
_EXPORTED_BASES = (*_BASES, 16)
#: `torch.export` changes global state while it runs.
_LOCK = threading.Lock()


def trace(module: nn.Module, in_channels: int | None = None, extent: Shape3 | None = None) -> Graph:
    """Turn a module into a graph of tensor operations.

    Nothing is computed and no memory taken for activations; the module is left as it was, and the
    graph shares its parameters. Takes about a second.

    Parameters
    ----------
    module : nn.Module
        Takes a tensor (1, in_channels, z, y, x). Where it returns several tensors, the first one at
        full resolution is taken, or the first one if there is none. TorchScript and the modules of
        exported programs are modules like others.
    in_channels : int, optional
        Read from the first convolution if not given.
    extent : tuple of int, optional
        One (z, y, x) that the module is known to take. Where it takes no other, the graph is
        `Graph.fixed`.

    Returns
    -------
    Graph
        Of the module in eval mode.

    Raises
    ------
    GraphError
        If the module cannot be recorded, or runs other operators for other sizes or other data.
    """
    like = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    first: Exception | None = None
    with _LOCK, _eval_mode(module):
        channels = _first_channels(module) if in_channels is None else in_channels
        for base in _EXPORTED_BASES if isinstance(module, torch.fx.GraphModule) else _BASES:
            try:
                return _trace_at(module, like, channels, base)
            except Exception as error:
                first = first or error
                if _of_data(error):
                    break
        if extent is not None and not _of_data(first):
            try:
                return _trace_fixed(module, like, channels, extent)
            except Exception as error:
                first = error
    assert first is not None
    if isinstance(first, GraphError):
        raise first
    if _of_data(first):
        raise GraphError(
            "What the network does depends on the values in the volume (an 'if' or a loop over "
            "data); only networks that run the same operators for every volume of a size can be "
            f"used. Torch says: {_one_line(first)}"
        ) from first
    raise GraphError(
        f"The network could not be run on an input of {channels} channel(s) and "
        f"{_times(_FIRST, _BASES[0])} voxels, nor on a larger one; it must take one tensor "
        f"(batch, channel, z, y, x) of any size that is a multiple of its stride, or of one size "
        f"that is said: extent=(z, y, x). It says: {_one_line(first)}"
    ) from first


def _trace_at(module: nn.Module, like: torch.Tensor, channels: int, base: int) -> Graph:
    """Trace with extents that are multiples of `base`."""
    extents = _times(_FIRST, base), _times(_SECOND, base)
    one, two = (record(module, _without_data(like, channels, extent)) for extent in extents)
    output, notes = _chosen_output(one, extents[0])
    nodes = _needed(_unified(one, two, extents), output)
    stride = _stride(nodes.values())
    third = _next_multiples(_times(_FIRST, _BASES[0]), stride)
    _confirm(nodes, record(module, _without_data(like, channels, third)), third)
    return _graph(one, nodes, like, stride, extents[0], (output, notes))


def _trace_fixed(module: nn.Module, like: torch.Tensor, channels: int, extent: Shape3) -> Graph:
    """Trace at the one extent that the module takes."""
    recording = record(module, _without_data(like, channels, extent))
    output, notes = _chosen_output(recording, extent)
    grown = {
        name: replace(node, shape=_shape_of(node, extent)) for name, node in recording.nodes.items()
    }
    said = f"The network takes {' x '.join(map(str, extent))} voxels and no other size."
    chosen = output, (*notes, said)
    graph = _graph(recording, _needed(grown, output), like, extent, extent, chosen)
    return replace(graph, fixed=True)


def _shape_of(node: Node, extent: Shape3) -> tuple[Size, ...]:
    """Sizes at one extent, told as such where they lie along an axis of the volume."""
    shape = node.shape
    if len(shape) == 5:
        spatial = zip(shape[2:], extent, strict=True)
        sizes = (
            n if n == 1 else Extent((axis,), Fraction(int(str(n)), whole))
            for axis, (n, whole) in enumerate(spatial)
        )
        return (*shape[:2], *sizes)
    voxels = math.prod(extent)
    if len(shape) == 3 and isinstance(n := shape[2], int) and voxels % n == 0 and n > 1:
        return (*shape[:2], Extent((0, 1, 2), Fraction(n, voxels)))
    return shape


def _without_data(like: torch.Tensor, channels: int, extent: Shape3) -> torch.Tensor:
    with FakeTensorMode(allow_non_fake_inputs=True):
        return torch.empty((1, channels, *extent), dtype=like.dtype, device=like.device)


def _graph(
    recording: Recording,
    nodes: dict[str, Node],
    like: torch.Tensor,
    stride: Shape3,
    traced: Shape3,
    chosen: tuple[str, tuple[str, ...]],
) -> Graph:
    """The graph of unified nodes; `chosen` is the output and what there is to say of it."""
    output, notes = chosen
    channels = recording.facts[INPUT][0][1]
    constants = dict(recording.constants)
    nodes = _needed(_folded(nodes, constants, like.device), output)
    used = {name for node in nodes.values() for name in node.inputs}
    graph = Graph(
        nodes=nodes,
        constants={name: tensor for name, tensor in constants.items() if name in used},
        input=INPUT,
        output=output,
        in_channels=channels,
        out_channels=recording.facts[output][0][1],
        stride=stride,
        traced=traced,
        receptive_field=(0.0, 0.0, 0.0),
        dtype=like.dtype,
        notes=notes,
    )
    graph = replace(graph, receptive_field=receptive_field(graph, graph.output))
    return replace(graph, gates=find_gates(graph))


def _times(factors: Sequence[int], base: int) -> Shape3:
    z, y, x = (factor * base for factor in factors)
    return z, y, x


def _next_multiples(extent: Shape3, stride: Shape3) -> Shape3:
    """Extents on a stride, a little larger than those given, and not by the same factor."""
    z, y, x = ((n // s + i) * s for i, (n, s) in enumerate(zip(extent, stride, strict=True), 1))
    return z, y, x


@contextmanager
def _eval_mode(module: nn.Module) -> Iterator[None]:
    # frozen programs have one mode, and no such attribute
    was_training = [(p, p.training) for p in module.modules() if hasattr(p, "training")]
    try:
        with suppress(NotImplementedError, AttributeError):
            module.eval()
        yield
    finally:
        for part, training in was_training:
            part.training = training


class _Reached(Exception):  # noqa: N818  (it is no error)
    """The first convolution is about to run."""


def _first_channels(module: nn.Module) -> int:
    """Input channels of the convolution that runs first, which need not be the first by name."""
    convolutions = [part for part in module.modules() if isinstance(part, nn.Conv3d)]
    if isinstance(module, torch.jit.ScriptModule):
        return _channels_of_script(module)
    if not convolutions:
        raise GraphError(
            "The network has no 3D convolution to read the number of input channels from; give "
            "in_channels."
        )
    reached = convolutions[:1]

    def stop(convolution: nn.Conv3d, inputs: Any) -> None:
        reached[0] = convolution
        raise _Reached

    hooks = [convolution.register_forward_pre_hook(stop) for convolution in convolutions]
    # whatever else it raises, tracing will say it better
    with torch.no_grad(), suppress(Exception):
        module(torch.empty(1, 1, *_times(_FIRST, _BASES[0]), device="meta"))
    for hook in hooks:
        hook.remove()
    return reached[0].in_channels


def _channels_of_script(module: torch.jit.ScriptModule) -> int:
    """The first number of channels that a program runs on, among those that its kernels take."""
    kernels = [p.shape[1] for p in module.parameters() if p.ndim == 5]
    like = next(module.parameters(), torch.empty(0))
    for channels in dict.fromkeys(sorted(kernels) or range(1, 9)):
        with suppress(Exception), torch.no_grad():
            record(module, _without_data(like, channels, _times(_FIRST, _BASES[0])))
            return channels
    return 1  # tracing will say what is wrong


def _of_data(error: Exception | None) -> bool:
    """Whether an error of torch says that Python asked for the value of a tensor."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return bool(
        kinds
        & {
            "GuardOnDataDependentSymNode",
            "DataDependentOutputException",
            "DynamicOutputShapeException",
            "PendingUnbackedSymbolNotFound",
        }
    )


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    # The interpreter of TorchScript says last what happened, after where.
    return lines[-1 if "TorchScript interpreter" in lines[0] else 0].strip()[:300]


# Two recordings become one.


def _unified(one: Recording, two: Recording, extents: tuple[Shape3, Shape3]) -> dict[str, Node]:
    pairs = list(zip(one.nodes.values(), two.nodes.values(), strict=False))
    same = len(one.nodes) == len(two.nodes) and one.outputs == two.outputs
    if not same or any((a.target, a.path) != (b.target, b.path) for a, b in pairs):
        odd = next((a for a, b in pairs if (a.target, a.path) != (b.target, b.path)), None)
        where = f" in '{odd.path}'" if odd else ""
        raise GraphError(
            f"The network runs other operators{where} for inputs of {extents[1]} voxels than for "
            f"{extents[0]}; only networks that run the same ones for every size can be used."
        )
    return {a.name: _unified_node(a, b, extents) for a, b in pairs}


def _unified_node(a: Node, b: Node, extents: tuple[Shape3, Shape3]) -> Node:
    def unify(v: Any, w: Any, position: int | None) -> Any:
        if isinstance(v, list | tuple) and isinstance(w, list | tuple) and len(v) == len(w):
            spatial = len(v) - 3  # the last three of a list of sizes are most likely z, y, x
            return type(v)(
                unify(p, q, i - spatial if i >= spatial >= 0 else None)
                for i, (p, q) in enumerate(zip(v, w, strict=True))
            )
        if type(v) is type(w) and v == w:
            return v
        if isinstance(v, int | float) and isinstance(w, int | float):
            return _extent(Fraction(v), Fraction(w), position, extents)
        raise GraphError(
            f"'{a.op}' in '{a.path}' differs between inputs of {extents[0]} and {extents[1]} "
            f"voxels in a way that was not understood: {v} and {w}."
        )

    try:
        return replace(
            a,
            args=tuple(unify(v, w, None) for v, w in zip(a.args, b.args, strict=True)),
            kwargs={key: unify(a.kwargs[key], b.kwargs[key], None) for key in a.kwargs},
            shape=unify(a.shape, b.shape, None),
        )
    except (ValueError, KeyError):
        raise GraphError(f"'{a.op}' in '{a.path}' is called in different ways.") from None


def _extent(v: Fraction, w: Fraction, position: int | None, extents: Sequence[Shape3]) -> Extent:
    """The simplest size that is `v` for the first input extent and `w` for the second."""
    small, large = extents
    fits: list[tuple[Fraction, Extent]] = []
    for axis in range(3):
        scale = (w - v) / (large[axis] - small[axis])
        offset = v - scale * small[axis]
        cost = scale.numerator * scale.denominator + abs(offset)
        fits.append((cost + (0 if axis == position else 10), Extent((axis,), scale, offset)))
    for count in (2, 3):
        for axes in combinations(range(3), count):
            scale = v / math.prod(small[axis] for axis in axes)
            if scale == w / math.prod(large[axis] for axis in axes):
                fits.append((Fraction(0), Extent(axes, scale)))
    fits = [(cost, fit) for cost, fit in fits if fit.scale > 0]
    if not fits:
        raise GraphError(
            f"The network has a size that is {v} for an input of {small} voxels and {w} for "
            f"{large}; only sizes that grow with the input can be used."
        )
    return min(fits, key=lambda item: item[0])[1]


def _chosen_output(recording: Recording, extent: Shape3) -> tuple[str, tuple[str, ...]]:
    """The name of the output to use, and a sentence if there was a choice."""
    shapes = [recording.facts[name][0] for name in recording.outputs]
    volumes = [i for i, shape in enumerate(shapes) if len(shape) == 5 and shape[0] == 1]
    full = [i for i in volumes if shapes[i][2:] == extent]
    if not volumes:
        raise GraphError(
            "The network does not return a tensor (1, channel, z, y, x); it returned "
            f"{[tuple(shape) for shape in shapes] or 'no tensor'}."
        )
    index = (full or volumes)[0]
    name = recording.outputs[index]
    if name not in recording.nodes:
        raise GraphError("The network returns its input or a parameter unchanged.")
    if len(shapes) == 1:
        return name, ()
    which = "the first one at full resolution" if full else "the first one"
    return name, (
        f"The network returns {len(shapes)} tensors; {which}, number {index + 1}, is used.",
    )


def _needed(nodes: dict[str, Node], wanted: str) -> dict[str, Node]:
    """The nodes that lead to the wanted one, in their order."""
    needed: set[str] = set()
    waiting = [wanted]
    while waiting:
        name = waiting.pop()
        if name in nodes and name not in needed:
            needed.add(name)
            waiting += nodes[name].inputs
    return {name: node for name, node in nodes.items() if name in needed}


def _folded(
    nodes: dict[str, Node], constants: dict[str, torch.Tensor], device: torch.device
) -> dict[str, Node]:
    """Compute once what follows from parameters alone; it joins the constants."""
    kept: dict[str, Node] = {}
    for node in nodes.values():
        sizes = any(isinstance(leaf, Extent) for leaf in _leaves((node.args, dict(node.kwargs))))
        if sizes or not all(name in constants for name in node.inputs):
            kept[node.name] = node
            continue
        with torch.no_grad():
            value = evaluate(node, constants.__getitem__, (0, 0, 0), device)
        constants[node.name] = value
    return kept


def _leaves(value: Any) -> Iterator[Any]:
    found: list[Any] = []
    substitute(value, found.append)
    yield from found


def _stride(nodes: Iterable[Node]) -> Shape3:
    """Per axis the least common multiple of what all sizes need to be whole."""
    stride = [1, 1, 1]
    for node in nodes:
        for leaf in _leaves((node.shape, node.args, dict(node.kwargs))):
            if isinstance(leaf, Extent) and len(leaf.axes) == 1:
                axis = leaf.axes[0]
                stride[axis] = math.lcm(stride[axis], leaf.scale.denominator)
    return stride[0], stride[1], stride[2]


def _confirm(nodes: Mapping[str, Node], recording: Recording, extent: Shape3) -> None:
    """Check every number of the nodes against a recording at another extent."""

    def at(leaf: Any) -> Any:
        return leaf.at(extent) if isinstance(leaf, Extent) else leaf

    for node in nodes.values():
        seen = recording.nodes.get(node.name)
        foretold = replace(
            node,
            args=substitute(node.args, at),
            kwargs=substitute(node.kwargs, at),
            shape=node.shape_at(extent),
        )
        if foretold != seen:
            raise GraphError(
                f"'{node.op}' in '{node.path}' does not follow the size of the input in a way that "
                f"was understood: for {extent} voxels {foretold.shape} was expected, and it gives "
                f"{seen.shape if seen else 'nothing'}."
            )
