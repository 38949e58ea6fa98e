"""`models`: list the bundled models, or print the card of one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import show, to_json

if TYPE_CHECKING:
    from rich.table import Table

    from napari_attention_unet.model import Model
    from napari_attention_unet.models.card import ModelCard


def models(
    checkpoint: Annotated[
        str | None, typer.Argument(help="A bundled name or a file; all bundled ones if omitted.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the bundled models, or print the card of one."""
    if checkpoint is None:
        from napari_attention_unet.models import bundled_models, read_card

        cards = [card for path in bundled_models().values() if (card := read_card(path))]
        if as_json:
            typer.echo(to_json([dataclasses.asdict(card) for card in cards]))
        else:
            show(_models_table(cards))
        return
    from napari_attention_unet.model import load_model

    model = load_model(checkpoint)
    if as_json:
        typer.echo(to_json(_facts(model)))
    else:
        show(_facts_table(_facts(model)))


def _facts(model: Model) -> dict[str, Any]:
    """The card of a model, and what its network says."""
    gates = [
        {
            "name": gate.name,
            "kind": gate.kind,
            "scale": list(gate.grid.scale),
            "translate": list(gate.grid.translate),
        }
        for gate in model.gates
    ]
    return {
        **dataclasses.asdict(model.card),
        "sha256": model.sha256,
        "stride": list(model.stride),
        "gates": gates,
    }


def _models_table(cards: Sequence[ModelCard]) -> Table:
    from rich.table import Table

    table = Table(box=None)
    for heading in ("Model", "Classes", "Voxel size"):
        table.add_column(heading, no_wrap=True)
    table.add_column("About")
    for card in cards:
        size = "any" if card.voxel_size is None else f"{_times(card.voxel_size)} {card.units}"
        table.add_row(
            card.name, "\n".join(c.name for c in card.classes[1:]), size, card.description
        )
    return table


def _facts_table(facts: dict[str, Any]) -> Table:
    from rich.table import Table

    table = Table(box=None, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in facts.items():
        if value not in (None, "", [], {}, ()):
            table.add_row(key.replace("_", " "), _readable(value))
    return table


def _readable(value: Any) -> str:
    """A fact as lines of text."""
    if isinstance(value, dict):
        if any(isinstance(item, dict) for item in value.values()):
            return "\n".join(f"{key}: {_readable(item)}" for key, item in value.items())
        return ", ".join(f"{key} {_readable(item)}" for key, item in value.items() if item != "")
    if isinstance(value, list | tuple):
        records = value and isinstance(value[0], dict)
        sentences = value and str(value[0]).endswith(".")
        return ("\n" if records or sentences else ", ").join(_readable(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _times(sizes: Sequence[float]) -> str:
    return " x ".join(f"{size:g}" for size in sizes)
