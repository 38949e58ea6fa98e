"""The table of a batch: a row for each volume, time point, gate and class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from napari_attention_unet.inspect.table import measures_table
from napari_attention_unet.prediction import Prediction

if TYPE_CHECKING:
    import pandas as pd

#: In each result folder, and of the whole batch.
MEASURES, RESULTS = "measures.csv", "results"
#: Column with the name of the volume (as of its result folder).
NAME = "name"


def write_measures(folder: Path, name: str, predictions: Sequence[Prediction]) -> None:
    """Write the measures of one volume into its result folder."""
    table = measures_table(predictions, by="class")
    table.insert(0, NAME, name)
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".part-{MEASURES}"
    table.to_csv(part, index=False)
    part.replace(folder / MEASURES)


def write_results(output: Path, folders: Sequence[Path]) -> pd.DataFrame:
    """Write the measures of all finished volumes as ``results.csv`` and ``results.parquet``.

    Parameters
    ----------
    output : Path
        Folder of the batch.
    folders : sequence of Path
        Of the finished volumes, in the order of the rows.
    """
    import pandas as pd

    tables = [pd.read_csv(f / MEASURES) for f in folders if (f / MEASURES).exists()]
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({NAME: []})
    output.mkdir(parents=True, exist_ok=True)
    for suffix, write in ((".csv", table.to_csv), (".parquet", table.to_parquet)):
        part = output / f".part-{RESULTS}{suffix}"
        write(part, index=False)
        part.replace(output / f"{RESULTS}{suffix}")
    return table
