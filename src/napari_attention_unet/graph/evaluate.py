"""The plain evaluation of a graph: the reference for every faster executor, and the fallback."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from napari_attention_unet.errors import GraphError

from .graph import Extent, Graph, Node, Ref, substitute


def run(
    graph: Graph, x: torch.Tensor, gates: Mapping[str, Any] | None = None
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Run a graph, operator by operator.

    Gradients flow to `x` where it asks for them.

    Parameters
    ----------
    graph : Graph
        Its constants are on the device of `x`.
    x : tensor, shape (1, in_channels, z, y, x)
        Extents are multiples of `graph.stride`; of the dtype of the network's parameters.
    gates : mapping of str to float, array or tensor, optional
        Gates to force: a number for the whole map, or coefficients (z, y, x) on the gate's grid.

    Returns
    -------
    output : tensor, shape (1, out_channels, z, y, x)
    coefficients : dict of str to tensor, shape (z, y, x)
        Of every gate, forced ones included.

    Raises
    ------
    GraphError
        If the input or forced coefficients have the wrong shape, or there is no such gate.
    """
    extent = _checked_extent(graph, x)
    values: dict[str, torch.Tensor] = {graph.input: x}
    forced = {
        graph.gate(name).node: _forced(graph, name, value, x, extent)
        for name, value in (gates or {}).items()
    }
    gate_nodes = {gate.node: gate.name for gate in graph.gates}
    coefficients: dict[str, torch.Tensor] = {}
    last = {name: node.name for node in graph.nodes.values() for name in node.inputs}
    finished: dict[str, list[str]] = {}
    for name, reader in last.items():
        finished.setdefault(reader, []).append(name)

    def lookup(name: str) -> torch.Tensor:
        return graph.constants[name] if name in graph.constants else values[name]

    for node in _without_causes(graph, forced):
        value = forced.get(node.name)
        if value is None:
            value = evaluate(node, lookup, extent, x.device)
        values[node.name] = value
        if node.name in gate_nodes:
            coefficients[gate_nodes[node.name]] = value[0, 0]
        for name in finished.get(node.name, ()):
            values.pop(name, None)
        if node.name == graph.output:
            output = value
    return output, {gate.name: coefficients[gate.name] for gate in graph.gates}


def _without_causes(graph: Graph, forced: Mapping[str, Any]) -> list[Node]:
    """The nodes to run when some are given: those that only lead to the given ones are not."""
    needed: set[str] = set()
    waiting = [graph.output, *(gate.node for gate in graph.gates)]
    while waiting:
        name = waiting.pop()
        if name in graph.nodes and name not in needed:
            needed.add(name)
            if name not in forced:
                waiting += graph.nodes[name].inputs
    return [node for node in graph.nodes.values() if node.name in needed]


def _checked_extent(graph: Graph, x: torch.Tensor) -> tuple[int, ...]:
    extent = tuple(x.shape[2:])
    if x.ndim != 5 or x.shape[0] != 1 or x.shape[1] != graph.in_channels:
        raise GraphError(
            f"The network takes (1, {graph.in_channels}, z, y, x); the input is {tuple(x.shape)}."
        )
    if any(n % s or n == 0 for n, s in zip(extent, graph.stride, strict=True)):
        raise GraphError(
            f"The input has {extent} voxels; pad it to a multiple of the network's stride "
            f"{graph.stride}."
        )
    return extent


def _forced(
    graph: Graph, name: str, value: Any, x: torch.Tensor, extent: Sequence[int]
) -> torch.Tensor:
    node = graph.nodes[graph.gate(name).node]
    shape = node.shape_at(extent)
    given = torch.as_tensor(value, dtype=node.dtype, device=x.device)
    if given.ndim and tuple(given.shape) != shape[2:]:
        raise GraphError(
            f"The coefficients given for the gate '{name}' have the shape {tuple(given.shape)}; "
            f"its grid has {shape[2:]} samples for this input."
        )
    return given.expand(shape)


def evaluate(
    node: Node,
    lookup: Callable[[str], torch.Tensor],
    extent: Sequence[int],
    device: torch.device,
) -> torch.Tensor:
    """Run one node.

    Parameters
    ----------
    node : Node
    lookup : callable
        Gives the tensor of a name.
    extent : sequence of int
        Spatial shape (z, y, x) of the network's input.
    device : torch.device
        Where an operator that reads no tensor makes one.
    """

    def value(leaf: Any) -> Any:
        if isinstance(leaf, Ref):
            return lookup(leaf.name)
        return leaf.at(extent) if isinstance(leaf, Extent) else leaf

    args, kwargs = substitute(node.args, value), substitute(node.kwargs, value)
    if not node.inputs:
        kwargs["device"] = device
    result: torch.Tensor = node.target(*args, **kwargs)
    return result
