"""The words of a traced network: nodes, sizes, grids, gates and the graph itself.

A graph is functional: no operator writes into its inputs and no value aliases another.
It holds for a batch of one and for every input whose extents are multiples of `Graph.stride`;
numbers that depend on the input's extents are stored as `Extent`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Any

import torch

from napari_attention_unet.errors import GraphError
from napari_attention_unet.volume import Shape3, Vec3


@dataclass(frozen=True, slots=True)
class Ref:
    """A reference to another node, to the graph's input or to a constant, by name."""

    name: str


@dataclass(frozen=True, slots=True)
class Extent:
    """A size that depends on the extents of the network's input.

    Its value is ``scale * product of the input's extents along axes + offset``.

    Attributes
    ----------
    axes : tuple of int
        Spatial axes of the input, 0, 1, 2 for z, y, x: one for the size of an axis, several for
        the size of axes flattened into one.
    scale, offset : Fraction
        Exact.
    """

    axes: tuple[int, ...]
    scale: Fraction
    offset: Fraction = Fraction(0)

    def at(self, extent: Sequence[int]) -> int:
        """Its value for an input of the spatial shape `extent` (z, y, x).

        Raises
        ------
        GraphError
            If it is not a whole number, because `extent` is not a multiple of the stride.
        """
        value = self.scale * prod(extent[axis] for axis in self.axes) + self.offset
        if value.denominator != 1:
            raise GraphError(
                f"The network has no whole size for an input of {tuple(extent)} voxels; "
                "pad the input to a multiple of the network's stride."
            )
        return value.numerator


#: A size: a number, or one that depends on the input's extents.
Size = int | Extent


def substitute(value: Any, change: Callable[[Any], Any]) -> Any:
    """A copy of nested lists, tuples and dicts with `change` applied to every leaf."""
    if isinstance(value, list | tuple):
        return type(value)(substitute(item, change) for item in value)
    if isinstance(value, Mapping):
        return {key: substitute(item, change) for key, item in value.items()}
    return change(value)


def refs(value: Any) -> Iterator[Ref]:
    """All references in nested lists, tuples and dicts, in order."""
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from refs(item)
    elif isinstance(value, Mapping):
        yield from refs(list(value.values()))


def operator_name(target: Callable[..., Any]) -> str:
    """Name of an operator without namespace and overload, e.g. ``"conv3d"``."""
    packet = getattr(target, "overloadpacket", None)
    return str(getattr(packet or target, "__name__", target))


