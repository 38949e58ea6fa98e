"""Record what a TorchScript program runs, by listening where torch dispatches its operators.

A loaded program has no Python that could be traced again. Run on tensors without data, under a
dispatch mode, it tells every operator as it comes; a `torch.fx.Graph` of them is what
`torch.export` would have given, less the names of modules. Those are taken from the parameters.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map


def script_graph(
    module: torch.jit.ScriptModule, x: FakeTensor
) -> tuple[fx.Graph, fx.Node, dict[str, Tensor]]:
    """The operators that a TorchScript program runs for `x`; nothing is computed.

    Parameters
    ----------
    module : torch.jit.ScriptModule
        In evaluation mode.
    x : tensor, shape (1, channel, z, y, x)
        Its mode is used.

    Returns
    -------
    graph : fx.Graph
        ``meta["val"]`` of each node is its fake tensor, and what it reads of `constants` are
        placeholders of their names. The output is a flat list.
    input : fx.Node
        The placeholder of `x`.
    constants : dict of str to Tensor
        Parameters, buffers and other tensors of the program.
    """
    recorder = _Recorder(dict([*module.named_parameters(), *module.named_buffers()]))
    given = recorder.placeholder("x", x)
    plainly = torch.jit.optimized_execution(False)  # type: ignore[attr-defined]
    with x.fake_mode, recorder, plainly:
        try:
            returned = module(x)
        except RuntimeError as error:
            raise recorder.failure or error from None
    tensors = [leaf for leaf in tree_leaves(returned) if isinstance(leaf, Tensor)]
    recorder.graph.output([recorder.node_of(tensor) for tensor in tensors])
    return recorder.graph, given, recorder.constants


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, named: dict[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = fx.Graph()
        self.constants: dict[str, Tensor] = {}
        self.failure: Exception | None = None
        self._names = {id(tensor): name for name, tensor in named.items()}
        self._kept: list[Any] = list(named.values())  # as long as ids stand for them
        self._nodes: dict[int, fx.Node] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if self._is_of_numbers(func, args):
            # Traced programs calculate with sizes as tensors; those are to be had, data is not.
            with unset_fake_temporarily():
                return func(*args, **(kwargs or {}))
        try:
            result = func(*args, **(kwargs or {}))
        except Exception as error:  # of which the interpreter of TorchScript keeps the text alone
            self.failure = error
            raise
        parts = result if isinstance(result, list | tuple) else [result]
        if any(isinstance(part, Tensor) for part in parts):
            self._record(func, tree_map(self._leaf, (args, kwargs or {})), result)
        return result

    def _is_of_numbers(self, func: Any, args: tuple[Any, ...]) -> bool:
        tensors = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
        if not tensors:
            return bool(func is torch.ops.aten.scalar_tensor.default)
        return all(self._is_number(tensor) for tensor in tensors)

    def _is_number(self, tensor: Tensor) -> bool:
        loose = id(tensor) not in self._nodes and id(tensor) not in self._names
        on_cpu = tensor.device.type == "cpu" and not isinstance(tensor, FakeTensor)
        return loose and tensor.ndim == 0 and on_cpu

    def placeholder(self, name: str, tensor: Tensor) -> fx.Node:
        """What comes from without."""
        with self.graph.inserting_before(next(iter(self.graph.nodes), None)):
            node = self.graph.placeholder(name)
        self._register(node, tensor)
        return node

    def node_of(self, tensor: Tensor) -> fx.Node:
        """The node that gave a tensor; a new placeholder for one that none gave."""
        if id(tensor) not in self._nodes:
            name = self._names.get(id(tensor), f"constant_{len(self.constants)}")
            node = self.placeholder(name.replace(".", "_"), tensor)
            node.meta["constant"] = name
            self.constants[name] = tensor
        return self._nodes[id(tensor)]

    def _leaf(self, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        if not self._is_number(leaf):
            return self.node_of(leaf)
        with unset_fake_temporarily():
            return leaf.item()

    def _record(self, func: Any, call: tuple[Any, Any], result: Any) -> None:
        args, kwargs = call
        node = self.graph.call_function(func, args, kwargs)
        node.meta["nn_module_stack"] = {"": (self._path(node), None)}
        if isinstance(result, Tensor):
            self._register(node, result)
            return
        node.meta["val"] = result
        self._kept.append(result)
        for index, part in enumerate(result):
            if isinstance(part, Tensor):
                one = self.graph.call_function(operator.getitem, (node, index))
                one.meta["nn_module_stack"] = node.meta["nn_module_stack"]
                self._register(one, part)

    def _register(self, node: fx.Node, tensor: Tensor) -> None:
        node.meta["val"] = tensor
        self._kept.append(tensor)
        self._nodes[id(tensor)] = node

    def _path(self, node: fx.Node) -> str:
        """The module of a parameter that is read; else what the modules before have in common."""
        for source in node.all_input_nodes:
            if name := source.meta.get("constant"):
                return str(name).rpartition(".")[0]
        sources = _inner(node)
        paths = [_path_of(source).split(".") for source in sources]
        for source in sources:
            if len(sources) > 1 and tuple(source.meta["val"].shape[:2]) == (1, 1):
                return _path_of(_join(source))  # a product with a map belongs to where that is made
        return ".".join(_common(paths)) if paths else ""


def _inner(node: fx.Node) -> list[fx.Node]:
    return [source for source in node.all_input_nodes if "constant" not in source.meta]


def _join(node: fx.Node) -> fx.Node:
    """The last operator before that brought several tensors together."""
    while len(inner := _inner(node)) == 1:
        node = inner[0]
    return node


def _path_of(node: fx.Node) -> str:
    stack = node.meta.get("nn_module_stack")
    return str(stack[""][0]) if stack else ""


def _common(paths: list[list[str]]) -> list[str]:
    length = 0
    while all(len(path) > length and path[length] == paths[0][length] for path in paths):
        length += 1
    return paths[0][:length]
