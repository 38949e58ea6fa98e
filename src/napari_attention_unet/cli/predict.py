"""`predict`: segment volumes, save the mask and every gate."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from .console import complain, progress_bar
from .model_options import Architecture, Arguments, Options, Trust, keywords_of
from .run_options import DeviceName, Memory, ModelName, Precision, Spacing, voxel_size

if TYPE_CHECKING:
    from napari_attention_unet.batch.run import BatchStep
    from napari_attention_unet.batch.work import Outcome


#: From so many volumes on, those that failed are listed once more at the end.
_MANY = 10


def predict(
    volumes: Annotated[
        list[str],
        typer.Argument(
            metavar="VOLUME",
            help="Images, folders of them, patterns, or a CSV manifest with a column 'volume'.",
        ),
    ],
    model: ModelName = "brain-t1",
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder in which each volume gets its own.")
    ] = Path(),
    device: DeviceName = "auto",
    precision: Precision = "auto",
    plan: Annotated[
        Literal["auto", "whole", "stream", "tiles"],
        typer.Option(help="How a volume is run; auto takes what fits the memory."),
    ] = "auto",
    memory: Memory = None,
    spacing: Spacing = None,
    file_format: Annotated[
        Literal["auto", "tiff", "nifti", "nrrd", "zarr"],
        typer.Option("--format", help="Of the results; auto is the volume's own."),
    ] = "auto",
    save: Annotated[str, typer.Option(metavar="probabilities,logits", help="Save these too.")] = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results of an earlier run.")
    ] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Leave out volumes that are finished, go on with the rest."),
    ] = False,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Run on a Dask cluster, e.g. tcp://10.0.0.1:8786."),
    ] = None,
    trust: Trust = False,
    architecture: Architecture = None,
    arguments: Arguments = None,
    options: Options = None,
) -> None:
    """Segment volumes; save the mask and every gate's coefficients of each.

    Prints the folder of each volume's results once they are complete. A volume that cannot be
    used is named on standard error, and the others are done all the same. The measures of all
    gates are gathered in results.csv and results.parquet.
    """
    from napari_attention_unet.batch.items import collect
    from napari_attention_unet.batch.run import batch_steps
    from napari_attention_unet.batch.work import Order
    from napari_attention_unet.settings import Settings

    settings = Settings(
        spacing=voxel_size(spacing),
        device=device,
        precision=precision,
        plan=plan,
        outputs=("mask", *_names(save)),
        memory=memory,
    )
    keywords = keywords_of(trust, architecture, arguments, options)
    order = Order(
        model=_absolute(model),
        options=tuple(keywords.items()),
        settings=settings,
        output=str(output.absolute() if scheduler else output),
        format=file_format,
        resume=resume,
        overwrite=overwrite,
    )
    items = collect(volumes)
    if scheduler is None:
        outcomes = _follow(batch_steps(order, items))
    else:
        from napari_attention_unet.batch.cluster import cluster_steps, connected

        with connected(scheduler) as client:
            outcomes = _follow(cluster_steps(client, order, collect(map(_absolute, volumes))))
    if len(outcomes) >= _MANY:
        _summarise(outcomes)
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if failed:
        raise typer.Exit(2 if all(outcome.bad_input for outcome in failed) else 1)


def _follow(
    steps: Generator[BatchStep, None, tuple[Outcome, ...]],
) -> tuple[Outcome, ...]:
    """Show the progress of a batch; print what is finished."""
    with progress_bar() as bar:
        whole = bar.add_task("volumes", total=None, message="", visible=False)
        task = bar.add_task("", total=1.0, message="")
        try:
            while True:
                step = next(steps)
                many = step.count > 1
                done = step.index + step.share
                bar.update(whole, total=step.count, completed=done, visible=many)
                bar.update(task, description=step.name, completed=step.share, message=step.message)
                if step.outcome is not None:
                    _say(step.outcome)
        except StopIteration as end:
            outcomes: tuple[Outcome, ...] = end.value
            return outcomes
        finally:
            steps.close()


def _say(outcome: Outcome) -> None:
    if outcome.status == "failed":
        complain(outcome.message, outcome.item.path)
    else:
        typer.echo(outcome.folder)


def _summarise(outcomes: tuple[Outcome, ...]) -> None:
    """How a batch went; what failed is listed once more at its end."""
    counts = {s: sum(o.status == s for o in outcomes) for s in ("done", "skipped", "failed")}
    words = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    typer.echo(f"{len(outcomes)} volumes: {words}", err=True)
    for outcome in outcomes:
        if outcome.status == "failed":
            typer.echo(f"  failed: {outcome.item.path}", err=True)


def _absolute(path: str) -> str:
    """A path that holds on another machine; bundled names stay."""
    return str(Path(path).absolute()) if Path(path).exists() else path


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
