"""Words to the person: tables, progress and complaints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

PROGRAM = "napari-attention-unet"


def show(table: Table) -> None:
    """Print a table on standard output."""
    from rich.console import Console

    Console().print(table)


def complain(error: Exception | str, path: str | Path | None = None) -> None:
    """One line on standard error."""
    message = " ".join(str(error).split())
    if path is not None and str(path) not in message:
        message = f"{path}: {message}"
    typer.echo(f"{PROGRAM}: {message}", err=True)


def to_json(value: Any) -> str:
    """JSON as people read it."""
    return json.dumps(value, indent=1, ensure_ascii=False)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar with remaining time on standard error; nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[message]}", style="dim"),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        yield bar
