"""From napari layers to volumes.

Layers are used by their public attributes alone, so neither napari nor Qt is imported here.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from napari_attention_unet.errors import InputError
from napari_attention_unet.units import NO_UNIT, unit_ratio, unit_symbol
from napari_attention_unet.volume import Affine, Box, Part, Volume, as_vec3, scale_translate

from .image import FileImage
from .placement import (
    LayerAxes,
    index_to_world,
    is_plain,
    layer_axes,
    layer_shape,
    spatial_part,
    voxel_size,
)

#: Key of a layer's metadata under which the readers keep what a layer itself cannot hold.
SOURCE_KEY = "attention_unet_source"


def source_metadata(image: FileImage, channel: int) -> dict[str, Any]:
    """Metadata of a layer of an image file, which `volume_from_layers` reads.

    Parameters
    ----------
    image : FileImage
        The file's content.
    channel : int
        The channel that the layer shows.
    """
    plain = scale_translate(image.spacing, image.translate)
    return {
        SOURCE_KEY: {
            "name": image.name,
            "channel": channel,
            "channels": image.data.shape[1],
            "units": image.units,
            "orientation": image.orientation,
            "storage": image.storage,
            "shown": plain,
            "affine": plain if image.affine is None else image.affine,
        }
    }


def volume_from_layers(
    layers: Sequence[Any],
    *,
    time_index: int = 0,
    level: int = 0,
    region: Box | None = None,
    leading: Literal["time", "channel"] = "time",
) -> Volume:
    """The volume that napari image layers show.

    Parameters
    ----------
    layers : sequence of napari Image layers
        One layer a channel, in the network's order; or a single one, whose channel axis, if it
        has one, gives the channels. Any array type; nothing is copied or computed where it need
        not be.
    time_index : int
        Of a layer with a time axis, the point to take.
    level : int
        Of a multiscale layer, the level to take; 0 is the finest.
    region : three pairs of int, optional
        Half-open ranges of voxels along z, y, x, of the finest level.
    leading : {"time", "channel"}
        What an unlabelled axis before z, y, x is.

    Returns
    -------
    Volume
        Its `part` says where it lies in the layer, so `layers_from_prediction` can put results
        there. Orientation, exact affine and storage are those of the file that the layer was
        read from by this package.

    Raises
    ------
    InputError
        If a layer is no volume, layers do not lie on one grid, or there is no such time point,
        level or region.
    """
    if not layers:
        raise InputError("No image layer was chosen; choose one a channel.")
    first = layers[0]
    axes = layer_axes(first, leading)
    channels = [_channels(layer, time_index, level, leading) for layer in layers]
    for layer, data in zip(layers, channels, strict=True):
        _check_same_grid(first, layer, channels[0].shape[1:], data.shape[1:])
    data = channels[0] if len(channels) == 1 else _concatenate(channels)
    matrix, units = _in_one_unit(first, spatial_part(index_to_world(first), axes, time_index), axes)
    source = _source(first, axes)
    if source and np.allclose(matrix, source["shown"], rtol=1e-9, atol=1e-9):
        matrix = np.array(source["affine"])  # the layer shows an oblique file on its nearest axes
    whole = np.array([layer_shape(first)[axis] for axis in axes.spatial], dtype=np.float64)
    step = whole / data.shape[1:]
    matrix = matrix @ scale_translate(step, (step - 1) / 2)
    volume = Volume(
        data,
        spacing=voxel_size(matrix),
        translate=as_vec3(matrix[:3, 3]),
        units=units,
        affine=None if is_plain(matrix) else matrix,
        orientation=source.get("orientation"),
        storage=source.get("storage"),
        name=source.get("name", first.name) if len(layers) > 1 else first.name,
        channel_names=tuple(layer.name for layer in layers) if len(layers) > 1 else (),
        part=Part(as_vec3((step - 1) / 2), as_vec3(step), time_index),
        **_time(first, axes, time_index),
    )
    if region is None:
        return volume
    z, y, x = (
        (floor(low / size), ceil(high / size))
        for (low, high), size in zip(region, step, strict=True)
    )
    return volume.crop((z, y, x))


def time_points(layer: Any, leading: Literal["time", "channel"] = "time") -> int:
    """Number of time points of a layer; 1 where it has no time axis."""
    axes = layer_axes(layer, leading)
    return 1 if axes.time is None else layer_shape(layer)[axes.time]


def true_oblique_affine(layer: Any) -> npt.NDArray[np.float64] | None:
    """The affine that shows a layer of an oblique file exactly as it lay in the scanner.

    A layer is shown on the axes nearest to its own, for napari's 2D view drops rotations out of
    the slice. In 3D, give this to the layer and to every layer made from it as their `affine`;
    the identity shows them on the nearest axes again.

    Parameters
    ----------
    layer : napari layer
        Read by this package, its scale and translate unchanged.

    Returns
    -------
    (n + 1, n + 1) array or None
        None where the layer's file is not oblique or unknown.
    """
    axes = layer_axes(layer)
    source = _source(layer, axes)
    if not source or np.array_equal(source["affine"], source["shown"]):
        return None
    inner = source["affine"] @ np.linalg.inv(source["shown"])
    affine = np.eye(len(layer.scale) + 1)
    spatial = list(axes.spatial)
    affine[np.ix_(spatial, spatial)] = inner[:3, :3]
    affine[spatial, -1] = inner[:3, 3]
    return affine


def _channels(layer: Any, time_index: int, level: int, leading: Any) -> Any:
    """The layer's data at one time point and level, as (channel, z, y, x)."""
    axes = layer_axes(layer, leading)
    levels = len(layer.data) if layer.multiscale else 1
    if not 0 <= level < levels:
        raise InputError(
            f"Layer '{layer.name}' has no level {level}; its levels are 0 to {levels - 1}."
        )
    data = layer.data[level] if layer.multiscale else layer.data
    if not isinstance(data, np.ndarray):
        import dask.array as da

        data = da.asarray(data)  # type: ignore[no-untyped-call]
    times = 1 if axes.time is None else data.shape[axes.time]
    if not 0 <= time_index < times:
        raise InputError(
            f"Layer '{layer.name}' has no time point {time_index}; its time points are 0 to "
            f"{times - 1}."
        )
    order = [axis for axis in (axes.time, axes.channel) if axis is not None]
    data = data.transpose([*order, *axes.spatial])
    if axes.time is not None:
        data = data[time_index]
    return data if axes.channel is not None else data[None]


