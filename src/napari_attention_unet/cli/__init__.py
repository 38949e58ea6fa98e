"""The command line: predict files, look at models, see the demonstration.

Exit status: 0 when all went well, 2 for input that cannot be used, with one line on standard
error saying what and how to mend it, 130 when interrupted, 1 otherwise. What is imported at the
top is light, so that ``--help`` answers at once.
"""

from __future__ import annotations

import sys

import typer

from napari_attention_unet.errors import AttentionUNetError

from .ablate import ablate
from .bench import bench
from .compare import compare
from .console import PROGRAM, complain
from .demo import demo
from .gradcam import gradcam
from .history import history
from .measure import measure
from .models import models
from .predict import predict
from .report import report
from .rerun import rerun
from .sanity import sanity

app = typer.Typer(
    help="See where a 3D Attention U-Net looks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for command in (
    predict,
    rerun,
    models,
    demo,
    measure,
    report,
    ablate,
    gradcam,
    sanity,
    history,
    compare,
    bench,
):
    app.command()(command)


def main() -> None:
    """Run the command line and leave with its exit status."""
    try:
        app(prog_name=PROGRAM)
    except AttentionUNetError as error:
        complain(error)
        sys.exit(2)
    except OSError as error:
        complain(error)
        sys.exit(1)
