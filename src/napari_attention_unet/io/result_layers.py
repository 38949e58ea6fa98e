"""A saved result as napari layers: its image where that is still there, mask and every gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from napari_attention_unet.prediction import Prediction
from napari_attention_unet.volume import Part, Storage

from .image import FileImage
from .layers import layers_from_prediction
from .napari_reader import LayerData, layers_of
from .open_result import open_result, source_of
from .placement import layer_like
from .readers import open_image

_OUTPUTS = ("mask", "probabilities", "gates")


class ResultLayers(NamedTuple):
    """A result that was read back, ready to be shown.

    Attributes
    ----------
    predictions : list of Prediction
        One a time point.
    image : list of (data, keyword arguments, layer type)
        The volume that was run, a layer a channel; empty if its file is gone or has changed.
    results : list of (data, keyword arguments, layer type)
        As `layers_from_prediction` gives them.
    """

    predictions: list[Prediction]
    image: list[LayerData]
    results: list[LayerData]


def result_layers(folder: str | Path) -> ResultLayers:
    """Read a result folder as layers.

    Raises
    ------
    InputError
        If it holds no complete result.
    """
    predictions = open_result(folder)
    storage = predictions[0].volume.storage
    if storage is None or source_of(predictions[0]) is None:  # the place is known all the same
        return ResultLayers(predictions, [], prediction_layers(predictions))
    image = layers_of(open_image(storage.path))
    data, arguments, _ = image[0]
    series = predictions if len(predictions) > 1 else predictions[0]
    results = layers_from_prediction(series, layer_like(data, arguments), outputs=_OUTPUTS)
    return ResultLayers(predictions, image, results)


def prediction_layers(predictions: Sequence[Prediction]) -> list[LayerData]:
    """Layers of predictions without that of their image, placed by the volume's own geometry.

    Parameters
    ----------
    predictions : sequence of Prediction
        Time points of one series.
    """
    data, arguments, _ = layers_of(_without_voxels(predictions))[0]
    alone = [
        replace(p, volume=p.volume.replace(part=Part(time_index=t)))
        for t, p in enumerate(predictions)
    ]
    series = alone if len(alone) > 1 else alone[0]
    return layers_from_prediction(series, layer_like(data, arguments), outputs=_OUTPUTS)


def _without_voxels(predictions: Sequence[Prediction]) -> FileImage:
    """What stands in for the image."""
    volume = predictions[0].volume
    times = [p.volume.time or 0.0 for p in predictions]
    step = times[1] - times[0] if len(times) > 1 and times[1] > times[0] else 1.0
    empty = np.broadcast_to(np.zeros((), np.uint8), (len(times), 1, *volume.shape))
    return FileImage(
        levels=(empty,),
        axes="T" * (len(times) > 1) + "ZYX",
        name=volume.name,
        storage=volume.storage or Storage("", ""),
        spacing=volume.spacing,
        translate=volume.translate,
        units=volume.units,
        orientation=volume.orientation,
        affine=volume.affine,
        time_step=step,
        time_start=times[0],
        time_unit=volume.time_unit,
    )
