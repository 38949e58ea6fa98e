"""A saved result, read on a worker thread so that the tabs can go on from it as from a run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_attention_unet.errors import AttentionUNetError, InputError
from napari_attention_unet.io.layer_volume import volume_from_layers
from napari_attention_unet.io.napari_reader import LayerData
from napari_attention_unet.io.placement import layer_like
from napari_attention_unet.io.save import SUMMARY
from napari_attention_unet.prediction import Prediction
from napari_attention_unet.settings import Settings
from napari_attention_unet.volume import Box, Volume

from .models import ModelStore
from .request import Request

if TYPE_CHECKING:
    from napari_attention_unet.inspect.measures import GateMeasures

NO_IMAGE = "The image of this result is not where it was, so the network cannot be run on it."


@dataclass(frozen=True, eq=False)
class SavedResult:
    """A result of an earlier run.

    Attributes
    ----------
    name : str
        Of its folder.
    request : Request
        What was run; volumes are zeros where the image is gone.
    predictions : tuple of Prediction
        One a time point.
    measures : tuple of tuples of GateMeasures
        Every gate's statistics, one tuple a time point.
    image, layers : list of (data, keyword arguments, layer type)
        The image, empty if it is gone, and the results.
    closed : str
        Why the network cannot be run again as it was; empty if it can.
    said : str
        What was opened, from which model and when.
    """

    name: str
    request: Request
    predictions: tuple[Prediction, ...]
    measures: tuple[tuple[GateMeasures, ...], ...]
    image: list[LayerData]
    layers: list[LayerData]
    closed: str
    said: str


def read_saved(folder: Path, models: ModelStore) -> SavedResult:
    """Read a result folder, and see whether its network can be run again.

    Raises
    ------
    InputError
        If it holds no complete result.
    """
    from napari_attention_unet.inspect.measures import gate_measures
    from napari_attention_unet.io.result_layers import result_layers

    found = result_layers(folder)
    predictions = tuple(found.predictions)
    about = predictions[0].provenance
    volumes = tuple(_volume(p, found.image) for p in predictions)
    settings, closed = _settings(about)
    if not found.image:
        closed = NO_IMAGE
    return SavedResult(
        folder.name,
        Request(volumes, str(about.get("source", "")), settings),
        predictions,
        tuple(tuple(gate_measures(p)) for p in predictions),
        found.image,
        found.results,
        closed or _other_model(about, settings, models),
        _said(folder, about),
    )


def _volume(prediction: Prediction, image: list[LayerData]) -> Volume:
    """The volume that was run: voxels of the image's layers, geometry of the prediction."""
    volume = prediction.volume
    if not image:
        return volume
    (z, y, x), shape = volume.part.origin, volume.shape
    low = (int(z), int(y), int(x))
    box: Box = (
        (low[0], low[0] + shape[0]),
        (low[1], low[1] + shape[1]),
        (low[2], low[2] + shape[2]),
    )
    layers = [layer_like(data, arguments) for data, arguments, _ in image]
    found = volume_from_layers(layers, time_index=volume.part.time_index, region=box)
    return volume.replace(data=found.data)


def _settings(about: dict[str, Any]) -> tuple[Settings, str]:
    try:
        return Settings.from_json(about.get("options", {})), ""
    except InputError as error:
        return Settings(), f"The network cannot be run again as it was: {error}"


def _other_model(about: dict[str, Any], settings: Settings, models: ModelStore) -> str:
    """Why the model cannot be run again as it was; empty if it can."""
    from napari_attention_unet.preprocess import resolve_normalization

    source = about.get("source")
    if not source:
        return "The result does not say where its model was loaded from."
    try:
        model = models.get(source)
    except AttentionUNetError as error:
        return f"The model of this result cannot be used: {error}"
    if model.sha256 != about["sha256"]:
        return f"'{source}' is not the model of this result any more."
    options = {option.name: option.value for option in model.options}
    before = {name: said["value"] for name, said in about.get("checkpoint_options", {}).items()}
    now = _plain(options)
    now["normalization"] = asdict(resolve_normalization(settings.normalize, model.card))
    before["normalization"] = about.get("normalization")
    if now != _plain(before):
        names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        return (
            f"The model of this result had other options ({', '.join(names)}); choose them in "
            "the model's card and run again."
        )
    return ""


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    """Rows of numbers as lists, as they are in files."""
    return {name: _lists(value) for name, value in options.items()}


def _lists(value: Any) -> Any:
    return [_lists(item) for item in value] if isinstance(value, tuple | list) else value


def _said(folder: Path, about: dict[str, Any]) -> str:
    saved = datetime.fromtimestamp((folder / SUMMARY).stat().st_mtime)
    how = [str(about[key]) for key in ("device", "precision", "plan") if key in about]
    model = about.get("model", "a model that is not named")
    return f"Opened '{folder.name}': {model}, saved {saved:%Y-%m-%d %H:%M} · {', '.join(how)}"
