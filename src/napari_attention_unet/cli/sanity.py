"""`sanity`: whether the maps depend on what was learned."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .model_options import Architecture, Arguments, Options, Trust, load
from .run_options import DeviceName, Memory, ModelName, Precision, Spacing, one_volume, settings_of
from .tables import Csv, Json, follow, give


def sanity(
    volume: Annotated[Path, typer.Argument(help="A volume as predict takes it.")],
    model: ModelName = "brain-t1",
    mode: Annotated[
        Literal["cascading", "independent", "both"],
        typer.Option(help="Shuffle from the output down, one layer at a time, or both."),
    ] = "both",
    seed: Annotated[int, typer.Option(help="Of the shuffling.")] = 0,
    csv: Csv = None,
    json: Json = False,
    device: DeviceName = "auto",
    precision: Precision = "auto",
    memory: Memory = None,
    spacing: Spacing = None,
    trust: Trust = False,
    architecture: Architecture = None,
    arguments: Arguments = None,
    options: Options = None,
) -> None:
    """Shuffle the weights layer by layer, and say how alike each gate's map stays.

    A map that stays alike when everything that leads to it is shuffled says nothing of what the
    network learned (Adebayo et al. 2018). One run of the network a layer and mode.
    """
    from napari_attention_unet.inspect.sanity import (
        MODES,
        SANITY_COLUMNS,
        ignores_weights,
        sanity_steps,
    )

    source = one_volume(volume)
    loaded = load(model, trust, architecture, arguments, options)
    settings = settings_of(device, precision, memory, spacing)
    modes = MODES if mode == "both" else (mode,)
    table = follow(sanity_steps(loaded, source, settings, modes=modes, seed=seed), "sanity")
    give(table, SANITY_COLUMNS, csv, json, shown=table.drop(columns=["complete"]))
    if json:
        return
    for gate, ignores in ignores_weights(table).items():
        verdict = "ignores the weights" if ignores else "depends on the weights"
        typer.echo(f"{gate}: {verdict}.")
