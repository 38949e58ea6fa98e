"""Take a network's tensors out of what a training script saved around them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from napari_attention_unet.errors import CheckpointError

from .inert import Inert, class_name, hyper_parameters, is_module, state_dict_of
from .nnunet import nnunet_facts

#: Names under which training scripts put the state_dict.
WRAPPERS = (
    *("state_dict", "model_state_dict", "network_weights", "model", "net", "network"),
    *("net_state_dict", "network_state_dict", "model_state", "weights"),
)
#: Names under which they put a running average of the weights, beside those or alone.
AVERAGES = (
    *("ema", "model_ema", "ema_model", "state_dict_ema", "ema_state_dict", "shadow"),
    *("model_state_dict_ema", "ema_model_state_dict", "ema_weights", "averaged_model"),
)
#: Within an average.
_INNER = ("module", "state_dict", "shadow", "shadow_params", "params", "model", "ema_model")
#: Prefixes of wrappers around a network, and a number that they count by.
_PREFIXES = ("module", "_orig_mod")
_COUNTERS = ("n_averaged", "initted", "step")
CHOICES = ("trained", "ema")


@dataclass(frozen=True)
class Contents:
    """What a checkpoint holds.

    Attributes
    ----------
    state : dict
        Its tensors by name.
    modules : dict
        Plain attributes of each module by its path, where a whole model was pickled.
    told : dict
        Hyper-parameters by name, where the file carries them.
    facts : dict
        Fields of `ModelCard` that the file states.
    weights : str
        Which of `CHOICES` was taken where the file holds both; empty if there was no choice.
    notes : tuple of str
        What was decided or could not be used, one sentence each.
    """

    state: dict[str, Tensor]
    modules: dict[str, dict[str, Any]] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    weights: str = ""
    notes: tuple[str, ...] = ()


#: The sentence of the default of `Contents.weights`.
TRAINED = (
    "The file holds the trained weights and a running average of them (EMA); the trained ones "
    "were taken, weights='ema' takes the average."
)
_AVERAGE_ALONE = (
    "The file holds a running average of the weights (EMA) and no others; it was taken."
)


def unwrapped(content: Any, path: Path, weights: str | None = None) -> Contents:
    """The state_dict inside what a training script saved.

    Parameters
    ----------
    content : object
        As read: mappings, tensors, plain values and `Inert` records.
    path : Path
        Of the file, for messages, and for the plans that nnU-Net keeps beside it.
    weights : str, optional
        One of `CHOICES`; the trained ones where it is not said.

    Raises
    ------
    CheckpointError
        If there is no state_dict, or not the weights that were asked for.
    """
    if weights not in (None, *CHOICES):
        raise CheckpointError(f"weights={weights!r} is not possible; it is 'trained' or 'ema'.")
    told: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    notes: tuple[str, ...] = ()
    trained: dict[str, Tensor] | None = None
    average: Any = None
    modules: dict[str, dict[str, Any]] = {}
    outermost = content
    for _ in range(4):
        if is_module(content):
            trained, modules = state_dict_of(content), hyper_parameters(content)
            break
        if not isinstance(content, Mapping):
            break
        told |= _plain(content.get("hyper_parameters"))
        if "network_weights" in content:
            facts, notes = nnunet_facts(_plain(content.get("init_args")), path)
        average = average or next((content[a] for a in AVERAGES if _holds(content.get(a))), None)
        inner = next((content[w] for w in WRAPPERS if _is_wrapped(content.get(w))), None)
        if inner is None:
            trained = _tensors(content) or None
            break
        content = inner
    state, choice, said = _chosen(trained, average, weights, path.name)
    if not state:
        raise CheckpointError(f"'{path.name}' holds no state_dict but {_what(outermost, content)}.")
    return Contents(state, modules, told, facts, choice, (*notes, *said))


def _chosen(
    trained: dict[str, Tensor] | None, average: Any, weights: str | None, name: str
) -> tuple[dict[str, Tensor], str, tuple[str, ...]]:
    """The weights that are wanted, which they are, and what is to be said of it."""
    averaged = _averaged(average, trained or {})
    if trained and not averaged:
        trained, averaged = _by_prefix(trained)
    if averaged and trained and averaged.keys() != trained.keys():
        averaged = _filled(averaged, trained)
    if averaged and trained:
        choice = weights or "trained"
        return (trained, averaged)[choice == "ema"], choice, () if weights else (TRAINED,)
    if (trained and weights == "ema") or (averaged and weights == "trained"):
        held = "no running average" if trained else "nothing but a running average"
        raise CheckpointError(
            f"'{name}' holds {held} of the weights; leave weights={weights!r} out."
        )
    if averaged:
        return averaged, "", (_AVERAGE_ALONE,)
    state = dict(trained or {})
    counters = [k for k in _COUNTERS if k in state and not state[k].ndim]
    for key in counters:
        del state[key]
    return state, "", (_AVERAGE_ALONE,) if "n_averaged" in counters else ()


def _averaged(content: Any, trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by name out of what holds a running average."""
    for _ in range(3):
        if is_module(content):
            return state_dict_of(content)
        if isinstance(content, list | tuple):  # in the order of the network's parameters
            return _paired(content, trained)
        if isinstance(content, Inert):
            content = {**content.items, **content.attributes()}
        if not isinstance(content, Mapping):
            return {}
        inner = next((content[k] for k in _INNER if _holds(content.get(k))), None)
        if inner is None:
            break
        content = inner
    return _without_counters(_tensors(content)) if isinstance(content, Mapping) else {}


