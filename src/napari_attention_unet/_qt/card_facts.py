"""What is known of a model, as lines for the panel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from napari_attention_unet.describe import Description, GateFacts
from napari_attention_unet.models import ModelCard, Normalization
from napari_attention_unet.models.opened import OptionValue

_NORMALIZATIONS = {
    "zscore": "z-score over the whole volume",
    "minmax": "minimum–maximum to 0–1",
    "none": "as they are",
}
_SHORT = 12  # digits of a hash, enough to tell files apart
_GATES = "Attention gates, each with the resolution of its own grid"
_MOST_GATES = 8
_BREAK = "\u200b"  # a place where a line may end


class Fact(NamedTuple):
    """One line.

    Attributes
    ----------
    label : str
        What it is about.
    text : str
        What there is to say.
    tip : str
        What it means.
    """

    label: str
    text: str
    tip: str


def facts_of(description: Description) -> list[Fact]:
    """The lines of a card, in the order in which one asks."""
    card = description.card
    lines = [
        Fact("network", _network(description), "Architecture, and its number of trained numbers"),
        Fact("input", _inputs(card), "Channels, and the voxel size it was trained at"),
        Fact("intensity", intensity(card.normalization), "How voxels are brought to its range"),
        Fact("output", _outputs(description), "How its output becomes probabilities"),
        Fact("extent", _size(description), "Extent of the volumes that it takes, along z, y, x"),
        Fact(
            "sees",
            _field(description),
            "Receptive field: the part of the volume on which one voxel of the mask depends",
        ),
        Fact("gates", _gates(description, _MOST_GATES), f"{_GATES}\n{_gates(description)}"),
        Fact("file", _file(description), f"SHA-256 of the checkpoint: {description.sha256}"),
        Fact("about", card.description, "What the card says of it"),
        Fact("trained on", card.training_data, "What the card says of its training data"),
        Fact("limits", card.limits, "What the card says of its limits"),
        Fact("licence", card.licence, "What the card says of its licence"),
        Fact("notes", "\n".join(description.notes), "How the network was read"),
    ]
    return [line for line in lines if line.text]


def assumed(assumptions: Sequence[str], options: Sequence[OptionValue]) -> list[str]:
    """What was assumed and is not one of the options: those show it by themselves."""
    shown = {option.help for option in options}
    return [text for text in assumptions if text not in shown]


def grid_of(gate: GateFacts) -> str:
    """Resolution of a gate's grid: ``"1/8"``, or ``"1/2 1/8 1/8"`` along z, y, x."""
    parts = [f"1/{s:.4g}" for s in gate.scale]
    return parts[0] if len(set(parts)) == 1 else " ".join(parts)


def intensity(how: Normalization) -> str:
    """How intensities are brought to the network's range, in words."""
    words = _NORMALIZATIONS.get(how.kind, "")
    if how.kind == "percentile":
        words = f"percentiles {how.low:g}–{how.high:g} to 0–1"
    elif how.kind == "window":
        words = f"{how.low:g} to {how.high:g} become 0–1"
    return f"{words}, non-zero voxels alone" if how.nonzero else words


def breakable(text: str) -> str:
    """Let long dotted names go on in the next line."""
    return text.replace(".", f".{_BREAK}").replace("_", f"_{_BREAK}")


def _network(description: Description) -> str:
    count = description.parameters
    units = ((1e9, " billion"), (1e6, " million"), (1e3, " thousand"), (1, ""))
    unit, word = next((each for each in units if count >= each[0]), units[-1])
    return f"{breakable(description.card.architecture)}\n{count / unit:.3g}{word} parameters"


def _inputs(card: ModelCard) -> str:
    names = f" ({', '.join(card.channel_names)})" if card.channel_names else ""
    channels = f"{card.in_channels} channel{'s' if card.in_channels != 1 else ''}{names}"
    size = "any voxel size"
    if card.voxel_size is not None:
        sizes = [f"{s:g}" for s in card.voxel_size]
        size = f"{sizes[0] if len(set(sizes)) == 1 else ' × '.join(sizes)} {card.units}"
    axes = f" · axes to {', '.join(card.orientation)}" if card.orientation else ""
    return f"{channels} · {size}{axes}"


def _outputs(description: Description) -> str:
    count = description.out_channels
    activation = {"none": "probabilities already"}.get(
        description.card.activation, f"{description.card.activation} of the logits"
    )
    return f"{count} channel{'s' if count != 1 else ''} · {activation}"


def _size(description: Description) -> str:
    sizes = description.stride
    text = str(sizes[0]) if len(set(sizes)) == 1 else " × ".join(map(str, sizes))
    if description.fixed:
        return f"{' × '.join(map(str, sizes))} voxels at once, larger volumes in tiles"
    return f"multiples of {text}, padded to them" if max(sizes) > 1 else "any"


def _field(description: Description) -> str:
    field = description.receptive_field
    if all(math.isinf(width) for width in field):
        return "the whole volume"
    return " × ".join("all" if math.isinf(w) else f"{w:g}" for w in field) + " voxels"


def _file(description: Description) -> str:
    code = f"{description.code}, allowed by you" if description.code else "runs no code"
    return f"{description.sha256[:_SHORT]} … · {code}"


def _gates(description: Description, most: int | None = None) -> str:
    lines = []
    for gate in description.gates[:most]:
        kind = "" if gate.kind == "sigmoid" else f" · {gate.kind}"
        lines.append(f"{breakable(gate.name)} · {grid_of(gate)}{kind}")
    left = len(description.gates) - len(lines)
    return "\n".join([*lines, *([f"and {left} more"] if left else [])]) or "none: mask only"
