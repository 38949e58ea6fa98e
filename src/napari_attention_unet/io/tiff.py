"""TIFF: ImageJ and OME with axes, voxel size and units; plain multi-page files as z-stacks."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from napari_attention_unet.errors import InputError
from napari_attention_unet.units import NO_UNIT, unit_ratio, unit_symbol
from napari_attention_unet.volume import Storage, Vec3

from .image import LAZY_ABOVE_BYTES, FileImage, native, one_sentence, stem

#: Values of the tag ResolutionUnit; 1 is none.
_RESOLUTION_UNITS = {2: "inch", 3: "cm"}


def read_tiff(path: str | Path) -> FileImage:
    """Read the first image of a TIFF file.

    Axes, voxel size, units, position, time step and channel names are taken from ImageJ's or
    OME's metadata. Files without either say nothing dependable about their size: their voxels
    are 1 pixel, and an axis without a meaning is z. Images above 256 MiB are read lazily.

    Parameters
    ----------
    path : str or Path
        The file.

    Raises
    ------
    InputError
        If the file is damaged, cut short, no TIFF, or has axes that cannot be told apart.
    """
    with one_sentence(path, "a TIFF image"), tifffile.TiffFile(path) as tif:
        _check_complete(Path(path))
        series = tif.series[0]
        roles = _roles(series)
        levels = tuple(
            _standard(native(_pixels(path, level, index), path), roles)
            for index, level in enumerate(series.levels)
        )
        if tif.is_ome:
            described = _ome(tif)
        elif tif.is_imagej:
            described = _imagej(tif)
        else:
            described = {}
        return FileImage(
            levels=levels,
            axes="".join(role for role in "TCZYX" if role in roles),
            name=stem(path),
            storage=Storage(str(path), "tiff", shape=levels[0].shape[2:5]),
            **described,
        )


def _check_complete(path: Path) -> None:
    """Refuse a file whose chain of pages leaves the file: tifffile reads such a file as shorter."""
    size = path.stat().st_size
    with path.open("rb") as file:

        def number(format_: str) -> int:
            raw = file.read(struct.calcsize(order + format_))
            if len(raw) < struct.calcsize(order + format_):
                raise ValueError("it ends too early")
            return int(struct.unpack(order + format_, raw)[0])

        order = {b"II": "<", b"MM": ">"}.get(file.read(2), "")
        if not order:
            raise ValueError("it does not begin as TIFF files do")
        big = number("H") == 43
        if big:
            file.seek(8)
        count_format, offset_format, entry = ("Q", "Q", 20) if big else ("H", "I", 12)
        offset = number(offset_format)
        seen = {0}
        while offset not in seen:
            seen.add(offset)
            if offset >= size:
                raise ValueError(f"page {len(seen) - 1} lies beyond the end of the file")
            file.seek(offset)
            entries = number(count_format)
            file.seek(entries * entry, os.SEEK_CUR)
            offset = number(offset_format)


def _roles(series: tifffile.TiffPageSeries) -> str:
    """What each axis of the series is: T, C, Z, Y, X, or S for the colours of a picture."""
    axes = str(series.axes)
    color = series.keyframe.photometric in (
        tifffile.PHOTOMETRIC.RGB,
        tifffile.PHOTOMETRIC.YCBCR,
    ) and dict(zip(axes, series.shape, strict=True)).get("S") in (3, 4)
    if not color:
        axes = axes.replace("S", "C" if "C" not in axes else "?")
    nameless = [letter for letter in axes if letter not in "TCZYXS"]
    free = [role for role in "ZTC" if role not in axes][: len(nameless)]
    if len(free) < len(nameless):
        raise InputError(
            f"This TIFF has the axes '{series.axes}' of lengths {series.shape}, more than time, "
            "channel, z, y and x. Save one position of it, or name its axes."
        )
    taken = iter(sorted(free, key="TCZ".index))
    return "".join(letter if letter in "TCZYXS" else next(taken) for letter in axes)


def _pixels(path: str | Path, level: tifffile.TiffPageSeries, index: int) -> Any:
    """The level's pixels: numpy, or dask with one plane a chunk where they are many."""
    if level.nbytes <= LAZY_ABOVE_BYTES:
        _check_planes(Path(path), level, list(level.pages))
        return level.asarray()
    import dask.array as da

    _check_planes(Path(path), level, [level.pages[-1]])
    store = tifffile.imread(path, aszarr=True, series=0, level=index, chunkmode="page")
    return da.from_zarr(store)  # type: ignore[no-untyped-call]


