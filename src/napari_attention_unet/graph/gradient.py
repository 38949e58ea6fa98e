"""Gradients of a graph's output with respect to values within it, operator by operator.

The chain rule is followed here instead of in one call of torch's, so that a run can be followed and
stopped between operators, and only the values themselves are held in memory.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Generator
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from napari_attention_unet.errors import GraphError

from .evaluate import evaluate
from .graph import Graph, Node


@dataclass(frozen=True)
class Gradients:
    """What a backward run gives.

    Attributes
    ----------
    values, gradients : dict of str to Tensor
        By node: what the network computes there, and the gradient with respect to it.
    """

    values: dict[str, Tensor]
    gradients: dict[str, Tensor]


def gradient_steps(
    graph: Graph, x: Tensor, seed: Tensor, nodes: Collection[str]
) -> Generator[float, None, Gradients]:
    """Gradients of ``(output * seed).sum()`` with respect to the values of some nodes.

    Parameters
    ----------
    graph : Graph
        Of the network.
    x : Tensor, shape (1, in_channels, z, y, x)
        Input; extents are multiples of `Graph.stride`. It says the device.
    seed : Tensor, shape (1, out_channels, z, y, x)
        Weights of the output.
    nodes : collection of str
        Nodes with one tensor each.

    Yields
    ------
    float
        Share that is done, 0..1.

    Raises
    ------
    GraphError
        If the output does not depend on one of the nodes.
    """
    extent = tuple(x.shape[2:])
    between = _between(graph, nodes)
    kept = {name for name in between for name in graph.nodes[name].inputs} | set(nodes)
    device = x.device

    def constant(name: str) -> Tensor:
        return graph.constants[name].detach().to(device)

    values: dict[str, Any] = {graph.input: x}

    def lookup(name: str) -> Any:
        return values[name] if name in values else constant(name)

    last = {name: node.name for node in graph.nodes.values() for name in node.inputs}
    count = len(graph.nodes) + len(between)
    for done, node in enumerate(graph.nodes.values()):
        with torch.no_grad():
            values[node.name] = evaluate(node, lookup, extent, device)
        for name in node.inputs:
            if last[name] == node.name and name not in kept:
                values.pop(name, None)
        if node.name not in kept and node.name not in last:
            del values[node.name]
        yield done / count
    grads: dict[str, dict[int, Tensor]] = {graph.output: {0: seed.to(device)}}
    found: dict[str, Tensor] = {}
    for done, name in enumerate(reversed(between)):
        node = graph.nodes[name]
        if name in nodes:
            found[name] = grads[name][0]
        incoming = grads.pop(name, None)
        if incoming is not None:
            _back(node, incoming, lookup, extent, device, grads, between)
        if name not in nodes:
            values.pop(name, None)
        yield (len(graph.nodes) + done) / count
    return Gradients({n: values[n] for n in nodes}, found)


def memory_of(graph: Graph, nodes: Collection[str], extent: tuple[int, int, int]) -> int:
    """Bytes that `gradient_steps` holds at most, about: values, and some gradients at a time."""
    between = _between(graph, nodes)
    kept = {name for name in between for name in graph.nodes[name].inputs} | set(nodes)
    sizes = [4 * prod(graph.shape_at(n, extent)) for n in kept if n not in graph.constants]
    return sum(sizes) + 6 * max(sizes)


def _between(graph: Graph, nodes: Collection[str]) -> list[str]:
    """What depends on the nodes and leads to the output, they included, in order."""
    leading: set[str] = set()
    waiting = [graph.output]
    while waiting:
        name = waiting.pop()
        if name in graph.nodes and name not in leading:
            leading.add(name)
            waiting += graph.nodes[name].inputs
    if lost := [name for name in nodes if name not in leading]:
        raise GraphError(f"The network's output does not depend on {', '.join(lost)}.")
    found: set[str] = set()
    for node in graph.nodes.values():
        if node.name in nodes or any(name in found for name in node.inputs):
            found.add(node.name)
    return [name for name in graph.nodes if name in found & leading]


def _back(
    node: Node,
    incoming: dict[int, Tensor],
    lookup: Callable[[str], Any],
    extent: tuple[int, ...],
    device: torch.device,
    grads: dict[str, dict[int, Tensor]],
    between: Collection[str],
) -> None:
    """Add to the gradients of what a node reads."""
    sources = [name for name in node.inputs if name in between]
    if node.target is operator.getitem:
        name, index = node.args[0].name, node.args[1]
        _add(grads.setdefault(name, {}), index, incoming[0])
        return
    leaves = {}
    with torch.enable_grad():
        for name in sources:
            value = lookup(name)
            if not isinstance(value, Tensor):
                raise GraphError(f"'{node.name}' of the network reads several tensors as one.")
            leaves[name] = value.detach().requires_grad_(value.is_floating_point())
        result: Any = evaluate(node, lambda n: leaves.get(n, lookup(n)), extent, device)
    results = result if isinstance(result, tuple | list) else [result]
    asked = [name for name in sources if leaves[name].requires_grad]
    if not asked:
        return
    made = torch.autograd.grad(
        [results[i] for i in incoming],
        [leaves[name] for name in asked],
        list(incoming.values()),
        allow_unused=True,
    )
    for name, gradient in zip(asked, made, strict=True):
        if gradient is not None:
            _add(grads.setdefault(name, {}), 0, gradient)


def _add(sums: dict[int, Tensor], index: int, gradient: Tensor) -> None:
    sums[index] = sums[index] + gradient if index in sums else gradient
