"""Find the attention gates of a graph by what they do, not by what they are called.

A gate is a sigmoid, or a softmax over space, with one channel, possibly resampled, expanded,
reshaped or cast, that is multiplied into a tensor with several channels on the same grid. Any other
one-channel map that is multiplied so, such as a tanh or ``1 + sigmoid``, is a candidate. A gate
with a map of its own for every channel is not looked for: it says less of places than of features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .geometry import as_grid, lines
from .graph import Extent, Gate, Graph, Node, Ref

_RESAMPLING = frozenset(("upsample_trilinear3d", "upsample_nearest3d", "_upsample_nearest_exact3d"))
_PASSING = _RESAMPLING | {"expand", "reshape", "_to_copy"}


@dataclass(frozen=True)
class _Found:
    """A product with a map: the map's source, the node of its coefficients, what it multiplies."""

    source: Node
    coefficients: Node
    features: str
    product: Node
    kind: str


def find_gates(graph: Graph) -> tuple[Gate, ...]:
    """All attention gates, in the order in which the network runs them.

    Parameters
    ----------
    graph : Graph
        Its `gates` are not looked at.
    """
    found: dict[str, _Found] = {}
    for product in graph.nodes.values():
        for mask, features in _factors(product):
            gate = _gate(graph, product, mask, features)
            if gate is not None:
                found.setdefault(gate.coefficients.name, gate)
    order = {name: index for index, name in enumerate(graph.nodes)}
    ordered = sorted(found.values(), key=lambda item: order[item.coefficients.name])
    if not ordered:
        return ()
    placed = lines(graph, graph.traced)
    return tuple(
        Gate(name, item.coefficients.name, item.kind, as_grid(placed[item.coefficients.name]))
        for name, item in zip(_names(ordered), ordered, strict=True)
    )


def _factors(node: Node) -> Iterator[tuple[str, str]]:
    """Pairs of factors of a product, both ways round."""
    factors = {"mul": node.args[:2], "addcmul": node.args[1:3]}.get(node.op, ())
    if len(factors) == 2 and all(isinstance(factor, Ref) for factor in factors):
        one, two = factors
        yield one.name, two.name
        yield two.name, one.name


def _gate(graph: Graph, product: Node, mask: str, features: str) -> _Found | None:
    """The gate that `mask` holds, if it multiplies `features` as one."""
    if mask not in graph.nodes or features not in graph.nodes:
        return None
    gated, shape = graph.nodes[features].shape, graph.nodes[mask].shape
    if len(gated) != 5 or len(shape) != 5 or gated[1] == 1 or gated[2:] != shape[2:]:
        return None
    node, coefficients = graph.nodes[mask], None
    while True:
        if _is_map(node):
            coefficients = node
        before = node.args[0].name if node.op in _PASSING else ""
        if before not in graph.nodes:
            break
        node = graph.nodes[before]
    if coefficients is None or before == graph.input:
        return None
    kind = _kind(node)
    causes = set(_causes(graph, node.name))
    if graph.input not in causes or (kind == "candidate" and not _learned(graph, causes)):
        return None
    if kind == "sigmoid" and _is_of_features_alone(graph, node, features):
        if _pools_channels(graph, node, features):
            kind = "cbam"
        elif _is_chain(graph, node, features):
            kind = "squeeze-excitation"
    return _Found(node, coefficients, features, product, kind)


def _is_map(node: Node) -> bool:
    """Whether a node holds one number a place of a grid that grows with the input."""
    return (
        len(node.shape) == 5
        and node.shape[:2] == (1, 1)
        and any(isinstance(size, Extent) for size in node.shape[2:])
    )


def _kind(node: Node) -> str:
    if node.op == "sigmoid":
        return "sigmoid"
    if node.op == "softmax" and isinstance(node.shape[node.args[1]], Extent):
        return "softmax"
    return "candidate"


def _learned(graph: Graph, causes: set[str]) -> bool:
    """Whether parameters have a part in it; a resampled image is no gate."""
    return any(
        name in graph.constants
        for cause in causes & graph.nodes.keys()
        for name in graph.nodes[cause].inputs
    )


def _causes(graph: Graph, name: str, without: str = "") -> Iterator[str]:
    """Everything that leads to a value, constants excepted, not going beyond `without`."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        name = waiting.pop()
        if name in seen or name in graph.constants:
            continue
        seen.add(name)
        yield name
        if name in graph.nodes and name != without:
            waiting += graph.nodes[name].inputs


def _is_of_features_alone(graph: Graph, node: Node, features: str) -> bool:
    """Whether a map follows from the features that it multiplies without leaving their grid.

    The gating signal of an attention gate comes from a coarser scale; a spatial squeeze-excitation
    has none. In a U-Net both follow from the skip alone, so the grid on the way tells them apart.
    """
    grid = graph.nodes[features].shape[2:]
    for name in _causes(graph, node.name, without=features):
        # pooled over channels there may be no axis of them left, for a while
        if name == graph.input or graph.nodes[name].shape[-3:] != grid:
            return False
    return True


def _is_chain(graph: Graph, node: Node, features: str) -> bool:
    """Whether a map follows from features one operator after another.

    Where several branches meet there is a gating signal, though a level of stride 1 may have made
    it on the features' own grid.
    """
    between = set(_causes(graph, node.name, without=features)) - {features, graph.input}
    return all(
        sum(source not in graph.constants for source in graph.nodes[name].inputs) == 1
        for name in between
    )


def _pools_channels(graph: Graph, node: Node, features: str) -> bool:
    """Whether a map follows from maximum and mean over the channels of what it multiplies.

    That is the spatial attention of CBAM (Woo et al. 2018): a convolution and a sigmoid after them.
    """
    over_channels = set()
    for name in set(_causes(graph, node.name, without=features)) & graph.nodes.keys():
        cause = graph.nodes[name]
        if cause.op in ("amax", "mean") and cause.args[0] == Ref(features):
            dims = cause.args[1] if isinstance(cause.args[1], list) else [cause.args[1]]
            over_channels |= {cause.op} if dims == [1] else set()
    return over_channels == {"amax", "mean"}


def _ambiguous(name: str, path: list[str], names: list[str], paths: list[list[str]]) -> bool:
    """Whether another module has the same name so far."""
    return any(other == name and beyond != path for other, beyond in zip(names, paths, strict=True))


def _names(found: list[_Found]) -> list[str]:
    """Unique names: the module that holds both map and product, longer where that is shared."""
    paths = [item.source.path.split(".") if item.source.path else [] for item in found]
    lengths = []
    for item, path in zip(found, paths, strict=True):
        product = item.product.path.split(".") if item.product.path else []
        shared = 0
        while shared < min(len(path), len(product)) and path[shared] == product[shared]:
            shared += 1
        lengths.append(max(shared, 1))
    while True:
        names = [".".join(path[:n]) for path, n in zip(paths, lengths, strict=True)]
        longer = [
            n + 1 if n < len(path) and _ambiguous(name, path, names, paths) else n
            for name, path, n in zip(names, paths, lengths, strict=True)
        ]
        if longer == lengths:
            break
        lengths = longer
    unique: list[str] = []
    for name, item in zip(names, found, strict=True):
        stem = made = name or item.source.name
        count = 1
        while made in unique:  # one module run several times
            count += 1
            made = f"{stem}_{count}"
        unique.append(made)
    return unique
