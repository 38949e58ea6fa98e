"""The napari writers: layers saved where they lie, by *File > Save*.

Layers are described by the tuples that napari hands to writers, so neither napari nor Qt is
imported here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from napari_attention_unet.errors import InputError
from napari_attention_unet.models.card import ClassInfo, default_classes
from napari_attention_unet.units import NO_UNIT, unit_symbol
from napari_attention_unet.volume import Volume, as_vec3

from .layer_volume import SOURCE_KEY
from .placement import (
    LayerAxes,
    index_to_world,
    is_plain,
    layer_axes,
    layer_like,
    spatial_part,
    voxel_size,
)
from .write_nrrd import write_nrrd
from .write_zarr import write_into, write_zarr
from .writers import Output, write_nifti, write_tiff

#: A layer as napari gives it to writers: data, attributes, type.
FullLayer = tuple[Any, dict[str, Any], str]
_WRITERS: dict[str, Callable[[Path, Output], None]] = {
    ".ome.tif": write_tiff,
    ".ome.tiff": write_tiff,
    ".nii.gz": write_nifti,
    ".nii": write_nifti,
    ".nrrd": write_nrrd,
    ".zarr": write_zarr,
}


def write_image(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """npe2's writer of one Image layer, in the format that the ending names."""
    return _write(Path(path), output_of_layer((data, attributes, "image")))


def write_labels(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """npe2's writer of one Labels layer, in the format that the ending names."""
    return _write(Path(path), output_of_layer((data, attributes, "labels")))


def write_layers(path: str, layers: list[FullLayer]) -> list[str]:
    """npe2's writer of several Image and Labels layers as one OME-Zarr.

    The first image is that of the group, Labels layers are in its group ``labels``, and the other
    images, gates among them, are groups of their own in ``images``.
    """
    import zarr

    outputs = [output_of_layer(layer) for layer in layers]
    group = zarr.open_group(path, mode="w", zarr_format=2)
    images = [output for output in outputs if not output.is_labels]
    labels = [output for output in outputs if output.is_labels]
    if not images:
        raise InputError("An OME-Zarr needs an image; select an Image layer as well.")
    write_into(group, images[0])
    for folder, members in (("labels", labels), ("images", images[1:])):
        if members:
            inner = group.create_group(folder)
            names = _distinct([output.name for output in members])
            for name, output in zip(names, members, strict=True):
                write_into(inner.create_group(name), output)
            inner.attrs[folder] = names
    return [path]


def output_of_layer(layer: FullLayer) -> Output:
    """What a writer needs to know of a layer.

    A layer that was read from an anatomical file, or made of one by this package, is written in
    that file's world and storage order, its exact rotation included.

    Raises
    ------
    InputError
        If the layer is no volume.
    """
    data, attributes, kind = layer
    stand_in = layer_like(data, attributes)
    axes = layer_axes(stand_in)
    matrix = spatial_part(index_to_world(stand_in), axes, 0)
    unit = unit_symbol(stand_in.units[axes.spatial[-1]])
    arrays = _arrays(stand_in.data[0] if stand_in.multiscale else data, axes)
    name = str(attributes.get("name") or "layer")
    time_unit = unit_symbol(stand_in.units[axes.time]) if axes.time is not None else NO_UNIT
    about: dict[str, Any] = {
        "name": name,
        "units": unit,
        "time_unit": "" if time_unit == NO_UNIT else time_unit,
        "time": float(stand_in.translate[axes.time]) if axes.time is not None else None,
    }
    volume, scale, translate = _placed(matrix, arrays[0].shape[-3:], attributes, about)
    return Output(
        name=name,
        arrays=arrays,
        scale=as_vec3(scale),
        translate=as_vec3(translate),
        volume=volume,
        classes=_classes(attributes, arrays) if kind == "labels" else (),
        is_labels=kind == "labels",
        time_step=float(stand_in.scale[axes.time]) if axes.time is not None else 1.0,
    )


def _write(path: Path, output: Output) -> list[str]:
    for ending, write in _WRITERS.items():
        if path.name.lower().endswith(ending):
            write(path, output)
            return [str(path)]
    raise InputError(f"'{path.name}' has no known ending; use {', '.join(_WRITERS)}.")


def _arrays(data: Any, axes: LayerAxes) -> tuple[Any, ...]:
    """(z, y, x) or (channel, z, y, x), one a time point."""
    leading = [axis for axis in (axes.time, axes.channel) if axis is not None]
    data = data.transpose([*leading, *axes.spatial])
    return tuple(data) if axes.time is not None else (data,)


def _placed(
    matrix: Any, shape: Any, attributes: dict[str, Any], about: dict[str, Any]
) -> tuple[Volume, Any, Any]:
    """A volume, and where the layer lies in it: that of the file it came from, if it did."""
    source = (attributes.get("metadata") or {}).get(SOURCE_KEY)
    if source and source.get("storage") is not None:
        storage = source["storage"]
        turn = np.asarray(source["affine"]) @ np.linalg.inv(source["shown"])
        if not np.allclose(turn, np.eye(4)) and _is_shown_oblique(attributes, turn):
            matrix = np.linalg.inv(turn) @ matrix
        inner = np.linalg.inv(source["shown"]) @ matrix  # the layer's voxels to the file's
        if is_plain(inner) and storage.shape:
            whole = [storage.shape[axis] for axis in storage.axes]
            volume = _volume(source["affine"], whole, about, storage, source["orientation"])
            return volume, np.diag(inner)[:3], inner[:3, 3]
        exact = np.asarray(source["affine"]) @ inner
        return _volume(exact, shape, about, None, source["orientation"]), np.ones(3), np.zeros(3)
    return _volume(matrix, shape, about, None, None), np.ones(3), np.zeros(3)


def _is_shown_oblique(attributes: dict[str, Any], turn: Any) -> bool:
    """Whether the layer is shown as it lay in the scanner, not on the nearest axes."""
    affine = np.asarray(attributes.get("affine", np.eye(4)), dtype=np.float64)
    return bool(np.allclose(affine[-4:-1, -4:-1], turn[:3, :3], atol=1e-9))


def _volume(
    matrix: Any, shape: Any, about: dict[str, Any], storage: Any, orientation: str | None
) -> Volume:
    matrix = np.asarray(matrix, dtype=np.float64)
    return Volume(
        np.broadcast_to(np.zeros((), np.uint8), (1, *shape)),
        spacing=voxel_size(matrix),
        translate=as_vec3(matrix[:3, 3]),
        affine=None if is_plain(matrix) else matrix,
        storage=storage,
        orientation=orientation,
        **about,
    )


def _classes(attributes: dict[str, Any], arrays: tuple[Any, ...]) -> tuple[ClassInfo, ...]:
    """Names of the labels as the model or the layer's features give them."""
    highest = max(int(np.max(array)) for array in arrays)
    made = list(default_classes(highest + 1)) if highest < 256 else []
    features = attributes.get("features")
    if features is not None and "class" in features and "index" in features:
        for index, name in zip(features["index"], features["class"], strict=True):
            if 0 <= int(index) < len(made):
                made[int(index)] = ClassInfo(str(name), made[int(index)].color)
    return tuple(made)


def _distinct(names: list[str]) -> list[str]:
    """Names for groups, each once."""
    made: list[str] = []
    for name in names:
        safe = "".join(c if c.isalnum() or c in "._-" else "_" for c in name).strip("_") or "layer"
        number = 1
        while (candidate := safe if number == 1 else f"{safe}-{number}") in made:
            number += 1
        made.append(candidate)
    return made