def _concatenate(channels: list[Any]) -> Any:
    """One array of all channels, lazily: this runs wherever a person chooses layers."""
    import dask.array as da

    lazy = [da.from_array(c, name=False) if isinstance(c, np.ndarray) else c for c in channels]  # type: ignore[no-untyped-call]
    return da.concatenate(lazy)  # type: ignore[no-untyped-call]


def _check_same_grid(first: Any, layer: Any, wanted: Any, shape: Any) -> None:
    if shape != wanted:
        raise InputError(
            f"Layers '{first.name}' and '{layer.name}' differ in shape: {tuple(wanted)} and "
            f"{tuple(shape)}. Channels must share one grid; resample one onto the other."
        )
    ours, theirs = index_to_world(first), index_to_world(layer)
    corner = np.array([*layer_shape(first), 1.0])
    same = ours.shape == theirs.shape and tuple(first.units) == tuple(layer.units)
    if (
        not same
        or np.abs((ours - theirs) @ np.diag(corner)).max() > 0.01 * np.abs(first.scale).min()
    ):
        raise InputError(
            f"Layers '{first.name}' and '{layer.name}' lie at different places or have different "
            "voxel sizes. Channels must share one grid; resample one onto the other."
        )


def _in_one_unit(layer: Any, matrix: Affine, axes: LayerAxes) -> tuple[Affine, str]:
    """The matrix with all its world axes in the unit of x, and that unit."""
    symbols = [unit_symbol(layer.units[axis]) for axis in axes.spatial]
    unit = symbols[-1]
    if len(set(symbols)) == 1:
        return matrix, unit
    if NO_UNIT in symbols:
        return matrix, NO_UNIT
    ratios = [unit_ratio(symbol, unit) for symbol in symbols]
    return np.diag([*ratios, 1.0]) @ matrix, unit


def _source(layer: Any, axes: LayerAxes) -> dict[str, Any]:
    """What the reader noted of the layer's file, if the layer still shows that file's voxels."""
    source = dict(layer.metadata.get(SOURCE_KEY, {}))
    storage = source.get("storage")
    if storage is None:
        return {}
    shape = layer_shape(layer)
    same = all(
        shape[axis] == storage.shape[stored]
        for axis, stored in zip(axes.spatial, storage.axes, strict=True)
    )
    return source if same else {}


def _time(layer: Any, axes: LayerAxes, time_index: int) -> dict[str, Any]:
    if axes.time is None:
        return {}
    unit = unit_symbol(layer.units[axes.time])
    time = float(layer.translate[axes.time] + layer.scale[axes.time] * time_index)
    return {"time": time, "time_unit": "" if unit == NO_UNIT else unit}
