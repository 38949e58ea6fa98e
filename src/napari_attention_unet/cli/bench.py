"""`bench`: this package against sliding windows, and the cases that the project aims at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_attention_unet.errors import InputError

from .console import progress_bar, show

if TYPE_CHECKING:
    from rich.table import Table

    from napari_attention_unet.bench.cases import Measuring
    from napari_attention_unet.bench.document import Document
    from napari_attention_unet.bench.results import Comparison, Row
    from napari_attention_unet.volume import Shape3


def bench(
    case: Annotated[
        list[str] | None,
        typer.Option(help="A case, such as blog16-auto, or all that begin so, such as blog16."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every case that has an aim.")] = False,
    network: Annotated[
        str, typer.Option(help="Without cases: compare on this one, blog16, blog64 or monai.")
    ] = "blog16",
    size: Annotated[
        str | None, typer.Option(metavar="Z,Y,X", help="Voxels, in place of a case's own.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Timed runs of each.")] = 5,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of torch; as it comes if omitted.")
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option("--json", metavar="FILE", help="Keep results here, with those it has."),
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the page of all results here.")
    ] = None,
) -> None:
    """Measure speed, memory and exactness against MONAI and an nnU-Net-like predictor.

    Without `--case` or `--all`, all contenders but the mirroring one run over one network.
    Files are written after each result, so that a long run can be stopped.
    """
    import torch

    from napari_attention_unet.bench.cases import aimed_at, chosen, compare_all, measure_steps
    from napari_attention_unet.bench.document import Document
    from napari_attention_unet.bench.how import How

    how = How(None if size is None else _voxels(size), repeats)
    wanted = chosen(case or [])
    if every:
        wanted = list(dict.fromkeys([*wanted, *aimed_at()]))
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        document = Document(json_file)
        steps = measure_steps(wanted, how) if wanted else compare_all(network, how)
        rows, comparisons = _measured(steps, document, repeats, json_file, markdown)
    finally:
        torch.set_num_threads(before)
    for comparison in comparisons:
        show(comparison_table(comparison))
    if rows:
        show(cases_table(rows))
    if any(row.error for row in rows):
        raise typer.Exit(1)


def _measured(
    steps: Measuring,
    document: Document,
    repeats: int,
    json_file: Path | None,
    markdown: Path | None,
) -> tuple[list[Row], list[Comparison]]:
    from napari_attention_unet.bench.results import Comparison, Row

    rows: list[Row] = []
    comparisons: list[Comparison] = []
    with progress_bar() as bar:
        task = bar.add_task("bench", total=1, message="")
        for result in steps:
            if isinstance(result, Row | Comparison):
                document.add(result, repeats)
                if json_file is not None:
                    document.write(json_file)
                if markdown is not None:
                    document.write_markdown(markdown)
                rows += [result] if isinstance(result, Row) else []
                comparisons += [result] if isinstance(result, Comparison) else []
            else:
                done = result.done / result.total
                bar.update(task, completed=done, message=result.message)
    return rows, comparisons


def cases_table(rows: list[Row]) -> Table:
    """What was reached beside what is aimed at."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("case", no_wrap=True)
    table.add_column("aim", no_wrap=True)
    table.add_column("reached")
    table.add_column("what")
    for row in rows:
        reached = f"not measured: {row.error}" if row.error else row.text
        table.add_row(row.case, row.aim, reached, row.title)
    return table


def comparison_table(comparison: Comparison) -> Table:
    """All contenders of a comparison."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from napari_attention_unet.bench.document import HEADINGS, cells

    size = "×".join(map(str, comparison.size))
    titles = "\n".join(f"{e.contender}: {e.title}" for e in comparison.entries)
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title=f"{comparison.network}, {size} voxels",
        caption=f"{comparison.timed}\n{titles}",
    )
    table.add_column(HEADINGS[0], no_wrap=True)
    for heading in HEADINGS[1:]:
        table.add_column(heading)
    for entry in comparison.entries:
        table.add_row(*cells(entry))
    return table


def _voxels(text: str) -> Shape3:
    try:
        z, y, x = (int(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(
            f"--size is '{text}'; three whole numbers are needed, such as 160,160,160."
        ) from error
    if min(z, y, x) < 1:
        raise InputError(f"--size is '{text}'; each has to be 1 or more.")
    return z, y, x
