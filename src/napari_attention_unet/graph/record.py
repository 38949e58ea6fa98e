"""Record the operators that a module runs for an input of one size."""

from __future__ import annotations

import logging
import operator
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.export.graph_signature import InputKind, OutputKind

from napari_attention_unet.errors import GraphError

from .composed import composed
from .graph import Node, Ref, substitute
from .script import script_graph
from .simplify import Call, Recorder, one_of, without_needless_expands

INPUT = "input"

_TALKATIVE = (
    "torch._subclasses.fake_tensor",
    "torch.fx.experimental.symbolic_shapes",
    "torch.export._trace",
)


@dataclass(frozen=True)
class Recording:
    """What a module did for one size: `Node` with plain numbers for all sizes.

    Attributes
    ----------
    nodes : dict of str to Node
        In order; those that do not lead to `outputs` included.
    constants : dict of str to tensor
        Parameters and buffers, shared with the module.
    outputs : tuple of str
        Names of the tensors that the module returned, flattened.
    facts : dict of str to (shape, dtype)
        Of everything that has a name.
    """

    nodes: dict[str, Node]
    constants: dict[str, torch.Tensor]
    outputs: tuple[str, ...]
    facts: dict[str, tuple[tuple[int, ...], torch.dtype]]


class _NotFunctionalError(Exception):
    """The program writes in a way that renaming cannot undo."""


