"""`rerun`: a saved result, run again, and whether it is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_attention_unet.errors import InputError

from .model_options import Trust
from .tables import follow


def rerun(
    result: Annotated[
        Path,
        typer.Argument(metavar="PREDICTION.JSON", help="Of a saved result, or its folder."),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Save the new result in this folder.")
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="Where the checkpoint is now, if it moved.")
    ] = "",
    device: Annotated[str, typer.Option(help="Other than that of the result.")] = "",
    trust: Trust = False,
) -> None:
    """Run a saved result again from what it says of itself; say whether it is identical.

    Exit status: 0 if every voxel of the mask and every coefficient is the same, 1 if not, 2 if it
    cannot be run: file or model moved, or are others.
    """
    from napari_attention_unet import io
    from napari_attention_unet.batch.rerun import rerun_steps

    if output is not None and io.is_result(output):
        raise InputError(f"'{output}' has results already. Choose another folder.")
    steps = rerun_steps(result, model=model, device=device, trust=trust)
    found = follow(steps, result.parent.name or str(result))
    if output is not None:
        typer.echo(io.save(found.predictions, output))
    typer.echo("identical" if found.identical else "not identical")
    typer.echo(f"mask: {found.voxels} of {found.total} voxels differ")
    for name, difference in found.gates.items():
        typer.echo(f"{name}: largest difference {difference:.3g}")
    for sentence in found.changed:
        typer.echo(f"note: {sentence}")
    if not found.identical:
        raise typer.Exit(1)
