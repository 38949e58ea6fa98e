"""Weights and hyper-parameters of a model that was pickled whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from .machine import Inert, Named, UnsafePickleError

#: Far more than any network has; a module that contains another twice, many levels deep, would
#: have exponentially many names.
MAX_MODULES = 100_000
_PLAIN = (str, int, float, bool, type(None))


def is_module(content: Any) -> bool:
    """Whether something was a torch module before it was pickled."""
    return isinstance(content, Inert) and isinstance(content.attributes().get("_modules"), dict)


def class_name(content: Inert) -> str:
    """Name of the class that `content` was of, with its module."""
    made_by, arguments = content.made_by, content.arguments
    if (
        isinstance(made_by, Named)
        and made_by.name in ("_reconstructor", "__newobj__")
        and arguments
    ):
        made_by = arguments[0]
    return str(made_by) if isinstance(made_by, Named) else "an unknown class"


def state_dict_of(module: Inert) -> dict[str, Tensor]:
    """Parameters and buffers by name, as the module's own ``state_dict()`` would have given.

    Raises
    ------
    UnsafePickleError
        If the modules are nested without end.
    """
    state: dict[str, Tensor] = {}
    for path, part in _walk(module):
        attributes = part.attributes()
        hidden = attributes.get("_non_persistent_buffers_set")
        for group in ("_parameters", "_buffers"):
            tensors = attributes.get(group)
            for name, tensor in tensors.items() if isinstance(tensors, Mapping) else ():
                kept = not (isinstance(hidden, list) and name in hidden)
                if isinstance(tensor, Tensor) and isinstance(name, str) and kept:
                    state[f"{path}{name}"] = tensor
    return state


def hyper_parameters(module: Inert) -> dict[str, dict[str, Any]]:
    """Plain attributes of each module by its path: numbers, texts, tuples of them.

    Names of methods that a module kept as attributes are given as text, since some networks
    choose by them what they compute.

    Raises
    ------
    UnsafePickleError
        If the modules are nested without end.
    """
    found: dict[str, dict[str, Any]] = {}
    for path, part in _walk(module):
        plain = {"class": class_name(part)}
        for name, value in part.attributes().items():
            if isinstance(name, str) and not name.startswith("_") and (known := _plain(value)):
                plain[name] = known[0]
        found[path.removesuffix(".")] = plain
    return found


def _plain(value: Any) -> tuple[Any] | None:
    if isinstance(value, _PLAIN):
        return (value,)
    if isinstance(value, tuple | list) and len(value) <= 64:
        parts = [_plain(v) if not isinstance(v, tuple | list) else _row(v) for v in value]
        return (tuple(p[0] for p in parts if p is not None),) if all(parts) else None
    if isinstance(value, Inert) and isinstance(value.made_by, Named):
        method = value.arguments[1:2]
        if value.made_by.name == "getattr" and method and isinstance(method[0], str):
            return (method[0],)
    return None


def _row(values: tuple[Any, ...] | list[Any]) -> tuple[Any] | None:
    """A tuple within a tuple, as strides of levels are; no deeper."""
    return (tuple(values),) if all(isinstance(v, _PLAIN) for v in values[:64]) else None


def _walk(module: Inert) -> Iterator[tuple[str, Inert]]:
    waiting, seen = [("", module)], 0
    while waiting:
        path, part = waiting.pop()
        seen += 1
        if seen > MAX_MODULES or path.count(".") > 200:
            raise UnsafePickleError("its modules are nested without end")
        yield path, part
        children = part.attributes().get("_modules")
        if isinstance(children, Mapping):
            inner = [(f"{path}{n}.", c) for n, c in children.items() if isinstance(c, Inert)]
            waiting.extend(reversed(inner))
