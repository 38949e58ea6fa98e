"""`ablate`: what each gate is worth, by closing, opening and levelling it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .model_options import Architecture, Arguments, Options, Trust, load
from .run_options import (
    DeviceName,
    Memory,
    ModelName,
    Precision,
    Spacing,
    labels_like,
    one_volume,
    settings_of,
)
from .tables import Csv, Json, follow, give


def ablate(
    volume: Annotated[Path, typer.Argument(help="A volume as predict takes it.")],
    model: ModelName = "brain-t1",
    reference: Annotated[
        Path | None, typer.Option(help="Labels that are right, on the volume's grid.")
    ] = None,
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
    """Close, open and level each gate in turn, and say how that changes the mask.

    Dice is against the mask with every gate as computed: 1 means that the gate made no
    difference. What is shown is the whole foreground and each class.
    """
    from napari_attention_unet.inspect.ablation import (
        ABLATION_COLUMNS,
        ablation_steps,
        most_needed,
    )
    from napari_attention_unet.inspect.baseline import baseline_steps

    settings = settings_of(device, precision, memory, spacing)
    source = one_volume(volume)
    labels = None if reference is None else labels_like(reference, source)
    loaded = load(model, trust, architecture, arguments, options)
    baseline = follow(baseline_steps(loaded, source, settings), "as computed")
    table = follow(ablation_steps(baseline, labels), "ablation")
    short = ["gate", "switch", "class", "change_percent", "dice"]
    if reference is not None:
        short += ["reference_dice", "reference_change"]
    give(table, ABLATION_COLUMNS, csv, json, shown=table[short])
    needed = most_needed(table)
    if needed is not None and not json:
        typer.echo(f"Closing '{needed}' changes the classes most.")
