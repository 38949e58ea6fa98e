"""NIfTI: any storage order, time and channel axes, scaling; see `anatomy` for the axes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.nifti1 import xform_codes

from napari_attention_unet.errors import InputError
from napari_attention_unet.units import NO_UNIT, unit_symbol
from napari_attention_unet.volume import Affine

from .anatomy import is_regular, upright
from .image import LAZY_ABOVE_BYTES, FileImage, native, one_sentence, stem

#: Intents (NIfTI-1 standard, section "interpretation of voxel data") of several values a voxel.
_VECTOR_INTENTS = {1004, 1005, 1006, 1007, 1010, 2003, 2004}
_LABEL_INTENT = 1002
#: deflate cannot shrink data further than this.
_MOST_COMPRESSION = 1100


def read_nifti(path: str | Path) -> FileImage:
    """Read a NIfTI-1 or NIfTI-2 file.

    The fourth axis is time, unless the file says that each voxel holds a vector, gives it a unit
    that is not time's, or a step of zero: then it is channels. The fifth axis is channels. Where
    neither sform nor qform is set nothing is known of left and right, so `orientation` is None;
    a file without a unit of length is in millimetres, as the standard's coordinates are.

    Parameters
    ----------
    path : str or Path
        The file, ``.nii`` or ``.nii.gz``.

    Raises
    ------
    InputError
        If the file is damaged, cut short, no NIfTI, or has axes that cannot be told apart.
    """
    with one_sentence(path, "a NIfTI image"):
        image = nib.load(path)
        if not isinstance(image, nib.Nifti1Pair):
            raise ValueError(f"it is {type(image).__name__}")
        header: Any = image.header
        pixels = _pixels(image, Path(path))
        data, axes = _standard(pixels, header, path)
        affine, known = _affine(image)
        length, time = header.get_xyzt_units()
        has_time = "T" in axes and unit_symbol(time) != NO_UNIT
        step = float(header["pixdim"][4]) if has_time else 1.0
        form = int(header["sform_code"]) or int(header["qform_code"])
        return FileImage(
            **upright(data, affine, str(path), "nifti", str(xform_codes.label[form])),
            axes=axes,
            name=stem(path),
            units="mm" if unit_symbol(length) == NO_UNIT else unit_symbol(length),
            orientation="IPL" if known else None,
            time_step=step if np.isfinite(step) and step > 0 else 1.0,
            time_start=float(np.nan_to_num(header["toffset"])) if has_time else 0.0,
            time_unit=unit_symbol(time) if has_time else "",
            is_labels=int(header["intent_code"]) == _LABEL_INTENT and data.dtype.kind in "iu",
        )


def _pixels(image: nib.Nifti1Pair, path: Path) -> Any:
    """The values, scaled; in the file's axis order, colours on a last axis of length 3 or 4."""
    proxy: Any = image.dataobj
    size = path.stat().st_size
    compressed = path.suffix.lower() == ".gz"
    needed = int(np.prod(image.shape, dtype=float)) * proxy.dtype.itemsize
    if needed > size * (_MOST_COMPRESSION if compressed else 1):
        raise ValueError(
            f"its header promises {needed} bytes of voxels, the file has {size} in all"
        )
    raw = proxy.get_unscaled()
    if raw.dtype.names:
        return np.stack([raw[name] for name in raw.dtype.names], axis=-1)
    if isinstance(raw, np.memmap):
        if needed > LAZY_ABOVE_BYTES:
            import dask.array as da

            chunks = (*raw.shape[:2], *(1 for _ in raw.shape[2:]))
            raw = da.from_array(raw, chunks=chunks, name=False)  # type: ignore[no-untyped-call]
        else:
            raw = np.array(raw, order="F")
    array = native(raw, path)
    if (proxy.slope, proxy.inter) == (1.0, 0.0):
        return array
    real = np.result_type(array.dtype, np.float32).type
    return array.astype(real) * real(proxy.slope) + real(proxy.inter)


def _standard(pixels: Any, header: Any, path: str | Path) -> tuple[Any, str]:
    """The values as (time, channel, x, y, z), and which of "TCZYX" the file has."""
    shape = tuple(int(n) for n in header.get_data_shape())
    colors = pixels.shape[len(shape) :]
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    shape += (1,) * (3 - len(shape))
    if len(shape) == 4 and _fourth_is_channels(header):
        shape = (*shape[:3], 1, shape[3])
    shape += (1,) * (5 - len(shape))
    if len(shape) > 5 or 0 in shape:
        raise InputError(
            f"'{path}' has the shape {shape}; x, y, z, time and channels are understood. Save one "
            "part of it."
        )
    there = {"T": shape[3] > 1, "C": shape[4] > 1, "Z": shape[2] > 1, "Y": True, "X": True}
    pixels = pixels.reshape((*shape, *colors))
    return (
        pixels.transpose(3, 4, 0, 1, 2, *range(5, pixels.ndim)),
        "".join(letter for letter in there if there[letter]),
    )


def _fourth_is_channels(header: Any) -> bool:
    _, unit = header.get_xyzt_units()
    return (
        int(header["intent_code"]) in _VECTOR_INTENTS
        or unit in ("hz", "ppm", "rads")
        or not header["pixdim"][4] > 0
    )


def _affine(image: nib.Nifti1Pair) -> tuple[Affine, bool]:
    """The file's affine (RAS+), and whether the file states it."""
    header: Any = image.header
    affine = np.array(image.affine, dtype=np.float64)
    if is_regular(affine):
        return affine, int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0
    zooms = np.abs(np.nan_to_num(header["pixdim"][1:4].astype(np.float64), posinf=0.0))
    return np.diag([*np.where(zooms > 0, zooms, 1.0), 1.0]) * [-1, 1, 1, 1], False
