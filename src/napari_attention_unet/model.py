"""The model: a network that is ready to run, and what is known of it."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from napari_attention_unet.errors import CheckpointError, InputError
from napari_attention_unet.graph.graph import Gate, Graph
from napari_attention_unet.graph.lower import Program, finished, lower_steps
from napari_attention_unet.graph.trace import trace
from napari_attention_unet.models import (
    ModelCard,
    bundled_models,
    default_classes,
    open_checkpoint,
)
from napari_attention_unet.models.bundled import resolve
from napari_attention_unet.models.card import ClassInfo
from napari_attention_unet.models.families import AXES, FAMILIES
from napari_attention_unet.models.guess import without_stated
from napari_attention_unet.models.opened import Opened, OptionValue, Request
from napari_attention_unet.volume import Shape3


@dataclass(frozen=True, eq=False)
class Model:
    """A network with its gates.

    Attributes
    ----------
    card : ModelCard
        What is known of it and what was assumed.
    graph : Graph
        Its tensor operations.
    sha256 : str
        Of the checkpoint's content; of the parameters for a network that came from no file.
    options : tuple of OptionValue
        What the checkpoint does not say of its network, and what it was set to.
    code : str
        What ran of the checkpoint with the user's yes; empty if nothing did.
    parameters : int
        Number of trained numbers.
    source : str
        Where it was loaded from: a bundled name or an absolute path; empty for a network.
    stated : dict
        What the caller of `load_model` said, by keyword; `trust` is not among it.
    """

    card: ModelCard
    graph: Graph = field(repr=False)
    sha256: str
    options: tuple[OptionValue, ...] = ()
    code: str = ""
    parameters: int = 0
    source: str = ""
    stated: Mapping[str, Any] = field(default_factory=dict, repr=False)
    _lowered: dict[tuple[str, torch.dtype], Program] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        """Name shown to people, e.g. ``"brain-t1"``."""
        return self.card.name

    @property
    def architecture(self) -> str:
        """e.g. ``"AttentionUNet3D"``."""
        return self.card.architecture

    @property
    def in_channels(self) -> int:
        """Channels of the volumes that it reads."""
        return self.graph.in_channels

    @property
    def out_channels(self) -> int:
        """Channels of its output."""
        return self.graph.out_channels

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """Classes of the mask, the background first."""
        return self.card.classes

    @property
    def gates(self) -> tuple[Gate, ...]:
        """Its attention gates, in the order in which they run; empty if it has none."""
        return self.graph.gates

    @property
    def stride(self) -> Shape3:
        """Multiples along z, y, x to which volumes are padded."""
        return self.graph.stride

    def program(self, device: torch.device, dtype: torch.dtype) -> Program:
        """The network lowered for a device and precision; the latest one is kept."""
        return finished(self.program_steps(device, dtype))

    def program_steps(
        self, device: torch.device, dtype: torch.dtype
    ) -> Generator[float, None, Program]:
        """`program` in steps that tell the share that is done."""
        key = (str(device), dtype)
        program = self._lowered.get(key)
        if program is None:
            program = yield from lower_steps(self.graph, device, dtype)
            self._lowered.clear()  # the weights of one are enough
            self._lowered[key] = program
        return program


def load_model(
    source: str | Path | nn.Module,
    *,
    trust: bool = False,
    architecture: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    weights: str | None = None,
    extent: Shape3 | None = None,
    **card: Any,
) -> Model:
    """Make a model of a checkpoint, a bundled name or a network.

    The network is traced here, once, which takes a second or so; no code of a file is run unless
    it is trusted.

    Parameters
    ----------
    source : str, Path or nn.Module
        A checkpoint's file or folder, the name of a bundled model such as ``"brain-t1"``, or a
        network whose forward takes (1, channel, z, y, x); it is used in evaluation mode.
    trust : bool
        Whether code may run that the checkpoint holds or asks for. What `models.trust.remember`
        has been told needs no such word.
    architecture : str, optional
        ``"package.module:Class"`` of the network of a file of tensors, for one that is not known.
        Importing it runs code, so it needs trust.
    arguments : mapping, optional
        Keyword arguments of that class.
    weights : str, optional
        ``"trained"`` or ``"ema"``, for a checkpoint that holds a running average beside the
        trained weights; the trained ones if it is not said.
    extent : tuple of int, optional
        One extent (z, y, x) that the network takes, for one that takes a single size and does
        not say which, such as traced TorchScript.
    **card
        Fields of `ModelCard` to state, or to use instead of what the checkpoint says, e.g.
        ``voxel_size=(2, 1, 1)`` or ``activation="sigmoid"``. For a checkpoint also what the names
        and shapes of its tensors do not say, e.g. ``strides=(2, 2, 1)`` or
        ``align_corners=True``; the card's assumptions name what there is to choose.

    Raises
    ------
    TrustRequired
        If the checkpoint holds or needs code, and nobody said that it may run.
    CheckpointError
        If it cannot be opened, its card does not fit its network, or an option is not one of its
        network.
    GraphError
        If the network cannot be turned into a graph.
    InputError
        If a field is not one of the card's.
    """
    known = {f.name for f in fields(ModelCard)} - {"architecture", "arguments"}
    options = {} if isinstance(source, nn.Module) else _options(card)
    how = {
        "architecture": architecture,
        "arguments": arguments,
        "weights": weights,
        "extent": extent,
    }
    stated = {name: value for name, value in how.items() if value is not None} | card
    card = {name: value for name, value in card.items() if name not in options}
    if unknown := set(card) - known:
        raise InputError(
            f"A model card has no {', '.join(sorted(unknown))}; its fields are "
            f"{', '.join(sorted(known))}."
        )
    if isinstance(source, nn.Module):
        name = type(source).__name__
        assumed = frozenset({"in_channels", "activation"})
        card_of_it = ModelCard(name, name)
        opened = Opened(source, card_of_it, _digest(source), extent=extent, assumed=assumed)
    else:
        request = Request(
            *(trust, architecture or "", dict(arguments or {}), weights, extent),
            stated=frozenset(card),
            options=options,
        )
        opened = open_checkpoint(source, request)
    kept = without_stated(opened.card.assumptions, set(card))
    made = replace(opened.card, **{"assumptions": kept, **card})
    model = _model(replace(opened, card=made), opened.assumed - set(card))
    return replace(model, source=_place(source), stated=stated)


def _place(source: str | Path | nn.Module) -> str:
    """Under what name or path a source is found again from any folder."""
    if isinstance(source, nn.Module):
        return ""
    path = resolve(source)
    bundled = path == bundled_models().get(str(source))
    return str(source) if bundled else str(path.absolute())


def _model(opened: Opened, assumed: frozenset[str]) -> Model:
    """Trace what was opened; what was assumed of it, the network may tell."""
    card, module = opened.card, opened.module
    graph = trace(module, None if "in_channels" in assumed else card.in_channels, opened.extent)
    if "activation" in assumed:
        card = _with_activation(card, graph)
    classes = card.classes or default_classes(max(2, graph.out_channels))
    card = replace(card, classes=tuple(classes), in_channels=graph.in_channels)
    _check_classes(card, graph)
    parameters = sum(p.numel() for p in module.parameters())
    return Model(card, graph, opened.sha256, opened.options, opened.code, parameters)


def _with_activation(card: ModelCard, graph: Graph) -> ModelCard:
    """What follows the output: nothing where the network ends in a sigmoid or softmax itself."""
    last = graph.nodes[graph.output]
    if last.op in ("sigmoid", "hardsigmoid") or (last.op == "softmax" and last.args[1] == 1):
        said = f"The network ends in a {last.op}, so its outputs are taken for probabilities."
        kept = tuple(s for s in card.assumptions if not s.startswith("Outputs are logits"))
        return replace(card, activation="none", assumptions=(*kept, said))
    return replace(card, activation="softmax" if graph.out_channels > 1 else "sigmoid")


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """Those that concern the network of a checkpoint, rather than its card."""
    names = {AXES.name} | {option.name for family in FAMILIES for option in family.options}
    return {name: value for name, value in given.items() if name in names}


def _check_classes(card: ModelCard, graph: Graph) -> None:
    named, given = len(card.classes), graph.out_channels
    # one channel a class, or none for the background
    if named not in (given, given + 1) or named < 2:
        raise CheckpointError(
            f"The card of '{card.name}' names {named} classes, the background included, while the "
            f"network gives {given} channel(s). Name {max(2, given)} classes."
        )
    if given == 1 and card.activation == "softmax":
        raise CheckpointError(
            f"The network of '{card.name}' gives one channel, whose softmax is always 1; "
            "state activation='sigmoid'."
        )


def _digest(module: nn.Module) -> str:
    found = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        values = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
        found.update(name.encode())
        found.update(memoryview(values.numpy()))
    return found.hexdigest()
