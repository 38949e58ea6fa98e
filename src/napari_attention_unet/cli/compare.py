"""`compare`: two results of one volume, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_attention_unet.errors import InputError

from .console import to_json
from .tables import Csv, Json, rows_of, show_frame

if TYPE_CHECKING:
    from napari_attention_unet.prediction import Prediction


def compare(
    first: Annotated[Path, typer.Argument(help="Folder of a result.")],
    second: Annotated[Path, typer.Argument(help="Folder of another result of the same volume.")],
    time: Annotated[int, typer.Option(min=0, help="Time point of series, from 0.")] = 0,
    csv: Csv = None,
    json: Json = False,
) -> None:
    """Compare two results of one volume: classes of the masks, gates, and their measures.

    Gates of equal names are compared, then gates on equal grids. The CSV file has the measures of
    both next to each other.
    """
    from napari_attention_unet.inspect.compare import PAIR_COLUMNS
    from napari_attention_unet.inspect.compare import compare as compared
    from napari_attention_unet.inspect.interventions import CHANGE_COLUMNS

    found = compared(_opened(first, time), _opened(second, time))
    if csv is not None:
        found.measures.to_csv(csv, index=False, float_format="%.6g")
    if json:
        parts = {"classes": found.classes, "gates": found.gates, "measures": found.measures}
        made = {name: rows_of(table) for name, table in parts.items()}
        typer.echo(to_json(made | {"unpaired": list(found.unpaired)}))
        return
    show_frame(found.classes, CHANGE_COLUMNS)
    if found.pairs:
        show_frame(found.gates, PAIR_COLUMNS)
    if found.unpaired:
        typer.echo(f"Without a partner: {', '.join(found.unpaired)}.")


def _opened(folder: Path, time: int) -> Prediction:
    from napari_attention_unet.io.open_result import open_result

    series = open_result(folder)
    if time >= len(series):
        raise InputError(f"'{folder}' has {len(series)} time point(s); --time is {time}.")
    return series[time]
