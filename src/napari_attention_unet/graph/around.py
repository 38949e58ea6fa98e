"""What is around a node of a graph, and what of it has been folded into others."""

from __future__ import annotations

import operator
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from napari_attention_unet.graph.graph import Extent, Graph, Node, Ref, Size
from napari_attention_unet.graph.operations import Activation
from napari_attention_unet.volume import Shape3

_ONE = Fraction(1)


class Around:
    """Looks around in a graph, for lowering.

    Attributes
    ----------
    kept : set of str
        Results: nodes that nothing may be folded over.
    folded : set of str
        Nodes that are part of another's operation.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.users = graph.users()
        self.kept = {graph.output, *(gate.node for gate in graph.gates)}
        self.folded: set[str] = set()

    def only_user(self, node: Node) -> Node | None:
        """The one node that reads it, unless it is a result itself."""
        users = self.users[node.name]
        return users[0] if len(users) == 1 and node.name not in self.kept else None

    def constant(self, value: Any) -> Tensor | None:
        """The constant that a reference means, if any."""
        return self.graph.constants.get(value.name) if isinstance(value, Ref) else None

    def shape(self, name: str) -> tuple[Size, ...]:
        """Of a node or the input."""
        node = self.graph.nodes.get(name)
        extents = (Extent((axis,), _ONE) for axis in range(3))
        return (1, self.graph.in_channels, *extents) if node is None else node.shape

    def of_volumes(self, node: Node) -> bool:
        """Whether all that it reads, constants aside, are volumes."""
        names = [name for name in node.inputs if name not in self.graph.constants]
        volumes = [len(self.shape(name)) == 5 for name in names]
        return node.target is not operator.getitem and bool(volumes) and all(volumes)

    def spatial(self, node: Node) -> bool:
        """Whether its output and all that it reads, constants aside, are volumes."""
        return len(node.shape) == 5 and self.of_volumes(node)

    def fold_activation(self, node: Node) -> tuple[Node, Activation | None]:
        """The last node of an operation with the activation that alone follows it."""
        following = self.only_user(node)
        if following is None or following.args[0] != Ref(node.name):
            return node, None
        slope: float | None = None
        if following.op == "relu":
            slope = 0.0
        elif following.op == "leaky_relu":
            slope = float(following.args[1])
        elif following.op == "prelu":
            constant = self.constant(following.args[1])
            if constant is not None and constant.numel() == 1:
                slope = float(constant)
        if slope is None or not 0 <= slope < 1:
            return node, None
        self.folded.add(following.name)
        return following, Activation(slope)

    def scale_and_shift(self, node: Node) -> tuple[Tensor, Tensor] | None:
        """A batch normalisation as ``scale * x + shift`` per channel, in float64."""
        _, weight, bias, mean, variance, _, _, epsilon, _ = node.args
        given = (weight, bias, mean, variance)
        constants = [self.constant(v) for v in given]
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


def shape3(values: Any) -> Shape3:
    """Three numbers."""
    z, y, x = (int(v) for v in values)
    return z, y, x


def memory_format(device: torch.device) -> torch.memory_format:
    """The layout in which volumes and weights are kept on a device."""
    return torch.contiguous_format if device.type == "mps" else torch.channels_last_3d
