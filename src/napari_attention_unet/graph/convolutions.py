"""Convolutions of a graph as operations, with all that can be folded into them.

Batch normalisation (in float64), the activation after it, the concatenation before it, and the sum
of two convolutions all become part of one operation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from napari_attention_unet.graph.around import Around, memory_format, shape3
from napari_attention_unet.graph.devices import computed_in, wants_bias
from napari_attention_unet.graph.graph import Node, Ref
from napari_attention_unet.graph.operations import (
    Convolution,
    Geometry,
    Operation,
    TransposedConvolution,
    choose,
)


@dataclass
class _Folded:
    """A convolution with what follows it: the last node of it, what it reads, and its numbers."""

    node: Node
    source: Ref
    weight: Tensor
    bias: Tensor | None
    geometry: Geometry


def convolution(
    around: Around, node: Node, device: torch.device, dtype: torch.dtype, kept: torch.dtype
) -> Operation | None:
    """The operation of a (transposed) convolution, or None where it has an unusual form.

    Parameters
    ----------
    around : Around
        Notes what is folded.
    node : Node
        The convolution.
    device : torch.device
        Where it runs.
    dtype : torch.dtype
        In which it shall compute.
    kept : torch.dtype
        Of its output.
    """
    first = _folded(around, node)
    if first is None:
        return None
    terms, last = [first], first.node
    other = _other_term(around, first)
    if other is not None:
        terms.append(other)
        (last,) = around.users[first.node.name]
        around.folded.update({last.name, other.node.name} | _between(around, other))
    around.folded.add(first.node.name)
    last, activation = around.fold_activation(last)
    biases = [term.bias for term in terms if term.bias is not None]
    bias = torch.stack([b.double() for b in biases]).sum(0) if biases else None
    geometry = first.geometry
    dtype = computed_in(dtype, device, transposed=geometry.transposed)
    if bias is None and wants_bias(device):
        width = first.weight.shape
        bias = torch.zeros(geometry.groups * width[1] if geometry.transposed else width[0])
    inputs, weights = [], []
    for term in terms:
        for name, weight in _parts(around, term):
            inputs.append(name)
            placed = weight.to(device, dtype)
            weights.append(placed.contiguous(memory_format=memory_format(device)))
    bias = None if bias is None else bias.to(device, dtype)
    kernel, laid_out = choose(weights, bias, geometry, activation)
    make = TransposedConvolution if geometry.transposed else Convolution
    names = tuple(inputs)
    return make(last.name, names, dtype, kept, laid_out, bias, geometry, activation, kernel)


def skipped(around: Around, node: Node) -> bool:
    """Whether a node is a concatenation of channels that all who read it take apart."""
    users = around.users[node.name]
    if node.op != "cat" or node.name in around.kept or not around.spatial(node):
        return False
    return (
        node.args[1] == 1
        and not any(ref.name in around.graph.constants for ref in node.args[0])
        and bool(users)
        and all(_takes_apart(around, user) for user in users)
    )


def _takes_apart(around: Around, user: Node) -> bool:
    if user.op == "cat":
        return skipped(around, user)
    return user.op == "conv3d" and user.args[6] == 1 and _folded(around, user) is not None


def _parts(around: Around, term: _Folded) -> list[tuple[str, Tensor]]:
    """What a convolution reads, with the weights of each: concatenations are taken apart."""
    if term.geometry.transposed:
        return [(term.source.name, term.weight)]
    found, waiting, first = [], [term.source.name], 0
    while waiting:
        name = waiting.pop(0)
        node = around.graph.nodes.get(name)
        if node is not None and skipped(around, node):
            waiting[:0] = [ref.name for ref in node.args[0]]
            continue
        channels = around.shape(name)[1] if term.geometry.groups == 1 else term.weight.shape[1]
        assert isinstance(channels, int)
        found.append((name, term.weight.narrow(1, first, channels)))
        first += channels
    return found


def _geometry(around: Around, node: Node) -> Geometry:
    if node.op == "conv_transpose3d":
        _, w, _, stride, padding, extra, groups, dilation = node.args
    else:
        _, w, _, stride, padding, dilation, groups = node.args
        extra = (0, 0, 0)
    weight = around.constant(w)
    assert weight is not None
    return Geometry(
        shape3(weight.shape[2:]), shape3(stride), shape3(padding), shape3(dilation), groups,
        node.op == "conv_transpose3d", shape3(extra),
    )  # fmt: skip


def _usual(g: Geometry) -> bool:
    """Whether each output plane, and of a plain convolution each sample, depends on some input."""
    extents = [g.extent(axis) for axis in range(3)]
    if g.transposed:
        return g.output_padding[0] <= g.padding[0] < extents[0] and extents[0] >= g.stride[0]
    return all(p < e for p, e in zip(g.padding, extents, strict=True))


def _folded(around: Around, node: Node) -> _Folded | None:
    """A convolution with the batch normalisation after it."""
    source, weight, bias = node.args[0], around.constant(node.args[1]), node.args[2]
    given = around.constant(bias)
    if not isinstance(source, Ref) or weight is None or (bias is not None and given is None):
        return None
    geometry = _geometry(around, node)
    if not _usual(geometry):
        return None
    made = _Folded(node, source, weight, given, geometry)
    following = around.only_user(node)
    if following is None or following.op != "batch_norm" or following.args[0] != Ref(node.name):
        return made
    line = around.scale_and_shift(following)
    if line is None:
        return made
    scale, shift = line
    weight = weight.double()
    if geometry.transposed:  # (in, out / groups, z, y, x)
        each = weight.view(geometry.groups, -1, *weight.shape[1:])
        weight = (each * scale.view(geometry.groups, 1, -1, 1, 1, 1)).flatten(0, 1)
    else:
        weight = weight * scale.view(-1, 1, 1, 1, 1)
    shift = shift if given is None else given.double() * scale + shift
    return _Folded(following, source, weight, shift, geometry)


def _other_term(around: Around, first: _Folded) -> _Folded | None:
    """The convolution that this one is added to, and nothing else is done with either."""
    total = around.only_user(first.node)
    if total is None or total.op != "add" or total.kwargs.get("alpha", 1) != 1:
        return None
    names = [ref.name for ref in total.args[:2] if isinstance(ref, Ref)]
    others = [name for name in names if name != first.node.name]
    node = around.graph.nodes.get(others[0]) if len(names) == 2 and len(others) == 1 else None
    if node is None or around.only_user(node) is not total or node.shape != first.node.shape:
        return None
    conv = around.graph.nodes.get(node.inputs[0]) if node.op == "batch_norm" else node
    if conv is None or conv.op != "conv3d" or not around.spatial(conv):
        return None
    other = _folded(around, conv)
    if other is None or other.node is not node or other.geometry != first.geometry:
        return None
    return None if first.geometry.transposed or first.geometry.groups != 1 else other


def _between(around: Around, term: _Folded) -> set[str]:
    """The convolution before the last node of a term."""
    return {term.node.inputs[0]} if term.node.op == "batch_norm" else set()
