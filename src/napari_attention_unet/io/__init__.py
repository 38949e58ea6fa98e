"""Files in and out: readers, writers, layers, the sample."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from napari_attention_unet.errors import InputError
from napari_attention_unet.volume import Volume

from .image import FileImage, stem
from .nifti import read_nifti
from .sample import sample, sample_path
from .save import FORMATS, save
from .tiff import read_tiff

__all__ = ["FORMATS", "open_image", "read", "sample", "sample_path", "save", "stem"]

_READERS: dict[str, Callable[[Path], FileImage]] = {
    ".tif": read_tiff,
    ".tiff": read_tiff,
    ".nii": read_nifti,
    ".nii.gz": read_nifti,
}


def open_image(path: str | Path) -> FileImage:
    """Read an image file, chosen by its ending; what `read` and the napari reader share.

    Raises
    ------
    InputError
        If the ending is not known, or the file cannot be read.
    """
    path = Path(path)
    for suffix, reader in _READERS.items():
        if path.name.lower().endswith(suffix):
            return reader(path)
    raise InputError(
        f"'{path}' is of a kind that is not known here; TIFF (.tif, .tiff) and NIfTI (.nii, "
        ".nii.gz) files are. Save the volume as one of them."
    )


def read(path: str | Path) -> tuple[Volume, ...]:
    """Read the volumes of a file.

    Parameters
    ----------
    path : str or Path
        ``.tif``, ``.tiff`` (ImageJ, OME, plain multi-page), ``.nii`` or ``.nii.gz``.

    Returns
    -------
    tuple of Volume
        One a time point. Anatomical volumes are in orientation ``"IPL"``.

    Raises
    ------
    InputError
        If the file cannot be read, is a colour picture, or has no depth.
    """
    return open_image(path).volumes()
