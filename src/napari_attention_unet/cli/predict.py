"""`predict`: segment volumes, save the mask and every gate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from napari_attention_unet.errors import AttentionUNetError, InputError

from .console import complain, progress_bar
from .model_options import Architecture, Arguments, Options, Trust, load

if TYPE_CHECKING:
    from napari_attention_unet.io.save import Format
    from napari_attention_unet.model import Model
    from napari_attention_unet.prediction import Prediction
    from napari_attention_unet.settings import Settings
    from napari_attention_unet.volume import Vec3


def predict(
    volumes: Annotated[list[Path], typer.Argument(metavar="VOLUME", help="TIFF or NIfTI.")],
    model: Annotated[
        str, typer.Option("--model", "-m", help="A bundled name or a checkpoint.")
    ] = "brain-t1",
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder in which each volume gets its own.")
    ] = Path(),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda:0, mps.")] = "auto",
    precision: Annotated[Literal["auto", "float32", "bfloat16", "float16"], typer.Option()] = (
        "auto"
    ),
    plan: Annotated[
        Literal["auto", "whole", "tiles"],
        typer.Option(help="How a volume is run; auto takes what fits the memory."),
    ] = "auto",
    memory: Annotated[
        float | None, typer.Option(metavar="GIB", help="Memory that may be used.")
    ] = None,
    spacing: Annotated[
        str | None,
        typer.Option(metavar="Z,Y,X", help="Voxel size, in place of what the file says."),
    ] = None,
    file_format: Annotated[
        Literal["auto", "tiff", "nifti", "nrrd", "zarr"],
        typer.Option("--format", help="Of the results; auto is the volume's own."),
    ] = "auto",
    save: Annotated[str, typer.Option(metavar="probabilities,logits", help="Save these too.")] = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results of an earlier run.")
    ] = False,
    trust: Trust = False,
    architecture: Architecture = None,
    arguments: Arguments = None,
    options: Options = None,
) -> None:
    """Segment volumes; save the mask and every gate's coefficients of each.

    Prints the folder of each volume's results once they are complete. A volume that cannot be
    used is named on standard error, and the others are done all the same.
    """
    from napari_attention_unet.io.save import SUMMARY
    from napari_attention_unet.settings import Settings

    settings = Settings(
        spacing=_voxel_size(spacing),
        device=device,
        precision=precision,
        plan=plan,
        outputs=("mask", *_names(save)),
        memory=memory,
    )
    loaded = load(model, trust, architecture, arguments, options)
    failed = False
    for path, folder in zip(volumes, _folders(volumes, output), strict=True):
        try:
            if (folder / SUMMARY).exists() and not overwrite:
                raise InputError(
                    f"'{folder}' has results already. Choose another --output, or add --overwrite."
                )
            _predict_file(loaded, path, folder, file_format, settings)
        except AttentionUNetError as error:
            complain(error, path)
            failed = True
        else:
            typer.echo(folder)
    if failed:
        raise typer.Exit(2)


def _predict_file(
    model: Model, path: Path, folder: Path, file_format: Format, settings: Settings
) -> None:
    from napari_attention_unet import io
    from napari_attention_unet.predict import predict_steps

    volumes = io.read(path)
    predictions: list[Prediction] = []
    with progress_bar() as bar:
        task = bar.add_task(path.name, total=len(volumes), message="")
        for index, volume in enumerate(volumes):
            for step in predict_steps(model, volume, settings):
                bar.update(task, completed=index + step.done / step.total, message=step.message)
                if step.prediction is not None:
                    predictions.append(step.prediction)
    io.save(predictions, folder, file_format)


def _folders(volumes: Sequence[Path], output: Path) -> list[Path]:
    """One folder a volume, named after its stem; a number tells equal stems apart."""
    from napari_attention_unet.io import stem

    taken: set[str] = set()
    folders = []
    for path in volumes:
        name = base = stem(path)
        number = 1
        while name.casefold() in taken:  # some file systems ignore case
            number += 1
            name = f"{base}-{number}"
        taken.add(name.casefold())
        folders.append(output / name)
    return folders


def _voxel_size(text: str | None) -> Vec3 | None:
    if text is None:
        return None
    try:
        z, y, x = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(
            f"--spacing is '{text}'; three numbers are needed, such as 2,0.5,0.5."
        ) from error
    return z, y, x


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