def _check_planes(path: Path, level: tifffile.TiffPageSeries, pages: list[Any]) -> None:
    """Refuse an image of which a plane is cut off: tifffile may fill in zeros, or fail late."""
    ends = [0 if level.dataoffset is None else level.dataoffset + level.nbytes]
    for page in pages:
        if page is not None:
            ends += map(sum, zip(page.dataoffsets, page.databytecounts, strict=True))
    if max(ends) > path.stat().st_size:
        raise ValueError("it ends before its last plane does")


def _standard(array: Any, roles: str) -> Any:
    """The array as (time, channel, z, y, x), with the colours last where there are any."""
    wanted = "TCZYXS" if "S" in roles else "TCZYX"
    array = array.transpose([roles.index(role) for role in wanted if role in roles])
    return array[tuple(slice(None) if role in roles else None for role in wanted)]


def _imagej(tif: tifffile.TiffFile) -> dict[str, Any]:
    """Geometry by ImageJ's rules: resolution tags, and the keys of its image description."""
    found = tif.imagej_metadata or {}
    tags = tif.pages.first.tags
    unit = unit_symbol(found.get("unit", ""))
    if unit == NO_UNIT and "unit" not in found and "ResolutionUnit" in tags:
        unit = _RESOLUTION_UNITS.get(int(tags["ResolutionUnit"].value), NO_UNIT)
    spacing: Vec3 = (
        abs(_number(found.get("spacing"))) or 1.0,
        _pixel_size(tags, "YResolution"),
        _pixel_size(tags, "XResolution"),
    )
    z, y, x = (
        -_number(found.get(f"{axis}origin")) * size
        for axis, size in zip("zyx", spacing, strict=True)
    )
    step = _number(found.get("finterval"))
    return {
        "spacing": spacing,
        "translate": (z, y, x),
        "units": unit,
        "time_step": step if step > 0 else 1.0,
        "time_unit": unit_symbol(found.get("tunit", "s")) if step > 0 else "",
    }


def _pixel_size(tags: Any, name: str) -> float:
    if name not in tags:
        return 1.0
    pixels, per = tags[name].value  # a fraction: pixels per unit
    return float(per / pixels) if pixels > 0 and per > 0 else 1.0


def _number(value: Any) -> float:
    """A finite number, or 0 for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0.0
    return number if np.isfinite(number) else 0.0


def _ome(tif: tifffile.TiffFile) -> dict[str, Any]:
    """Geometry, time and channel names of the first image of the OME-XML."""
    image = _many(tifffile.xml2dict(tif.ome_metadata or "")["OME"]["Image"])[0]
    pixels = image["Pixels"]
    sizes = {axis: _number(pixels.get(f"PhysicalSize{axis}")) for axis in "ZYX"}
    units = {axis: unit_symbol(pixels.get(f"PhysicalSize{axis}Unit", "µm")) for axis in "ZYX"}
    known = [axis for axis in "XYZ" if sizes[axis] > 0]
    unit = units[known[0]] if known else NO_UNIT
    fallback = sizes[known[0]] if known else 1.0
    z, y, x = (
        sizes[axis] * unit_ratio(units[axis], unit) if axis in known else fallback for axis in "ZYX"
    )
    step = _number(pixels.get("TimeIncrement"))
    channels = [channel.get("Name") for channel in _many(pixels.get("Channel"))]
    return {
        "spacing": (z, y, x),
        "translate": _ome_position(_many(pixels.get("Plane")), unit),
        "units": unit,
        "channel_names": tuple(str(name) for name in channels) if all(channels) else (),
        "time_step": step if step > 0 else 1.0,
        "time_unit": unit_symbol(pixels.get("TimeIncrementUnit", "s")) if step > 0 else "",
    }


def _ome_position(planes: list[dict[str, Any]], unit: str) -> Vec3:
    """Position of the first plane, where it is stated in full and in a unit of length."""
    first = next((p for p in planes if not any(p.get(f"The{axis}") for axis in "ZCT")), {})
    if unit == NO_UNIT or not all(f"Position{axis}" in first for axis in "ZYX"):
        return (0.0, 0.0, 0.0)
    units = {axis: unit_symbol(first.get(f"Position{axis}Unit", "")) for axis in "ZYX"}
    if NO_UNIT in units.values():  # OME's default is the 'reference frame' of the microscope
        return (0.0, 0.0, 0.0)
    z, y, x = (_number(first[f"Position{axis}"]) * unit_ratio(units[axis], unit) for axis in "ZYX")
    return z, y, x


def _many(value: Any) -> list[Any]:
    """What an XML element holds once or several times, as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]
