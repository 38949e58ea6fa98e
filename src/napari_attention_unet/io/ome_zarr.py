"""OME-Zarr 0.4 and 0.5: axes, scale, translation, units and levels, read lazily."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from napari_attention_unet.errors import InputError
from napari_attention_unet.units import NO_UNIT, unit_ratio, unit_symbol
from napari_attention_unet.volume import Storage, as_vec3

from .image import LAZY_ABOVE_BYTES, FileImage, native, one_sentence, stem

_TIME, _CHANNEL = "time", "channel"


def read_ome_zarr(path: str | Path, inner: str = "") -> FileImage:
    """Read the image of an OME-Zarr group, or a bare zarr array.

    Levels larger than 256 MiB stay on disk. What this package wrote itself keeps its orientation
    and exact affine.

    Parameters
    ----------
    path : str or Path
        A folder with the group or array.
    inner : str
        A group or array within, e.g. ``"labels/mask"``.

    Raises
    ------
    InputError
        If it is no zarr, a plate, or has axes that cannot be told apart.
    """
    import zarr

    with one_sentence(path, "a zarr"):
        node = zarr.open(str(path), mode="r", path=inner or None)
        if isinstance(node, zarr.Array):
            return _bare(node, path, inner)
        described = _description(node, path)
        return _image(node, described, path, inner)


def read_ome_zarr_all(path: str | Path) -> Iterator[FileImage]:
    """The image, and every label image beside it (the group ``labels``)."""
    import zarr

    yield read_ome_zarr(path)
    node = zarr.open(str(path), mode="r")
    if isinstance(node, zarr.Group) and "labels" in node:
        attributes: Mapping[str, Any] = _ome(node["labels"])
        for name in attributes.get("labels", ()):
            yield read_ome_zarr(path, f"labels/{name}")


def _ome(node: Any) -> Mapping[str, Any]:
    """The metadata, which 0.5 keeps under ``ome``."""
    attributes = dict(node.attrs)
    ome = attributes.get("ome")
    return {**attributes, **ome} if isinstance(ome, Mapping) else attributes


def _description(node: Any, path: str | Path) -> Mapping[str, Any]:
    ome = _ome(node)
    if "multiscales" in ome:
        return ome
    if "plate" in ome or "well" in ome:
        raise InputError(
            f"'{path}' is a plate; name one of its images after a colon, such as '{path}:A/1/0'."
        )
    names = ", ".join(f"'{name}'" for name in sorted(node.keys())[:8])
    raise InputError(
        f"'{path}' is a zarr group without an OME-Zarr image. Name an image or array in it after a "
        f"colon, such as '{path}:0'. It has: {names or 'nothing'}."
    )


def _image(node: Any, ome: Mapping[str, Any], path: str | Path, inner: str) -> FileImage:
    multiscale = ome["multiscales"][0]
    axes = [
        axis if isinstance(axis, Mapping) else {"name": axis}
        for axis in multiscale.get("axes", list("tczyx"))
    ]
    roles = _roles(axes, path)
    levels = [_level(node[d["path"]], roles, path) for d in multiscale["datasets"]]
    scale, translate = _transform(multiscale, len(roles))
    at = {role: index for index, role in enumerate(roles)}
    units = {role: unit_symbol(axes[at[role]].get("unit", "")) for role in roles}
    unit = units["X"]
    ratio = {
        role: unit_ratio(units[role], unit) if NO_UNIT not in (unit, units[role]) else 1.0
        for role in "ZYX"
        if role in at
    }
    ours = ome.get("attention_unet", {})
    stored = levels[0].shape[2:5]
    affine = np.asarray(ours["affine"], float) if ours.get("affine") else None
    spacing = [scale[at[role]] * ratio[role] if role in at else 1.0 for role in "ZYX"]
    start = [translate[at[role]] * ratio[role] if role in at else 0.0 for role in "ZYX"]
    channels = [str(c.get("label", "")) for c in ome.get("omero", {}).get("channels", ())]
    return FileImage(
        levels=tuple(levels),
        axes="".join(role for role in "TCZYX" if role in at),
        name=str(multiscale.get("name") or "") or _name(path, inner),
        storage=Storage(_place(path, inner), "zarr", shape=stored),
        spacing=as_vec3(spacing),
        translate=as_vec3(start),
        units=unit,
        orientation=ours.get("orientation"),
        affine=affine if affine is not None and _is_turned(affine) else None,
        channel_names=tuple(channels) if all(channels) else (),
        time_step=scale[at["T"]] if "T" in at else 1.0,
        time_start=translate[at["T"]] if "T" in at else 0.0,
        time_unit=units["T"] if "T" in at and units["T"] != NO_UNIT else "",
        is_labels="image-label" in ome,
    )


def _roles(axes: list[Mapping[str, Any]], path: str | Path) -> str:
    roles = ""
    for axis in axes:
        kind = {_TIME: "T", _CHANNEL: "C"}.get(str(axis.get("type", "")))
        roles += kind or str(axis["name"]).upper()[:1]
    if len(set(roles)) != len(roles) or not set("YX") <= set(roles) <= set("TCZYX"):
        raise InputError(
            f"'{path}' has the axes {', '.join(str(a['name']) for a in axes)}; time, channel, z, y "
            "and x are understood."
        )
    return roles


def _level(array: Any, roles: str, path: str | Path) -> Any:
    if array.nbytes > LAZY_ABOVE_BYTES:
        import dask.array as da

        data: Any = da.from_zarr(array)  # type: ignore[no-untyped-call]
    else:
        data = array[...]
    data = native(data, path).transpose([roles.index(role) for role in "TCZYX" if role in roles])
    return data[tuple(slice(None) if role in roles else None for role in "TCZYX")]


def _transform(multiscale: Mapping[str, Any], ndim: int) -> tuple[list[float], list[float]]:
    """Scale and translation of the finest level, the multiscale's own applied after."""
    scale, translate = np.ones(ndim), np.zeros(ndim)
    first = multiscale["datasets"][0]
    for part in (first, multiscale):
        for transform in part.get("coordinateTransformations", ()):
            if transform["type"] == "scale":
                factor = np.asarray(transform["scale"], float)
                scale, translate = scale * factor, translate * factor
            elif transform["type"] == "translation":
                translate = translate + np.asarray(transform["translation"], float)
    return scale.tolist(), translate.tolist()


def _is_turned(affine: Any) -> bool:
    linear = affine[:3, :3]
    return bool(np.abs(linear - np.diag(np.diag(linear))).max() > 1e-9)


def _bare(array: Any, path: str | Path, inner: str) -> FileImage:
    roles = {3: "ZYX", 4: "CZYX", 5: "TCZYX"}.get(array.ndim)
    if roles is None:
        raise InputError(
            f"The zarr array '{path}' has {array.ndim} axes; (z, y, x), (channel, z, y, x) or "
            "(time, channel, z, y, x) are understood."
        )
    data = _level(array, roles, path)
    return FileImage(
        levels=(data,),
        axes=roles,
        name=_name(path, inner),
        storage=Storage(_place(path, inner), "zarr", shape=data.shape[2:5]),
    )


def _place(path: str | Path, inner: str) -> str:
    """Under what it is opened again."""
    return f"{path}:{inner.strip('/')}" if inner else str(path)


def _name(path: str | Path, inner: str) -> str:
    return stem(path) + (f" {inner.strip('/')}" if inner else "")