@dataclass(frozen=True, slots=True)
class Node:
    """One tensor operation.

    Attributes
    ----------
    name : str
        Unique among nodes, constants and the input.
    target : callable
        An ATen ``OpOverload``, or ``operator.getitem`` for one result of several.
    args : tuple
        In the order of the operator's schema, defaults filled in (keyword-only ones excepted).
        Tensors are `Ref`, sizes that depend on the input `Extent`; both may stand in lists.
        Convolutions and poolings have three numbers for each of kernel, stride, padding and
        dilation.
    kwargs : dict
        Keyword-only arguments, without device, layout and memory format.
    path : str
        Path of the module that ran it, ``""`` for the network itself.
    shape : tuple of int or Extent
        Of the result (batch, channel, z, y, x, unless it was reshaped); of the first one where the
        operator has several.
    dtype : torch.dtype
        Of the result for an input of the parameters' dtype.
    """

    name: str
    target: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    path: str
    shape: tuple[Size, ...]
    dtype: torch.dtype

    @property
    def op(self) -> str:
        """Name of the operator without namespace and overload, e.g. ``"conv3d"``."""
        return operator_name(self.target)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of all that it reads (nodes, constants, the graph's input), each once, in order."""
        return tuple(dict.fromkeys(ref.name for ref in refs((self.args, dict(self.kwargs)))))

    def shape_at(self, extent: Sequence[int]) -> tuple[int, ...]:
        """Shape of the result for an input of the spatial shape `extent` (z, y, x)."""
        return tuple(s.at(extent) if isinstance(s, Extent) else s for s in self.shape)


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the samples of a tensor lie in the input.

    Attributes
    ----------
    scale, translate : tuple of float
        Along z, y, x: sample ``j`` has its centre at input voxel ``translate + scale * j``.
    """

    scale: Vec3
    translate: Vec3


@dataclass(frozen=True, slots=True)
class Gate:
    """An attention gate.

    Attributes
    ----------
    name : str
        Its module in the network, unique, e.g. ``"att4"``.
    node : str
        The node that holds the coefficients, shape (1, 1, z, y, x), before any up-sampling.
    kind : str
        ``"sigmoid"``, ``"softmax"``, ``"squeeze-excitation"`` (a sigmoid of the gated features
        alone, without a gating signal), ``"cbam"`` (such a sigmoid of their maximum and mean over
        channels) or ``"candidate"`` (one channel multiplied into several that is none of these).
    grid : Grid
        Where its samples lie. Exact; where it depends on the input's extent (resampling with
        ``align_corners=True`` before the gate) it is that of `Graph.traced`, and
        `geometry.grid_of` gives it for any other.
    """

    name: str
    node: str
    kind: str
    grid: Grid


@dataclass(frozen=True)
class Graph:
    """A network as tensor operations, exact for one sample in eval mode.

    Attributes
    ----------
    nodes : dict of str to Node
        In the order in which the network runs them; every one is needed for the output or a gate.
    constants : dict of str to tensor
        Parameters and buffers by their names in the state_dict, and what follows from them alone.
        Shared with the module, not copied.
    input, output : str
        Name of the input (1, in_channels, z, y, x) and of the node of the output
        (1, out_channels, z, y, x).
    in_channels, out_channels : int
        Number of channels.
    stride : tuple of int
        The graph holds for inputs whose extents along z, y, x are multiples of these.
    fixed : bool
        Whether it holds for an input of the extent `stride` alone, as a program that was exported
        for one size does. A larger volume is padded to multiples of `stride` all the same, and
        run in tiles of exactly that extent.
    traced : tuple of int
        Extent (z, y, x) at which the network was traced.
    receptive_field : tuple of float
        Width along z, y, x, in input voxels, of the part of the input that one output voxel depends
        on; infinite where it is the whole volume (normalisation or pooling over space).
    gates : tuple of Gate
        In the order in which the network runs them; empty if there are none.
    dtype : torch.dtype
        Of the input.
    notes : tuple of str
        What a person should know of choices made in tracing, one sentence each.
    """

    nodes: Mapping[str, Node]
    constants: Mapping[str, torch.Tensor]
    input: str
    output: str
    in_channels: int
    out_channels: int
    stride: Shape3
    traced: Shape3
    receptive_field: Vec3
    gates: tuple[Gate, ...] = ()
    dtype: torch.dtype = torch.float32
    notes: tuple[str, ...] = ()
    fixed: bool = False

    def users(self) -> dict[str, list[Node]]:
        """For the input, every constant and every node: the nodes that read it, in order."""
        found: dict[str, list[Node]] = {name: [] for name in (self.input, *self.constants)}
        for node in self.nodes.values():
            found[node.name] = []
            for name in node.inputs:
                found[name].append(node)
        return found

    def gate(self, name: str) -> Gate:
        """The gate of that name.

        Raises
        ------
        GraphError
            If there is none; the message names those there are.
        """
        for gate in self.gates:
            if gate.name == name:
                return gate
        known = ", ".join(gate.name for gate in self.gates) or "none"
        raise GraphError(f"The network has no gate '{name}'; its gates are: {known}.")

    def shape_at(self, name: str, extent: Sequence[int]) -> tuple[int, ...]:
        """Shape of a node's result, or of the input, for an input of spatial shape `extent`.

        Parameters
        ----------
        name : str
            A node, or the input.
        extent : sequence of int
            (z, y, x), multiples of `stride`.
        """
        if name == self.input:
            return (1, self.in_channels, *extent)
        return self.nodes[name].shape_at(extent)
