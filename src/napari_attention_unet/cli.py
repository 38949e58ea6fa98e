"""The command line: predict files, look at models, see the demonstration.

Exit status: 0 when all went well, 2 for input that cannot be used, with one line on standard
error saying what and how to mend it, 130 when interrupted, 1 otherwise. What is imported at the
top is light, so that ``--help`` answers at once.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from napari_attention_unet.errors import AttentionUNetError, InputError

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

    from napari_attention_unet.io.save import Format
    from napari_attention_unet.model import Model
    from napari_attention_unet.models.card import ModelCard
    from napari_attention_unet.prediction import Prediction
    from napari_attention_unet.settings import Settings
    from napari_attention_unet.volume import Vec3

PROGRAM = "napari-attention-unet"
DEMO_FOLDER = Path("attention-unet-demo")
_SCREEN = "-screen 0 1280x800x24"

app = typer.Typer(
    help="See where a 3D Attention U-Net looks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def main() -> None:
    """Run the command line and leave with its exit status."""
    try:
        app(prog_name=PROGRAM)
    except AttentionUNetError as error:
        _complain(error)
        sys.exit(2)
    except OSError as error:
        _complain(error)
        sys.exit(1)


# --- predict ------------------------------------------------------------------------------------


@app.command()
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
        Literal["auto", "tiff", "nifti", "zarr"],
        typer.Option("--format", help="Of the results; auto is the volume's own."),
    ] = "auto",
    save: Annotated[str, typer.Option(metavar="probabilities,logits", help="Save these too.")] = "",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results of an earlier run.")
    ] = False,
) -> None:
    """Segment volumes; save the mask and every gate's coefficients of each.

    Prints the folder of each volume's results once they are complete. A volume that cannot be
    used is named on standard error, and the others are done all the same.
    """
    from napari_attention_unet.io.save import SUMMARY
    from napari_attention_unet.model import load_model
    from napari_attention_unet.settings import Settings

    settings = Settings(
        spacing=_voxel_size(spacing),
        device=device,
        precision=precision,
        plan=plan,
        outputs=("mask", *_names(save)),
        memory=memory,
    )
    loaded = load_model(model)
    failed = False
    for path, folder in zip(volumes, _folders(volumes, output), strict=True):
        try:
            if (folder / SUMMARY).exists() and not overwrite:
                raise InputError(
                    f"'{folder}' has results already. Choose another --output, or add --overwrite."
                )
            _predict_file(loaded, path, folder, file_format, settings)
        except AttentionUNetError as error:
            _complain(error, path)
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
    with _progress_bar() as bar:
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


@contextmanager
def _progress_bar() -> Iterator[Progress]:
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


# --- models -------------------------------------------------------------------------------------


@app.command()
def models(
    checkpoint: Annotated[
        str | None, typer.Argument(help="A bundled name or a file; all bundled ones if omitted.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the bundled models, or print the card of one."""
    if checkpoint is None:
        from napari_attention_unet.models import bundled_models, read_card

        cards = [card for path in bundled_models().values() if (card := read_card(path))]
        if as_json:
            typer.echo(_as_json([dataclasses.asdict(card) for card in cards]))
        else:
            _print(_models_table(cards))
        return
    from napari_attention_unet.model import load_model

    model = load_model(checkpoint)
    if as_json:
        typer.echo(_as_json(_facts(model)))
    else:
        _print(_facts_table(_facts(model)))


def _facts(model: Model) -> dict[str, Any]:
    """The card of a model, and what its network says."""
    gates = [
        {
            "name": gate.name,
            "kind": gate.kind,
            "scale": list(gate.grid.scale),
            "translate": list(gate.grid.translate),
        }
        for gate in model.gates
    ]
    return {
        **dataclasses.asdict(model.card),
        "sha256": model.sha256,
        "stride": list(model.stride),
        "gates": gates,
    }


def _as_json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)