_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def _paired(
    values: list[Any] | tuple[Any, ...], trained: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    names = [name for name in trained if not name.endswith(_BUFFERS)]
    fits = len(names) == len(values) and all(
        isinstance(value, Tensor) and value.shape == trained[name].shape
        for name, value in zip(names, values, strict=True)
    )
    return dict(zip(names, values, strict=True)) if fits else {}


def _by_prefix(state: dict[str, Tensor]) -> tuple[dict[str, Tensor] | None, dict[str, Tensor]]:
    """A state_dict of a module that holds a network and its average side by side."""
    averaged = {k: v for k, v in state.items() if k.partition(".")[0] in AVERAGES and "." in k}
    if not averaged:
        return state, {}
    rest = {k: v for k, v in state.items() if k not in averaged and k not in _COUNTERS}
    return rest or None, {k.partition(".")[2]: v for k, v in averaged.items()}


def _filled(averaged: dict[str, Tensor], trained: dict[str, Tensor]) -> dict[str, Tensor]:
    """An average of parameters alone, with the network's own buffers."""
    averaged, plain = _stripped(averaged), _stripped(trained)
    heads = {key.partition(".")[0] for key in plain}
    if len(heads) == 1 and not set(averaged) & set(plain):
        plain = {key.partition(".")[2]: value for key, value in plain.items()}
    return {**{k: v for k, v in plain.items() if k.endswith(_BUFFERS)}, **averaged}


def _stripped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    state = _without_counters(state)
    while state and {key.partition(".")[0] for key in state} <= set(_PREFIXES):
        state = {key.partition(".")[2]: value for key, value in state.items()}
    return state


def _without_counters(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in state.items() if not (k in _COUNTERS and not v.ndim)}


def _tensors(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {str(k): v for k, v in content.items() if isinstance(v, torch.Tensor)}


def _is_wrapped(content: Any) -> bool:
    return isinstance(content, Mapping) or is_module(content)


def _holds(content: Any) -> bool:
    return isinstance(content, Mapping | Inert | list | tuple) and bool(
        not isinstance(content, Mapping | list | tuple) or len(content)
    )


def _plain(content: Any) -> dict[str, Any]:
    """A mapping of what was one, or a namespace, before it was read inertly."""
    if isinstance(content, Inert):
        content = {**content.items, **content.attributes()}
    return {str(k): v for k, v in content.items()} if isinstance(content, Mapping) else {}


def _what(outermost: Any, content: Any) -> str:
    if isinstance(content, Inert):
        return f"an object of {class_name(content)}"
    if isinstance(outermost, Mapping):
        return f"the entries {', '.join(map(str, list(outermost)[:5])) or '(none)'}"
    return f"a {type(content).__name__}"
