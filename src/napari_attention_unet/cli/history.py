"""`history`: how attention came about in training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from napari_attention_unet.errors import InputError

from .console import complain
from .model_options import Architecture, Arguments, Options, Trust, keywords_of
from .run_options import DeviceName, Memory, Precision, Spacing, one_volume, settings_of
from .tables import follow, show_frame

_CACHE = ".history"


def history(
    checkpoints: Annotated[
        list[Path], typer.Argument(help="A folder of checkpoints, or checkpoints.")
    ],
    volume: Annotated[Path, typer.Option("--volume", help="The volume to run each of them on.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results.")],
    file_format: Annotated[
        Literal["auto", "tiff", "nifti", "nrrd", "zarr"],
        typer.Option("--format", help="Of the results; auto is the volume's own."),
    ] = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results of an earlier run.")
    ] = False,
    device: DeviceName = "auto",
    precision: Precision = "auto",
    memory: Memory = None,
    spacing: Spacing = None,
    trust: Trust = False,
    architecture: Architecture = None,
    arguments: Arguments = None,
    options: Options = None,
) -> None:
    """Run every checkpoint of a training on one volume.

    Writes the mask and each gate as one file with the checkpoints as its time axis, and the
    measures of all of them in measures.csv. A run that was interrupted goes on where it stopped,
    from what it kept in the output's folder.
    """
    from napari_attention_unet import io
    from napari_attention_unet.inspect.history import history_steps
    from napari_attention_unet.inspect.table import COLUMNS, csv_text
    from napari_attention_unet.io.save import SUMMARY

    if (output / SUMMARY).exists() and not overwrite:
        raise InputError(
            f"'{output}' has results already. Choose another --output, or add --overwrite."
        )
    source = checkpoints[0] if len(checkpoints) == 1 and checkpoints[0].is_dir() else checkpoints
    work = history_steps(
        source,
        one_volume(volume),
        settings_of(device, precision, memory, spacing),
        cache=output / _CACHE,
        options=keywords_of(trust, architecture, arguments, options),
    )
    found = follow(work, "history")
    for path, reason in found.skipped:
        complain(f"left out: {reason}", path)
    io.save(found.predictions, output, file_format)
    (output / "measures.csv").write_text(csv_text(found.measures, COLUMNS), encoding="utf-8")
    short = ["epoch", "gate", "region", "volume", "inside", "outside", "auc", "flag"]
    shown = found.measures[short].rename(columns={"epoch": found.word.capitalize()})
    show_frame(shown, COLUMNS)
    typer.echo(output)
