"""`measure`: the table of measures of a result, and how it compares with a reference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .console import to_json
from .model_options import Architecture, Arguments, Options, Trust, load
from .results import run_results, saved_results
from .run_options import (
    DeviceName,
    Memory,
    ModelName,
    Precision,
    Spacing,
    labels_like,
    settings_of,
)
from .tables import Json, rows_of, show_frame

if TYPE_CHECKING:
    from pandas import DataFrame

    from napari_attention_unet.inspect.table import Column

#: Columns for a terminal; CSV and JSON have all.
_SHOWN = ("time_point", "region", "gate", "volume", "inside", "outside", "auc", "above_half",
          "centroid_distance", "flag")  # fmt: skip


def measure(
    source: Annotated[
        Path, typer.Argument(metavar="RESULT|VOLUME", help="A folder of results, or a volume.")
    ],
    by: Annotated[
        Literal["class", "object", "foreground"],
        typer.Option(help="What of the mask each gate is measured against."),
    ] = "class",
    reference: Annotated[
        Path | None, typer.Option(help="Labels that are right, on the volume's grid.")
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(
            "--csv",
            metavar="FILE",
            help="Write all columns; with a reference FILE-reference and FILE-errors, too.",
        ),
    ] = None,
    json: Json = False,
    model: ModelName = "brain-t1",
    device: DeviceName = "auto",
    precision: Precision = "auto",
    memory: Memory = None,
    spacing: Spacing = None,
    trust: Trust = False,
    architecture: Architecture = None,
    arguments: Arguments = None,
    options: Options = None,
) -> None:
    """Measure every gate against the mask: how open it is inside and outside, how well it ranks.

    A folder of results is measured as it is; a volume is run first. With a reference, also say
    how the mask compares with it, and how open the gates are where it is right and wrong. Of a
    time series the first time point is compared.
    """
    import numpy as np

    from napari_attention_unet import io
    from napari_attention_unet.inspect.reference import (
        CLASS_COLUMNS,
        GATE_COLUMNS,
        compare_with_reference,
    )
    from napari_attention_unet.inspect.table import COLUMNS, measures_table

    if io.is_result(source):
        found = saved_results(source).predictions
    else:
        loaded = load(model, trust, architecture, arguments, options)
        settings = settings_of(device, precision, memory, spacing)
        found = run_results(loaded, source, settings).predictions
    table = measures_table(found, by=by)
    tables: dict[str, tuple[DataFrame, tuple[Column, ...]]] = {"measures": (table, COLUMNS)}
    if reference is not None:
        labels = np.asarray(labels_like(reference, found[0].volume))
        compared = compare_with_reference(found[0], labels)
        tables["reference"] = compared.classes, CLASS_COLUMNS
        tables["errors"] = compared.gates, GATE_COLUMNS
    if csv is not None:
        _write(tables, csv)
    if json:
        typer.echo(to_json({name: rows_of(each) for name, (each, _) in tables.items()}))
        return
    for name, (each, columns) in tables.items():
        short = [c for c in _SHOWN if c in each.columns] if name == "measures" else each.columns
        show_frame(each[short], columns)


def _write(tables: dict[str, tuple[DataFrame, tuple[Column, ...]]], csv: Path) -> None:
    from napari_attention_unet.inspect.table import csv_text

    for name, (table, columns) in tables.items():
        path = csv if name == "measures" else csv.with_name(f"{csv.stem}-{name}{csv.suffix}")
        path.write_text(csv_text(table, columns), encoding="utf-8")
