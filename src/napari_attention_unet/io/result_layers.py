"""A saved result as napari layers: its image where that is still there, mask and every gate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from napari_attention_unet.prediction import Prediction
from napari_attention_unet.volume import Part, Storage, Volume

from .image import FileImage
from .layers import layers_from_prediction
from .napari_reader import LayerData, layers_of
from .open_result import open_result, source_of
from .placement import layer_like
from .readers import open_image


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
    volume = predictions[0].volume
    if source_of(predictions[0]) is not None and volume.storage is not None:
        image = layers_of(open_image(volume.storage.path))
        source = image[0]
    else:  # its place is known all the same
        image = []
        predictions = [replace(p, volume=p.volume.replace(part=Part())) for p in predictions]
        source = layers_of(_without_voxels(volume))[0]
    data, arguments, _ = source
    outputs = ("mask", "probabilities", "gates")
    series = predictions if len(predictions) > 1 else predictions[0]
    stand_in = layer_like(data, arguments)
    results = layers_from_prediction(series, stand_in, outputs=outputs)
    return ResultLayers(predictions, image, results)


def _without_voxels(volume: Volume) -> FileImage:
    storage = volume.storage or Storage("", "")
    return FileImage(
        levels=(volume.data[None],),
        axes="ZYX",
        name=volume.name,
        storage=storage,
        spacing=volume.spacing,
        translate=volume.translate,
        units=volume.units,
        orientation=volume.orientation,
        affine=volume.affine,
    )
