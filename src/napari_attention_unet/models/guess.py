"""The card of a checkpoint that has none, with a sentence for each thing that was assumed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .card import ModelCard

#: Fields of the card -> what it means to assume their defaults.
_ASSUMED: dict[tuple[str, ...], str] = {
    ("normalization",): "Intensities are z-scored over the whole volume; the file does not say.",
    ("activation",): "Outputs are logits, {follows} follows; the file does not say.",
    ("voxel_size", "orientation"): (
        "Any voxel size and orientation is taken as it comes; the file does not say."
    ),
    ("classes",): "Classes have no names in the file.",
}


@dataclass(frozen=True)
class Known:
    """What is known of a checkpoint without a card.

    Attributes
    ----------
    name, architecture, arguments
        As of `ModelCard`.
    activation : str
        Of the output where nobody says; empty if the number of its channels is to tell.
    facts : dict
        Fields of the card that the files state.
    notes : tuple of str
        Further assumptions.
    """

    name: str
    architecture: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    activation: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def guessed_card(known: Known, stated: Collection[str]) -> tuple[ModelCard, frozenset[str]]:
    """The card, and its fields that nobody stated.

    Parameters
    ----------
    known : Known
        What there is to go by.
    stated : collection of str
        Fields that the caller states, for which nothing is assumed.
    """
    told = {*known.facts, *stated}
    follows = known.activation or "softmax, or sigmoid for a single channel,"
    sentences = [
        text.format(follows=follows) for names, text in _ASSUMED.items() if not told & set(names)
    ]
    fields: dict[str, Any] = {
        "activation": known.activation or "softmax",
        **known.facts,
        "name": known.facts.get("name", known.name),
        "architecture": known.architecture,
        "arguments": dict(known.arguments),
        "assumptions": (*sentences, *known.notes),
    }
    assumed = {name for names in _ASSUMED for name in names} | {"in_channels"}
    return ModelCard(**fields), frozenset(assumed - told)


def assumption_about(name: str, assumptions: Sequence[str]) -> str:
    """What was assumed of a field of the card; empty if that was said."""
    starts = tuple(text.partition("{")[0] for names, text in _ASSUMED.items() if name in names)
    return next((text for text in assumptions if text.startswith(starts)), "")


def without_stated(assumptions: Sequence[str], stated: Collection[str]) -> tuple[str, ...]:
    """The assumptions, without those about fields of the card that were stated since."""
    moot = {assumption_about(name, assumptions) for name in stated}
    return tuple(text for text in assumptions if text not in moot)
