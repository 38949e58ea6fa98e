"""Results as OME-Zarr: one image or label image with its coarser copies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_attention_unet.models.card import ClassInfo
from napari_attention_unet.units import long_name

from .writers import Output

_CHUNK = 64
#: Coarser copies are made until no axis is longer than this.
_COARSEST = 128
_KINDS = {"T": "time", "C": "channel"}


def write_zarr(path: Path, output: Output) -> None:
    """Write an OME-NGFF 0.4 image with scale and translation.

    The exact affine, which the format has no place for, is kept in the attribute
    ``attention_unet``.
    """
    import zarr

    write_into(zarr.open_group(path, mode="w", zarr_format=2), output)


def write_into(group: Any, output: Output) -> None:
    """Write an image into a zarr group (format 2)."""
    array = _create(group, "0", output.shape, output.dtype, output.axes)
    for index, values in enumerate(output.arrays):
        array[index if output.has_time else ...] = np.asarray(values, output.dtype)
    size, position = output.sizes()
    paths = ["0"]
    factors = [np.ones(3)]
    while max(array.shape[-3:]) > _COARSEST:
        step = [2 if n > _COARSEST else 1 for n in array.shape[-3:]]
        array = _coarser(group, str(len(paths)), array, step, output)
        factors.append(factors[-1] * step)
        paths.append(str(len(paths)))
    # a coarser voxel of an image is a mean and lies between, one of labels is the first
    between = 0.0 if output.is_labels else 0.5
    group.attrs["multiscales"] = [
        {
            "version": "0.4",
            "name": output.name,
            "axes": _axes(output),
            "datasets": [
                {
                    "path": path,
                    "coordinateTransformations": _transforms(
                        output, np.multiply(size, factor), position + (factor - 1) * size * between
                    ),
                }
                for path, factor in zip(paths, factors, strict=True)
            ],
        }
    ]
    if output.is_labels:
        group.attrs["image-label"] = _image_label(output.classes)
    volume = output.volume
    group.attrs["attention_unet"] = {
        "orientation": volume.orientation,
        "affine": (volume.index_to_world @ output.placement).tolist(),
    }


def _create(group: Any, name: str, shape: Sequence[int], dtype: Any, axes: str) -> Any:
    chunks = tuple(
        min(length, _CHUNK if axis in "ZYX" else 1)
        for axis, length in zip(axes, shape, strict=True)
    )
    return group.create_array(
        name,
        shape=tuple(shape),
        dtype=dtype,
        chunks=chunks,
        chunk_key_encoding={"name": "v2", "separator": "/"},
    )


def _coarser(group: Any, name: str, array: Any, step: Sequence[int], output: Output) -> Any:
    """The next level, chunk by chunk."""
    import dask
    import dask.array as da

    data: Any = da.from_zarr(array)  # type: ignore[no-untyped-call]
    leading = array.ndim - 3
    if output.is_labels:
        kept = tuple(slice(0, n // s * s, s) for n, s in zip(array.shape[-3:], step, strict=True))
        data = data[(..., *kept)]
    else:
        along = {leading + axis: s for axis, s in enumerate(step)}
        data = da.coarsen(np.mean, data, along, trim_excess=True)
    made = _create(group, name, data.shape, output.dtype, output.axes)
    with dask.config.set(scheduler="synchronous"):
        da.store(data.rechunk(made.chunks).astype(output.dtype), made, lock=False)
    return made


def _axes(output: Output) -> list[dict[str, str]]:
    units = {"T": long_name(output.volume.time_unit), "C": ""}
    length = long_name(output.volume.units)
    return [
        {"name": axis.lower(), "type": _KINDS.get(axis, "space")}
        | ({"unit": unit} if (unit := units.get(axis, length)) else {})
        for axis in output.axes
    ]


def _transforms(output: Output, size: Any, position: Any) -> list[dict[str, Any]]:
    leading = [output.time_step] * output.has_time + [1.0] * output.has_channels
    start = [output.volume.time or 0.0] * output.has_time + [0.0] * output.has_channels
    return [
        {"type": "scale", "scale": [*leading, *map(float, size)]},
        {"type": "translation", "translation": [*start, *map(float, position)]},
    ]


def _image_label(classes: tuple[ClassInfo, ...]) -> dict[str, Any]:
    values = list(enumerate(classes))[1:]
    return {
        "version": "0.4",
        "colors": [
            {"label-value": value, "rgba": [*bytes.fromhex(info.color.lstrip("#")), 255]}
            for value, info in values
        ],
        "properties": [{"label-value": value, "class": info.name} for value, info in values],
    }
