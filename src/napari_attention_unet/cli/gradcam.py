"""`gradcam`: gradient maps on the gates' grids, to compare attention with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from .model_options import Architecture, Arguments, Options, Trust, load
from .run_options import (
    DeviceName,
    Memory,
    ModelName,
    Spacing,
    labels_like,
    one_volume,
    settings_of,
)
from .tables import Csv, Json, follow, give


def gradcam(
    volume: Annotated[Path, typer.Argument(help="A volume as predict takes it.")],
    model: ModelName = "brain-t1",
    target: Annotated[
        str | None, typer.Option("--class", help="A class; all that the mask has if omitted.")
    ] = None,
    region: Annotated[
        Path | None,
        typer.Option(help="Labels on the volume's grid; where they are not 0 is explained."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Save the maps, a folder a class.")
    ] = None,
    file_format: Annotated[
        Literal["auto", "tiff", "nifti", "nrrd", "zarr"],
        typer.Option("--format", help="Of the maps; auto is the volume's own."),
    ] = "auto",
    csv: Csv = None,
    json: Json = False,
    device: DeviceName = "auto",
    memory: Memory = None,
    spacing: Spacing = None,
    trust: Trust = False,
    architecture: Architecture = None,
    arguments: Arguments = None,
    options: Options = None,
) -> None:
    """Seg-Grad-CAM of each class, and how it goes with each gate's coefficients.

    The map says where the features that a gate multiplies speak for the class by their gradient.
    """
    import numpy as np
    import pandas as pd

    from napari_attention_unet import io
    from napari_attention_unet.inspect.gradcam import GRADCAM_COLUMNS, as_prediction, gradcam_steps
    from napari_attention_unet.inspect.steps import predicted
    from napari_attention_unet.predict import predict_steps

    source = one_volume(volume)
    where = None if region is None else labels_like(region, source)
    settings = settings_of(device, "float32", memory, spacing)
    loaded = load(model, trust, architecture, arguments, options)
    prediction = follow(predicted(predict_steps(loaded, source, settings)), "predict")
    targets = [target]
    if target is None and prediction.mask.any():
        present = np.unique(np.asarray(prediction.mask)).tolist()
        targets = [loaded.classes[value].name for value in present if value > 0]
    tables = []
    for name in targets:
        work = gradcam_steps(
            loaded, source, settings, target=name, region=where, prediction=prediction
        )
        found = follow(work, name or "gradcam")
        tables.append(found.table)
        if found.note:
            typer.echo(found.note, err=True)
        if output is not None:
            folder = io.save(as_prediction(found), output / found.target, file_format)
            typer.echo(folder)
    give(pd.concat(tables, ignore_index=True), GRADCAM_COLUMNS, csv, json)
