"""The napari reader: image files as layers with their scale, units, axis labels and names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from napari_attention_unet.units import NO_UNIT

from .image import FileImage
from .layer_volume import source_metadata
from .open_result import is_result
from .readers import is_image, open_images

#: Data, keyword arguments, layer type: what napari makes a layer of.
LayerData = tuple[Any, dict[str, Any], str]
_AXIS_LABELS = {"T": "time", "Z": "z", "Y": "y", "X": "x"}
#: Of the channels of one microscopy image, shown additively.
_COLORMAPS = ("cyan", "magenta", "yellow", "red", "green", "blue")


def get_reader(path: str | list[str]) -> Callable[[str], list[LayerData]] | None:
    """npe2's reader contribution: a function that reads the path.

    None for stacks of files, and for folders that are neither DICOM, OME-Zarr, N5 nor results.
    """
    ours = isinstance(path, str) and (is_result(path) or is_image(path))
    return read_layers if ours else None


def read_layers(path: str | Path) -> list[LayerData]:
    """Read an image file or folder as napari layers, one a channel.

    Parameters
    ----------
    path : str or Path
        A file that `napari_attention_unet.io.read` opens; single planes and colour pictures
        open as well, and the result folders that `napari_attention_unet.io.save` writes.

    Returns
    -------
    list of (data, keyword arguments, layer type)
        `metadata` carries what `napari_attention_unet.io.layers.volume_from_layers` needs to
        get the volume back.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    if is_result(path):
        from .result_layers import result_layers

        saved = result_layers(path)
        return [*saved.image, *saved.results]
    return [layer for image in open_images(path) for layer in layers_of(image)]


def layers_of(image: FileImage) -> list[LayerData]:
    """An image file's content as napari layers, one a channel."""
    axes = [axis for axis in "TZYX" if axis in image.axes]
    sizes = dict(zip("ZYX", image.spacing, strict=True)) | {"T": image.time_step}
    starts = dict(zip("ZYX", image.translate, strict=True)) | {"T": image.time_start}
    shared = {
        "scale": [sizes[axis] for axis in axes],
        "translate": [starts[axis] for axis in axes],
        "units": [(image.time_unit or NO_UNIT) if axis == "T" else image.units for axis in axes],
        "axis_labels": [_AXIS_LABELS[axis] for axis in axes],
    }
    if image.is_rgb:
        shared["rgb"] = True
    absent = tuple(slice(None) if axis in image.axes else 0 for axis in "TZYX")
    channels = image.data.shape[1]
    made: list[LayerData] = []
    for channel in range(channels):
        levels = [level[:, channel][absent] for level in image.levels]
        several = len(levels) > 1
        arguments = {
            **shared,
            **_appearance(image, channel),
            "name": _name(image, channel),
            "metadata": source_metadata(image, channel),
        }
        if several:
            arguments["multiscale"] = True
        kind = "labels" if image.is_labels else "image"
        made.append((levels if several else levels[0], arguments, kind))
    return made


def _name(image: FileImage, channel: int) -> str:
    channels = image.data.shape[1]
    if channels == 1:
        return image.name
    named = len(image.channel_names) == channels
    return f"{image.name} · {image.channel_names[channel] if named else f'channel {channel + 1}'}"


def _appearance(image: FileImage, channel: int) -> dict[str, Any]:
    """Colours that tell channels apart; modalities of one head hide each other instead."""
    if image.is_labels or image.is_rgb:
        return {}
    several = image.data.shape[1] > 1
    if image.orientation is not None:
        looks: dict[str, Any] = {"visible": channel == 0} if several else {}
        return looks | _without_outliers(image.data[:, channel])
    if several:
        return {"colormap": _COLORMAPS[channel % len(_COLORMAPS)], "blending": "additive"}
    return {}


def _without_outliers(data: Any) -> dict[str, Any]:
    """Contrast limits that a few bright vessels or a hot voxel do not stretch into darkness."""
    if not isinstance(data, np.ndarray):
        return {}
    sample = data[(slice(None), *(slice(None, None, 1 + size // 128) for size in data.shape[1:]))]
    low, high = (float(p) for p in np.nanpercentile(sample.astype(np.float64), (0.1, 99.8)))
    return {"contrast_limits": (low, high)} if np.isfinite([low, high]).all() and low < high else {}
