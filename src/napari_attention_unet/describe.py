"""What there is to know of a model, as one object: for the panel and the command line alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from napari_attention_unet.model import Model
from napari_attention_unet.models.card import ModelCard
from napari_attention_unet.models.card_options import card_options
from napari_attention_unet.models.opened import OptionValue
from napari_attention_unet.volume import Shape3, Vec3


@dataclass(frozen=True)
class GateFacts:
    """One attention gate.

    Attributes
    ----------
    name : str
        Its module in the network.
    kind : str
        As of `graph.Gate`: ``"sigmoid"``, ``"softmax"``, ``"squeeze-excitation"``, ``"cbam"`` or
        ``"candidate"``.
    scale, translate : tuple of float
        Sample ``j`` has its centre at voxel ``translate + scale * j`` of the network's input,
        along z, y, x.
    """

    name: str
    kind: str
    scale: Vec3
    translate: Vec3


@dataclass(frozen=True)
class Description:
    """A model in words and numbers; nothing of it refers to tensors.

    Attributes
    ----------
    card : ModelCard
        Name, architecture, channels, classes, voxel size, normalisation, assumptions and more.
    parameters : int
        Number of trained numbers.
    out_channels : int
        Channels of the output.
    stride : tuple of int
        Volumes are padded to multiples of it along z, y, x.
    fixed : bool
        Whether the network takes `stride` itself and no other size; volumes are run in tiles.
    receptive_field : tuple of float
        Width in voxels along z, y, x on which one output voxel depends; infinite where it is the
        whole volume.
    gates : tuple of GateFacts
        In the order in which the network runs them.
    options : tuple of OptionValue
        What files seldom say, of the network and of its card, and what it is set to.
    notes : tuple of str
        What a person should know of how the network was read, one sentence each.
    sha256 : str
        Of the checkpoint's content.
    code : str
        What runs of the checkpoint with the user's yes, e.g. ``"a TorchScript program"``; empty
        if nothing of it is code.
    stated : dict
        What was said when it was loaded, as of `Model.stated`.
    """

    card: ModelCard
    parameters: int
    out_channels: int
    stride: Shape3
    fixed: bool
    receptive_field: Vec3
    gates: tuple[GateFacts, ...]
    options: tuple[OptionValue, ...]
    notes: tuple[str, ...]
    sha256: str
    code: str
    stated: Mapping[str, Any]

    @property
    def stated_card(self) -> ModelCard:
        """The card to be kept: with the options that were said; those assumed stay open."""
        assumed = {option.name for option in self.options if not option.stated}
        arguments = {k: v for k, v in self.card.arguments.items() if k not in assumed}
        return replace(self.card, arguments=arguments)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the fields of the card, then the others; infinite is None."""
        facts = asdict(self)
        field = [width if math.isfinite(width) else None for width in self.receptive_field]
        return {**facts.pop("card"), **facts, "receptive_field": field}


def describe(model: Model) -> Description:
    """Describe a model."""
    graph = model.graph
    return Description(
        card=model.card,
        parameters=model.parameters,
        out_channels=graph.out_channels,
        stride=graph.stride,
        fixed=graph.fixed,
        receptive_field=graph.receptive_field,
        gates=tuple(GateFacts(g.name, g.kind, g.grid.scale, g.grid.translate) for g in graph.gates),
        options=(*model.options, *card_options(model.card, graph.out_channels)),
        notes=graph.notes,
        sha256=model.sha256,
        code=model.code,
        stated=dict(model.stated),
    )
