"""From the names and shapes of a checkpoint's tensors to the network that they belong to."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from napari_attention_unet.errors import CheckpointError

from .attention_unet_3d import AttentionUNet3D

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Architecture:
    """A network that can be rebuilt from a state_dict.

    Attributes
    ----------
    name : str
        Name of the class.
    build : callable
        Makes the network from keyword arguments.
    arguments : callable
        What the shapes of a state_dict say of the arguments, or None where the names are not
        those of this network.
    unsaid : dict
        Argument -> sentence on what is assumed of it because no shape tells.
    """

    name: str
    build: Callable[..., nn.Module]
    arguments: Callable[[State], dict[str, Any] | None]
    unsaid: Callable[[dict[str, Any]], tuple[str, ...]] = lambda _: ()


def _attention_unet_3d(state: State) -> dict[str, Any] | None:
    convs = {
        int(match[1]): tensor
        for key, tensor in state.items()
        if (match := re.fullmatch(r"encoder(\d+)\.encoder_block\.0\.weight", key))
    }
    center = state.get("center.center_block.0.weight")
    final = state.get("final.final_block.6.weight")
    if not convs or center is None or final is None or sorted(convs) != [*range(1, len(convs) + 1)]:
        return None
    return {
        "in_channels": convs[1].shape[1],
        "out_channels": final.shape[0],
        "widths": [convs[level].shape[0] for level in sorted(convs)],
        "center": center.shape[0],
        "gate": "grid" if any(".theta." in key for key in state) else "skip",
    }


def _align_corners(arguments: dict[str, Any]) -> tuple[str, ...]:
    if arguments.get("gate") != "grid" or "align_corners" in arguments:
        return ()
    return ("Gates interpolate with align_corners=False; the file does not say.",)


ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture("AttentionUNet3D", AttentionUNet3D, _attention_unet_3d, _align_corners),
)


@dataclass(frozen=True)
class Recognised:
    """A state_dict and the network that it belongs to.

    Attributes
    ----------
    architecture : Architecture
        The network.
    arguments : dict
        What the shapes say of its arguments.
    state : Mapping
        The state_dict, without prefixes of wrappers.
    """

    architecture: Architecture
    arguments: dict[str, Any]
    state: State


def recognise(state: State) -> Recognised | None:
    """Find the network of a state_dict.

    Prefixes that wrappers put before every name (``module.``, ``_orig_mod.``, ...) are taken off
    one by one, but only while nothing is recognised: some networks have such names of their own.
    """
    while True:
        for architecture in ARCHITECTURES:
            arguments = architecture.arguments(state)
            if arguments is not None:
                return Recognised(architecture, arguments, state)
        heads = {key.partition(".")[0] for key in state if "." in key}
        if len(heads) != 1 or any("." not in key for key in state):
            return None
        (head,) = heads
        state = {key[len(head) + 1 :]: tensor for key, tensor in state.items()}


def rebuild(found: Recognised, options: Mapping[str, Any]) -> nn.Module:
    """Build the network and load its weights strictly, in float32 and evaluation mode.

    Parameters
    ----------
    found : Recognised
        What to build.
    options : Mapping
        Arguments that no shape tells, such as ``align_corners``.

    Raises
    ------
    CheckpointError
        If names or shapes differ; the first ones are named.
    """
    name = found.architecture.name
    try:
        # No memory is taken before the shapes are known to agree.
        with torch.device("meta"):
            module = found.architecture.build(**{**options, **found.arguments})
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{name} cannot be built as the checkpoint says: {error}.") from error
    expected = module.state_dict()
    state = {
        key: tensor.to(torch.float32) if tensor.is_floating_point() else tensor
        for key, tensor in found.state.items()
    }
    for key, tensor in expected.items():
        if key.endswith(".num_batches_tracked"):  # counts batches of training; old files lack it
            state.setdefault(key, torch.zeros(tensor.shape, dtype=tensor.dtype))
    missing = [key for key in expected if key not in state]
    spare = [key for key in state if key not in expected]
    other = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in state and state[key].shape != tensor.shape
    ]
    if missing or spare or other:
        parts = [
            f"{what}: {', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''}"
            for what, keys in (("missing", missing), ("not known", spare), ("other shape", other))
            if keys
        ]
        raise CheckpointError(
            f"The checkpoint looks like {name}, but its tensors differ; {'; '.join(parts)}."
        )
    module.load_state_dict(state, strict=True, assign=True)
    return module.eval().requires_grad_(False)
