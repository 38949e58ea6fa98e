"""Tables of results on the screen, as CSV and as JSON; and the long work that makes them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from .console import progress_bar, show, to_json

if TYPE_CHECKING:
    from pandas import DataFrame

    from napari_attention_unet.inspect.table import Column
    from napari_attention_unet.prediction import Step

T = TypeVar("T")

Csv = Annotated[
    Path | None, typer.Option("--csv", metavar="FILE", help="Write the whole table as CSV.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the whole table as JSON.")]


def follow(steps: Generator[Step, None, T], name: str) -> T:
    """Run a work to its end, with a bar on standard error."""
    with progress_bar() as bar:
        task = bar.add_task(name, total=None, message="")
        try:
            while True:
                step = next(steps)
                total = step.total or None
                bar.update(task, total=total, completed=step.done, message=step.message)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            steps.close()


def give(
    table: DataFrame,
    columns: Sequence[Column],
    csv: Path | None,
    json: bool,
    *,
    shown: DataFrame | None = None,
) -> None:
    """Print a table and write it where that was asked for.

    Parameters
    ----------
    table : DataFrame
        All of it, for CSV and JSON.
    columns : sequence of Column
        What its columns are.
    csv : Path or None
        Where to write it.
    json : bool
        Print JSON instead of a table for people.
    shown : DataFrame, optional
        What people see of it, where that is less.
    """
    if csv is not None:
        from napari_attention_unet.inspect.table import csv_text

        csv.write_text(csv_text(table, columns), encoding="utf-8")
    if json:
        typer.echo(to_json(rows_of(table)))
    else:
        show_frame(table if shown is None else shown, columns)


def show_frame(table: DataFrame, columns: Sequence[Column]) -> None:
    """Print a table for people, numbers to three places."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    known = {column.name: column for column in columns}
    made = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in table.columns:
        heading = known[name].heading(table) if name in known else str(name)
        numeric = table[name].dtype.kind in "iuf"
        made.add_column(heading, justify="right" if numeric else "left", overflow="fold")
    for row in table.itertuples(index=False):
        made.add_row(*(_word(value) for value in row))
    show(made)


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return str(value)
    if value != value:
        return "–"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3f}"


def rows_of(table: DataFrame) -> list[dict[str, Any]]:
    """Rows in JSON's types; what is not finite becomes null."""
    import json

    rows: list[dict[str, Any]] = json.loads(table.to_json(orient="records"))
    return rows
