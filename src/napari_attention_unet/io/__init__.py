"""Files in and out: readers, writers, layers, the sample."""

from __future__ import annotations

from pathlib import Path

from napari_attention_unet.volume import Volume

from .image import FileImage, stem
from .open_result import is_result, open_result, source_of
from .readers import ENDINGS, open_image, open_images
from .sample import sample, sample_path
from .save import FORMATS, save

__all__ = [
    "ENDINGS",
    "FORMATS",
    "FileImage",
    "is_result",
    "open_image",
    "open_images",
    "open_result",
    "read",
    "sample",
    "sample_path",
    "save",
    "source_of",
    "stem",
]


def read(path: str | Path) -> tuple[Volume, ...]:
    """Read the volumes of an image file or folder.

    Parameters
    ----------
    path : str or Path
        TIFF, NIfTI, OME-Zarr, NRRD, MetaImage, numpy, HDF5, N5, or a folder of DICOM slices.
        Within HDF5, N5, zarr and ``.npz`` a dataset is named after a colon, ``"file.h5:raw"``, and
        a DICOM series likewise by its number.

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
