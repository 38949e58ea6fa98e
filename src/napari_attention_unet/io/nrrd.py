"""NRRD: axes by their kinds, space and units, anatomical or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nrrd
import numpy as np

from napari_attention_unet.errors import InputError
from napari_attention_unet.units import NO_UNIT, unit_ratio, unit_symbol
from napari_attention_unet.volume import Affine

from .anatomy import LPS_RAS, is_regular, reversed_axes, upright
from .image import FileImage, native, one_sentence, stem

#: Anatomical spaces of the format's definition, to RAS+; times may follow in the name.
_SPACES = {
    "right-anterior-superior": np.eye(4),
    "ras": np.eye(4),
    "left-anterior-superior": np.diag([-1.0, 1.0, 1.0, 1.0]),
    "las": np.diag([-1.0, 1.0, 1.0, 1.0]),
    "left-posterior-superior": LPS_RAS,
    "lps": LPS_RAS,
}
#: Keys of our own for the time axis: step, start and unit.
TIME_KEYS = ("time step", "time start", "time unit")
_SPATIAL = ("domain", "space")
#: gzip cannot shrink data further than this.
_MOST_COMPRESSION = 1100


def read_nrrd(path: str | Path) -> FileImage:
    """Read a NRRD file, attached (``.nrrd``) or detached (``.nhdr``).

    Axes without a direction in space are channels, or time where their kind says so. Files without
    an anatomical space keep their world as it is; without a unit, anatomical ones are in mm.

    Parameters
    ----------
    path : str or Path
        The file.

    Raises
    ------
    InputError
        If the file is damaged, cut short, no NRRD, or has axes that cannot be told apart.
    """
    with one_sentence(path, "a NRRD image"):
        header: dict[str, Any] = dict(nrrd.read_header(str(path)))
        _check_size(header, Path(path))
        data, _ = nrrd.read(str(path))
    sizes = [int(size) for size in header["sizes"]]
    roles = _roles(header, len(sizes), path)
    wanted = [*(roles.index(r) if r in roles else None for r in "TC"), *_spatial(roles)]
    data = native(data, path).transpose([axis for axis in wanted if axis is not None])
    data = data[tuple(None if axis is None else slice(None) for axis in wanted)]
    known, unit = _unit(header, roles)
    step, start, time_unit = (str(header.get(key, "")) for key in TIME_KEYS)
    space = str(header.get("space", "")).lower().removesuffix("-time")
    to_file_world = _affine(header, _spatial(roles), path)
    to_ras = _SPACES.get(space)
    common: dict[str, Any] = {
        "axes": "".join(r for r in "TC" if r in roles) + "ZYX",
        "name": stem(path),
        "units": unit if known or to_ras is None else "mm",
        "time_step": _number(step, 1.0),
        "time_start": _number(start, 0.0),
        "time_unit": "" if unit_symbol(time_unit) == NO_UNIT else unit_symbol(time_unit),
    }
    if to_ras is not None:
        placed = upright(data, to_ras @ to_file_world, str(path), "nrrd", "scanner")
        return FileImage(**placed, **common, orientation="IPL")
    return FileImage(**reversed_axes(data, to_file_world, str(path), "nrrd"), **common)


def _check_size(header: dict[str, Any], path: Path) -> None:
    """Refuse a header that promises more than its file can hold, before memory is taken."""
    if "data file" in header or "datafile" in header:
        return
    needed = int(np.prod([float(size) for size in header["sizes"]]))
    packed = str(header.get("encoding", "raw")) not in ("raw", "ascii", "txt", "text")
    size = path.stat().st_size
    if needed > size * (_MOST_COMPRESSION if packed else 1):
        raise ValueError(f"its header promises {needed} voxels, the file has {size} bytes in all")


def _roles(header: dict[str, Any], ndim: int, path: str | Path) -> list[str]:
    """What each axis of the file is: ``S`` for space, ``T``, ``C``."""
    kinds = [str(kind).lower() for kind in header.get("kinds", ["domain"] * ndim)]
    directions = header.get("space directions")
    if directions is not None:
        roles = ["S" if np.isfinite(row).all() else "C" for row in _rows(directions)]
    else:
        roles = ["S" if kind in (*_SPATIAL, "???", "none") else "C" for kind in kinds]
    for axis, kind in enumerate(kinds):
        if kind == "time":
            roles[axis] = "T"
    others = [role for role in roles if role != "S"]
    if directions is None and roles.count("S") == 4 and not others:
        roles[3] = "T"
    if roles.count("S") != 3 or len(set(others)) != len(others):
        raise InputError(
            f"'{path}' has the axes {tuple(kinds)} of lengths {tuple(header['sizes'])}; three of "
            "space, with one of time and one of channels at most, are understood."
        )
    return roles


def _spatial(roles: list[str]) -> list[int]:
    return [axis for axis, role in enumerate(roles) if role == "S"]


def _rows(directions: Any) -> list[Any]:
    return [np.full(3, np.nan) if row is None else np.asarray(row, float) for row in directions]


def _affine(header: dict[str, Any], spatial: list[int], path: str | Path) -> Affine:
    """(4, 4) map of the index along the spatial axes to the file's own world (x, y, z)."""
    affine = np.eye(4)
    if header.get("space directions") is not None:
        rows = _rows(header["space directions"])
        affine[:3, :3] = np.stack([rows[axis] for axis in spatial], axis=1)
        affine[:3, 3] = header.get("space origin", np.zeros(3))
    else:
        spacings = np.asarray(header.get("spacings", np.ones(len(header["sizes"]))), float)[spatial]
        affine[:3, :3] = np.diag(np.where(np.isfinite(spacings) & (spacings > 0), spacings, 1.0))
        origins = np.asarray(header.get("axis mins", np.zeros(len(header["sizes"]))), float)
        affine[:3, 3] = np.nan_to_num(origins[spatial])
    if not is_regular(affine):
        raise InputError(f"The directions of space in '{path}' span no volume; correct its header.")
    return affine


def _number(text: str, otherwise: float) -> float:
    try:
        number = float(text)
    except ValueError:
        return otherwise
    return number if np.isfinite(number) else otherwise


def _unit(header: dict[str, Any], roles: list[str]) -> tuple[bool, str]:
    """Whether a unit of length is stated, and which."""
    stated = list(header.get("space units", ()))
    if not stated and "units" in header:
        stated = [header["units"][axis] for axis in _spatial(roles)]
    symbols = {unit_symbol(str(text).strip('"')) for text in stated[:3]} - {NO_UNIT}
    if len(symbols) != 1:
        for unit in symbols:
            unit_ratio(unit, next(iter(symbols)))
        return False, NO_UNIT
    return True, symbols.pop()