def record(module: nn.Module, x: torch.Tensor) -> Recording:
    """Record what `module`, in eval mode, runs for `x`; nothing is computed.

    Parameters
    ----------
    module : nn.Module
        Left as it is.
    x : fake tensor, shape (1, channel, z, y, x)
        Only its shape, dtype and device matter.

    Raises
    ------
    GraphError
        If the module cannot be recorded.
    Exception
        Whatever the module raises for an input of this shape.
    """
    with _quiet(), torch.no_grad():
        if isinstance(module, torch.jit.ScriptModule):
            return _record_script(module, x)
        program = torch.export.export(module, (x,), strict=False)
        try:
            return _read(program)
        except _NotFunctionalError:
            # Torch's own way is thorough, and takes twice as long as the recording itself.
            program = program.run_decompositions({})
        try:
            return _read(program)
        except _NotFunctionalError:
            raise GraphError(
                "The network chooses between operators while it runs (torch.cond or the like); "
                "only networks that run the same ones for every volume of a size can be used."
            ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to ourselves what torch says of its internals, and of failures that are told anyway."""
    mine = threading.get_ident()

    def of_another_thread(entry: logging.LogRecord) -> bool:
        return entry.thread != mine

    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    for logger in loggers:
        logger.addFilter(of_another_thread)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger in loggers:
            logger.removeFilter(of_another_thread)


def _record_script(module: torch.jit.ScriptModule, x: torch.Tensor) -> Recording:
    assert isinstance(x, FakeTensor)
    graph, given, constants = script_graph(module, x)
    recorder, values = Recorder(), {given.name: Ref(INPUT)}
    for node in graph.nodes:
        if name := node.meta.get("constant"):
            values[node.name] = Ref(name)
            recorder.facts[name] = (tuple(constants[name].shape), constants[name].dtype)
    constants = {name: tensor.detach() for name, tensor in constants.items()}
    try:
        _run_through(graph, recorder, values)
    except _NotFunctionalError:
        raise GraphError(
            "This TorchScript program writes into parts of its tensors, which cannot be followed; "
            "load the weights of the network into its Python class instead."
        ) from None
    (returned,) = next(n for n in graph.nodes if n.op == "output").args
    outputs = tuple(values[item.name].name for item in returned)
    return Recording(without_needless_expands(recorder), constants, outputs, recorder.facts)


def _read(program: torch.export.ExportedProgram) -> Recording:
    recorder = Recorder()
    constants: dict[str, torch.Tensor] = {}
    values: dict[str, Any] = {}
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            values[spec.arg.name] = Ref(INPUT)
            continue
        target = spec.target
        tensor = program.state_dict.get(target, program.constants.get(target)) if target else None
        if target is None or not isinstance(tensor, torch.Tensor):
            raise GraphError(f"The network holds {target or spec.arg}, which is not a tensor.")
        constants[target] = tensor.detach()
        values[spec.arg.name] = Ref(target)
        recorder.facts[target] = (tuple(tensor.shape), tensor.dtype)
    _run_through(program.graph, recorder, values)
    (returned,) = next(n for n in program.graph.nodes if n.op == "output").args
    kinds = [spec.kind for spec in program.graph_signature.output_specs]
    outputs = tuple(
        values[item.name].name
        for item, kind in zip(returned, kinds, strict=True)
        if kind is OutputKind.USER_OUTPUT and isinstance(item, torch.fx.Node)
    )
    return Recording(without_needless_expands(recorder), constants, outputs, recorder.facts)


def _run_through(graph: torch.fx.Graph, recorder: Recorder, values: dict[str, Any]) -> None:
    """Record all operators of a graph; `values` then holds what each name means."""
    storages: dict[str, int] = {}
    several: dict[str, tuple[Call, list[tuple[int, ...]]]] = {}
    for node in graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            storages[node.name] = value.untyped_storage()._cdata
        if node.op == "placeholder":
            if values.get(node.name) == Ref(INPUT):
                recorder.facts[INPUT] = (tuple(value.shape), value.dtype)
        elif node.op == "call_function" and not node.target.__name__.startswith("_assert"):
            _step(recorder, node, values, storages, several)
        elif node.op == "get_attr":
            raise _NotFunctionalError  # a nested program, of torch.no_grad() or autocast


def _step(
    recorder: Recorder,
    node: torch.fx.Node,
    values: dict[str, Any],
    storages: dict[str, int],
    several: dict[str, tuple[Call, list[tuple[int, ...]]]],
) -> None:
    """Record one operator; `values` then holds what its name, and any name it wrote to, means."""
    target: Any = node.target
    value = node.meta.get("val")
    written: list[torch.fx.Node] = []
    args, kwargs = list(node.args), dict(node.kwargs)
    schema = getattr(target, "_schema", None)
    if schema is not None and schema.is_mutable:
        target, written = _without_writing(target, node)
    if target is operator.getitem:
        source: Any = node.args[0]
        call, parts = several[source.name]
        assert isinstance(value, torch.Tensor)
        single = one_of(recorder, call, int(str(node.args[1])), parts, value.dtype)
        if single is not None:
            values[node.name] = recorder.add(single, node.name, _path(node))
            return

    def known(leaf: Any) -> Any:
        return values[leaf.name] if isinstance(leaf, torch.fx.Node) else leaf

    first = value[0] if isinstance(value, list | tuple) and value else value
    if isinstance(first, torch.SymInt | torch.SymFloat | torch.SymBool) or (
        first is not None and not isinstance(first, torch.Tensor)
    ):
        raise GraphError(
            f"The network computes a number from its data ('{target}' in '{_path(node)}') and goes "
            "on with it in Python; only networks that run the same operators for every volume of "
            "a size can be used."
        )
    if first is None:
        return
    shape = tuple(int(n) for n in first.shape)
    call = Call(
        target, tuple(substitute(args, known)), substitute(kwargs, known), shape, first.dtype
    )
    call = composed(recorder, call)
    if isinstance(value, list | tuple):
        several[node.name] = (call, [tuple(part.shape) for part in value if part is not None])
    result = recorder.add(call, node.name, _path(node))
    values[node.name] = result
    for target_node in written:
        _rename(target_node, result, values, storages, node)


def _without_writing(target: Any, node: torch.fx.Node) -> tuple[Any, list[torch.fx.Node]]:
    """The functional twin of an operator that writes, and what it wrote to."""
    name = target.overloadpacket.__name__
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None)
    twin = getattr(packet, target._overloadname, None) if name.endswith("_") else None
    written = [
        argument
        for argument, of in zip(node.args, target._schema.arguments, strict=False)
        if of.alias_info is not None and of.alias_info.is_write
    ]
    if twin is None or len(written) != 1 or not isinstance(written[0], torch.fx.Node):
        raise _NotFunctionalError
    return twin, [written[0]]


def _rename(
    written: torch.fx.Node,
    result: Ref,
    values: dict[str, Any],
    storages: dict[str, int],
    writer: torch.fx.Node,
) -> None:
    """Let every name of the tensor that was written to mean the result from now on."""
    before = values[written.name]
    for name, storage in storages.items():
        if storage != storages[written.name] or name not in values or name == writer.name:
            continue
        if values[name] != before:  # a view of it, which the renaming would not reach
            raise _NotFunctionalError
        values[name] = result


def _path(node: torch.fx.Node) -> str:
    stack = node.meta.get("nn_module_stack")
    return str(list(stack.values())[-1][0]) if stack else ""
