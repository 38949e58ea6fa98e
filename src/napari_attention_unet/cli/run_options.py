"""Options that say how a network is run, the same for every command that runs one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from napari_attention_unet.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

    from napari_attention_unet.settings import Settings
    from napari_attention_unet.volume import Vec3, Volume

ModelName = Annotated[str, typer.Option("--model", "-m", help="A bundled name or a checkpoint.")]
DeviceName = Annotated[str, typer.Option("--device", help="auto, cpu, cuda:0, mps.")]
Precision = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"], typer.Option("--precision")
]
Memory = Annotated[
    float | None, typer.Option("--memory", metavar="GIB", help="Memory that may be used.")
]
Spacing = Annotated[
    str | None,
    typer.Option("--spacing", metavar="Z,Y,X", help="Voxel size, in place of the file's."),
]


def settings_of(device: str, precision: str, memory: float | None, spacing: str | None) -> Settings:
    """The settings of a run that these options say."""
    from napari_attention_unet.settings import Settings

    return Settings(spacing=voxel_size(spacing), device=device, precision=precision, memory=memory)


def voxel_size(text: str | None) -> Vec3 | None:
    """Three numbers z, y, x.

    Raises
    ------
    InputError
        If the text is anything else.
    """
    if text is None:
        return None
    try:
        z, y, x = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(
            f"--spacing is '{text}'; three numbers are needed, such as 2,0.5,0.5."
        ) from error
    return z, y, x


def one_volume(path: Path) -> Volume:
    """The volume of a file; the first time point of a series."""
    from napari_attention_unet import io

    return io.read(path)[0]


def labels_like(path: Path, volume: Volume) -> npt.NDArray[Any]:
    """Labels of a file, which has to lie on the grid of a volume.

    Returns
    -------
    array, shape (z, y, x)

    Raises
    ------
    InputError
        If it has another shape.
    """
    import numpy as np

    labels = one_volume(path)
    if labels.shape != volume.shape or labels.channels != 1:
        raise InputError(
            f"'{path}' has {labels.channels} channel(s) of {labels.shape} voxels; labels of "
            f"{volume.shape} voxels are needed, those of the volume."
        )
    values: npt.NDArray[Any] = np.asarray(labels.data)[0]
    return values
