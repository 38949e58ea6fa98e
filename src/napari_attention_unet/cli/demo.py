"""`demo`: napari on the bundled volume, with the bundled model already run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_attention_unet.errors import InputError

from .console import show

if TYPE_CHECKING:
    from rich.table import Table

    from napari_attention_unet.prediction import Prediction

FOLDER = Path("attention-unet-demo")
_SCREEN = "-screen 0 1280x800x24"


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the results and the screenshot.")
    ] = FOLDER,
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
        show(gates_table(prediction))
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


def gates_table(prediction: Prediction) -> Table:
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