def _models_table(cards: Sequence[ModelCard]) -> Table:
    from rich.table import Table

    table = Table(box=None)
    for heading in ("Model", "Classes", "Voxel size"):
        table.add_column(heading, no_wrap=True)
    table.add_column("About")
    for card in cards:
        size = "any" if card.voxel_size is None else f"{_times(card.voxel_size)} {card.units}"
        table.add_row(
            card.name, "\n".join(c.name for c in card.classes[1:]), size, card.description
        )
    return table


def _facts_table(facts: dict[str, Any]) -> Table:
    from rich.table import Table

    table = Table(box=None, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in facts.items():
        if value not in (None, "", [], {}, ()):
            table.add_row(key.replace("_", " "), _readable(value))
    return table


def _readable(value: Any) -> str:
    """A fact as lines of text."""
    if isinstance(value, dict):
        if any(isinstance(item, dict) for item in value.values()):
            return "\n".join(f"{key}: {_readable(item)}" for key, item in value.items())
        return ", ".join(f"{key} {_readable(item)}" for key, item in value.items() if item != "")
    if isinstance(value, list | tuple):
        records = value and isinstance(value[0], dict)
        sentences = value and str(value[0]).endswith(".")
        return ("\n" if records or sentences else ", ").join(_readable(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _times(sizes: Sequence[float]) -> str:
    return " x ".join(f"{size:g}" for size in sizes)


# --- demo ---------------------------------------------------------------------------------------


@app.command()
def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the results and the screenshot.")
    ] = DEMO_FOLDER,
    window: Annotated[
        bool, typer.Option(help="Leave napari open; without, save results and a screenshot.")
    ] = True,
) -> None:
    """Open napari on the bundled volume, with the bundled model already run.

    Without a display the same happens on a virtual screen, and the results and a screenshot of
    the viewer are saved.
    """
    if _no_display():
        raise typer.Exit(_demo_on_virtual_screen(output))
    from napari_attention_unet._qt.demo import run_demo

    prediction = run_demo(None if window else output)
    if prediction is not None:
        _print(_gates_table(prediction))
    if not window:
        typer.echo(f"Results and a screenshot are in {output.resolve()}")


def _no_display() -> bool:
    return sys.platform == "linux" and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )


def _demo_on_virtual_screen(output: Path) -> int:
    """Run the demo again under ``xvfb-run``; returns its exit status."""
    runner = shutil.which("xvfb-run")
    if runner is None:
        raise InputError(
            "There is no display, and no xvfb-run to make a virtual one. Install Xvfb "
            "(on Debian and Ubuntu: apt-get install xvfb), or start from a desktop."
        )
    again = [sys.executable, "-m", "napari_attention_unet", "demo", "--no-window"]
    command = [runner, "-a", "-s", _SCREEN, *again, "--output", str(output)]
    return subprocess.run(command, check=False).returncode


def _gates_table(prediction: Prediction) -> Table:
    """What each gate did, one row a gate in the order in which the network runs them.

    The means are over voxels inside and outside the mask; AUC says how well the coefficient alone
    tells them apart.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from napari_attention_unet.inspect.measures import gate_measures

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("gate", overflow="fold")
    for heading in ("grid", "size z, y, x", "range"):
        table.add_column(heading, no_wrap=True)
    for heading in ("inside", "outside", "AUC"):
        table.add_column(heading, justify="right")
    table.add_column("remark")
    for gate, measured in zip(prediction.gates, gate_measures(prediction), strict=True):
        table.add_row(
            gate.name,
            gate.label,
            ", ".join(map(str, gate.coefficients.shape)),
            f"{measured.minimum:.3f} - {measured.maximum:.3f}",
            *(f"{number:.3f}" for number in (measured.inside, measured.outside, measured.auc)),
            measured.flag,
        )
    return table


# --- words to the person ------------------------------------------------------------------------


def _print(table: Table) -> None:
    from rich.console import Console

    Console().print(table)


def _complain(error: Exception, path: Path | None = None) -> None:
    """One line on standard error."""
    message = " ".join(str(error).split())
    if path is not None and str(path) not in message:
        message = f"{path}: {message}"
    typer.echo(f"{PROGRAM}: {message}", err=True)
