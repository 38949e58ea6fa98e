"""MetaImage (``.mha``, ``.mhd``) through ITK: its world is LPS+ in millimetres."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK

from napari_attention_unet.volume import Affine

from .anatomy import LPS_RAS, reversed_axes, upright
from .image import FileImage, native, one_sentence, stem

_HEADER_BYTES = 1 << 16


def read_metaimage(path: str | Path) -> FileImage:
    """Read a MetaImage file.

    A fourth axis is time, several values a voxel are channels. ITK takes every world for the
    patient's; a file whose ``AnatomicalOrientation`` is ``???`` is left as it is.

    Parameters
    ----------
    path : str or Path
        The file.

    Raises
    ------
    InputError
        If the file is damaged, cut short or no MetaImage.
    """
    with one_sentence(path, "a MetaImage"):
        make: Any = SimpleITK.ImageFileReader  # untyped
        reader = make()
        reader.SetFileName(str(path))
        reader.SetImageIO("MetaImageIO")
        image = reader.Execute()
        dims = image.GetDimension()
        data: Any = native(SimpleITK.GetArrayFromImage(image), path)  # [t,] z, y, x [, c]
        if dims not in (3, 4):
            raise ValueError(f"it has {dims} axes, not three or four")
        if image.GetNumberOfComponentsPerPixel() == 1:
            data = data[..., None]
        if dims == 3:
            data = data[None]
        stored = data.transpose(0, 4, 3, 2, 1)
        affine = _affine(image, dims)
        common: dict[str, Any] = {
            "axes": "T" * (dims == 4) + "C" * (stored.shape[1] > 1) + "ZYX",
            "name": stem(path),
            "units": "mm",
            "time_step": float(image.GetSpacing()[3]) if dims == 4 else 1.0,
            "time_start": float(image.GetOrigin()[3]) if dims == 4 else 0.0,
        }
        if _is_anatomical(Path(path)):
            placed = upright(stored, LPS_RAS @ affine, str(path), "metaimage", "scanner")
            return FileImage(**placed, **common, orientation="IPL")
        return FileImage(**reversed_axes(stored, affine, str(path), "metaimage"), **common)


def _affine(image: Any, dims: int) -> Affine:
    """(4, 4) map of the index (x, y, z) to ITK's world."""
    direction = np.reshape(image.GetDirection(), (dims, dims))[:3, :3]
    affine = np.eye(4)
    affine[:3, :3] = direction * np.asarray(image.GetSpacing())[:3]
    affine[:3, 3] = image.GetOrigin()[:3]
    return affine


def _is_anatomical(path: Path) -> bool:
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    found = re.search(rb"^AnatomicalOrientation\s*=\s*(\S+)", header, re.MULTILINE)
    return found is None or found[1] != b"???"
