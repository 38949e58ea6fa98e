"""Results to look at: those of a saved folder, or of a volume that is run for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .tables import follow

if TYPE_CHECKING:
    from napari_attention_unet.model import Model
    from napari_attention_unet.prediction import Prediction
    from napari_attention_unet.settings import Settings
    from napari_attention_unet.volume import Volume


@dataclass(frozen=True)
class Results:
    """Predictions, one a time point.

    Attributes
    ----------
    predictions : list of Prediction
    images : list of Volume or None
        What was run, with its voxels; None where it is not at hand.
    """

    predictions: list[Prediction]
    images: list[Volume | None]


def saved_results(folder: Path) -> Results:
    """The results in a folder that `predict` wrote."""
    from napari_attention_unet import io

    predictions = io.open_result(folder)
    return Results(predictions, [io.source_of(prediction) for prediction in predictions])


def run_results(model: Model, path: Path, settings: Settings) -> Results:
    """The results of running every time point of a volume."""
    from napari_attention_unet import io
    from napari_attention_unet.inspect.steps import predicted
    from napari_attention_unet.predict import predict_steps

    volumes = io.read(path)
    predictions = [
        follow(predicted(predict_steps(model, volume, settings)), path.name) for volume in volumes
    ]
    return Results(predictions, list(volumes))
