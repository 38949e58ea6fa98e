"""`models`: list the bundled models, or print what there is to know of one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_attention_unet.errors import CheckpointError

from .console import show, to_json
from .model_options import Architecture, Arguments, Options, Trust, load

if TYPE_CHECKING:
    from rich.table import Table

    from napari_attention_unet.describe import Description
    from napari_attention_unet.models.card import ModelCard


def models(
    checkpoint: Annotated[
        str | None,
        typer.Argument(
            help="A bundled name, or a checkpoint's file or folder; all bundled ones if omitted."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    save_card: Annotated[
        bool,
        typer.Option(
            "--save-card",
            help="Save what is known and said beside the checkpoint, to be picked up next time.",
        ),
    ] = False,
    trust: Trust = False,
    architecture: Architecture = None,
    arguments: Arguments = None,
    options: Options = None,
) -> None:
    """List the bundled models, or print what there is to know of one."""
    if checkpoint is None:
        _list_bundled(as_json)
        return
    from napari_attention_unet.describe import describe

    description = describe(load(checkpoint, trust, architecture, arguments, options))
    if save_card:
        _save(checkpoint, description)
    if as_json:
        typer.echo(to_json(description.to_dict()))
    else:
        show(_facts_table(description))


def _list_bundled(as_json: bool) -> None:
    from napari_attention_unet.models import bundled_models, read_card

    cards = [card for path in bundled_models().values() if (card := read_card(path))]
    if as_json:
        typer.echo(to_json([dataclasses.asdict(card) for card in cards]))
    else:
        show(_models_table(cards))


def _save(checkpoint: str, description: Description) -> None:
    from napari_attention_unet.models.bundled import resolve
    from napari_attention_unet.models.card_file import save_card

    path = resolve(checkpoint)
    try:
        saved = save_card(path, description.stated_card)
    except OSError as error:
        raise CheckpointError(
            f"The card cannot be saved in '{path.parent}': {error.strerror or error}."
        ) from error
    typer.echo(f"Saved {saved}", err=True)


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


def _facts_table(description: Description) -> Table:
    from rich.table import Table

    from napari_attention_unet.models.option_text import to_text

    facts = description.to_dict()
    facts["options"] = [
        f"{o.name}: {to_text(o.value)} ({'chosen' if o.stated else 'assumed'})"
        + (f", of {', '.join(to_text(c) for c in o.choices)}." if o.choices else ".")
        for o in description.options
    ]
    facts["receptive_field"] = [
        "whole volume" if width is None else width for width in facts["receptive_field"]
    ]
    facts["code"] = facts["code"] or "none runs"
    facts["fixed"] = "this size alone, larger volumes in tiles" if facts["fixed"] else ""
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
