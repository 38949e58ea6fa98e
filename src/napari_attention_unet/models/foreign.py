"""Networks whose Python class the caller names."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_attention_unet.errors import CheckpointError

from .contents import first_line
from .trust import require

if TYPE_CHECKING:
    from torch import Tensor, nn


def build_foreign(
    path: Path, digest: str, architecture: str, arguments: Mapping[str, Any], trust: bool
) -> nn.Module:
    """Import a class and make a network of it.

    Parameters
    ----------
    path, digest
        The checkpoint and the hash of its content: who trusts the class trusts it for these.
    architecture : str
        ``"package.module:Class"``; a function that returns a network will do as well.
    arguments : mapping
        Keyword arguments.
    trust : bool
        Whether the caller says that it may run.

    Raises
    ------
    TrustRequired
        If nobody said that it may run.
    CheckpointError
        If there is no such class, or it cannot be made.
    """
    module_name, _, name = architecture.partition(":")
    if not module_name or not name:
        raise CheckpointError(
            f"architecture={architecture!r} does not name a class; 'package.module:Class' does."
        )
    asked = json.dumps([digest, architecture, dict(arguments)], sort_keys=True, default=repr)
    require(
        path,
        hashlib.sha256(asked.encode()).hexdigest(),
        f"to be opened with the Python class {architecture}",
        f"To make the network, the module {module_name} is imported and runs as any program does.",
        trust,
    )
    try:
        found: Any = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise CheckpointError(
            f"There is no '{name}' in the Python module '{module_name}' ({first_line(error)}). "
            "Install its package in this environment, or put its folder on PYTHONPATH."
        ) from error
    return made(found, architecture, arguments)


def made(factory: Any, name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Call what makes a network."""
    from torch import nn

    try:
        network = factory(**arguments)
    except Exception as error:  # of code that is not ours
        given = ", ".join(f"{k}={v!r}" for k, v in arguments.items()) or "no arguments"
        raise CheckpointError(
            f"{name} cannot be made with {given}: {type(error).__name__}: {first_line(error)}. "
            "Give the arguments that it was trained with."
        ) from error
    if not isinstance(network, nn.Module):
        raise CheckpointError(
            f"{name} gives a {type(network).__name__}; a class derived from torch.nn.Module, or "
            "a function that returns one, would work."
        )
    return network


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], name: str) -> None:
    """Load weights into a network; every tensor has a place and every place a tensor.

    Prefixes of wrappers are taken off while the names do not fit; what lies beside them then is
    left out.

    Raises
    ------
    CheckpointError
        If names or shapes differ; the message names the first.
    """
    from .families.family import COUNTER, listed

    expected = network.state_dict()
    needed = {key for key in expected if not key.endswith(COUNTER)}
    inner, best = dict(state), dict(state)
    while not needed <= set(inner) and any("." in key for key in inner):
        heads = [key.partition(".")[0] for key in inner if "." in key]
        head = max(dict.fromkeys(heads), key=heads.count)
        inner = {k[len(head) + 1 :]: t for k, t in inner.items() if k.startswith(f"{head}.")}
        best = max(best, inner, key=lambda s: len(needed & set(s)))
    inner = best
    for key in expected:
        if key.endswith(COUNTER):
            inner.setdefault(key, expected[key])
    differing = {
        "missing": [key for key in expected if key not in inner],
        "not known": [key for key in inner if key not in expected],
        "other shape": [
            f"{key} {tuple(inner[key].shape)} instead of {tuple(tensor.shape)}"
            for key, tensor in expected.items()
            if key in inner and inner[key].shape != tensor.shape
        ],
    }
    if any(differing.values()):
        raise CheckpointError(
            f"The tensors are not those of {name} with these arguments; {listed(differing)}. "
            "The class and the arguments that it was trained with would work."
        )
    network.load_state_dict(inner, strict=True)
    network.float().eval().requires_grad_(False)
