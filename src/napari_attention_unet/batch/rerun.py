"""A saved result, run again from what it says of itself, and compared with what was saved."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_attention_unet import io
from napari_attention_unet.errors import InputError
from napari_attention_unet.io.readers import split_inner
from napari_attention_unet.io.save import SUMMARY
from napari_attention_unet.models.bundled import resolve
from napari_attention_unet.models.card import ClassInfo, Normalization
from napari_attention_unet.prediction import Prediction, Step
from napari_attention_unet.settings import Settings
from napari_attention_unet.volume import Volume

from .work import INPUT, content_hash

if TYPE_CHECKING:
    from napari_attention_unet.model import Model

#: What of the provenance has to be the same for a result to be the same, and its name in words.
_CONDITIONS = {
    "checkpoint_options": "options of the checkpoint",
    "normalization": "normalisation",
    "network_grid": "grid of the network",
    "device_label": "device",
    "precision": "precision",
    "plan": "plan",
}


@dataclass(frozen=True, eq=False)
class Rerun:
    """A result that was run again.

    Attributes
    ----------
    predictions : list of Prediction
        As they are now, one a time point.
    voxels, total : int
        Voxels of the mask that differ from the saved ones, and all.
    gates : dict of str to float
        Largest absolute difference of each gate's coefficients; infinite where one of the two has
        no such gate on such a grid.
    changed : tuple of str
        What was not as it was for the saved result, or is not known, a sentence each.
    """

    predictions: list[Prediction]
    voxels: int
    total: int
    gates: Mapping[str, float]
    changed: tuple[str, ...]

    @property
    def identical(self) -> bool:
        """Whether every voxel and every coefficient is the same."""
        return self.voxels == 0 and not any(self.gates.values())


def rerun_steps(
    result: str | Path, *, model: str = "", device: str = "", trust: bool = False
) -> Generator[Step, None, Rerun]:
    """Run a saved result again.

    Parameters
    ----------
    result : str or Path
        Its folder, or the ``prediction.json`` in it.
    model : str
        Where its checkpoint is now, if it moved.
    device : str
        Other than that on which it was made.
    trust : bool
        As of `load_model`.

    Yields
    ------
    Step

    Returns
    -------
    Rerun

    Raises
    ------
    InputError
        If volume, model, settings or device are not there any more or are others; the message
        says which, and what would work.
    """
    from napari_attention_unet.predict import predict_steps

    path = Path(result)
    folder = path.parent if path.name == SUMMARY else path
    yield Step(0.0, 0.0, "Reading the result")
    saved = io.open_result(folder)
    about = saved[0].provenance
    settings = [_settings(old.provenance, device) for old in saved]
    volumes = _volumes(saved)
    yield Step(0.0, 0.0, "Reading the model")
    network = _model(about, model, trust)
    made: list[Prediction] = []
    for index, (old, volume, chosen) in enumerate(zip(saved, volumes, settings, strict=True)):
        for step in predict_steps(network, volume, chosen):
            yield Step(index + step.done / step.total, len(saved), step.message)
            if step.prediction is not None:
                kept = {INPUT: old.provenance[INPUT]} if INPUT in old.provenance else {}
                provenance = {**step.prediction.provenance, **kept}
                made.append(replace(step.prediction, provenance=provenance))
    voxels = sum(_voxels(old, new) for old, new in zip(saved, made, strict=True))
    total = sum(int(np.prod(old.mask.shape)) for old in saved)
    changed = _changed(about, made[0].provenance)
    return Rerun(made, voxels, total, _differences(saved, made), changed)


def load_keywords(about: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of `load_model` with which a provenance says that its model was loaded."""
    options = {
        name: option["value"]
        for name, option in about.get("checkpoint_options", {}).items()
        if option["stated"]
    }
    keywords = {k: _tuples(v) for k, v in {**options, **about.get("stated", {})}.items()}
    if "arguments" in keywords:
        keywords["arguments"] = about["stated"]["arguments"]
    if "classes" in keywords:
        keywords["classes"] = tuple(ClassInfo(**info) for info in keywords["classes"])
    if isinstance(keywords.get("normalization"), dict):
        keywords["normalization"] = Normalization(**keywords["normalization"])
    return keywords


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def _settings(about: Mapping[str, Any], device: str) -> Settings:
    """Those of the result, with what was left to the program as it was chosen then."""
    from napari_attention_unet.engine.device import devices

    if "options" not in about:
        raise InputError(
            "The result does not say how it was run, so it cannot be run again. Results that "
            "predict, the panel or Prediction.save wrote do."
        )
    wanted = device or about["device"]
    known = [known.name for known in devices()]
    if not device and wanted not in known:
        raise InputError(
            f"The result was made on {about.get('device_label', wanted)} ({wanted}), and here are "
            f"{', '.join(known)}. --device {known[0]} runs it on that; values may then differ in "
            "their last digits."
        )
    try:
        settings = Settings.from_json(about["options"])
    except InputError as error:
        raise InputError(
            f"{error} Such a result cannot be run again from its files; run it from Python, with "
            "the array."
        ) from error
    tile = about.get("tile")
    return replace(
        settings,
        device=wanted,
        precision=about["precision"],
        plan=about["plan"],
        tile=settings.tile if tile is None else (tile[0], tile[1], tile[2]),
    )


def _volumes(saved: Sequence[Prediction]) -> list[Volume]:
    """The volumes that were run, with the geometry that they had then."""
    first, storage = saved[0], saved[0].volume.storage
    recorded = first.provenance.get(INPUT, {})
    path = recorded.get("path") or (storage.path if storage is not None else "")
    if not path:
        raise InputError(
            "The result does not say of which file its volume came: it was run on an array. Run "
            "the array again from Python, and compare the two with `compare`."
        )
    if not split_inner(path)[0].exists():
        raise InputError(
            f"The volume '{path}' is not there any more. Put it back, or run predict on it where "
            "it is now, and compare the two results with `compare`."
        )
    content = recorded.get("content")
    if content is not None and content_hash(path) != content:
        raise InputError(
            f"The volume '{path}' has other content than when the result was made. Put the old "
            "file back, or run predict on the new one."
        )
    volumes = []
    for old in saved:
        found = io.source_of(old, path)
        if found is None or found.channels != old.volume.channels:
            part = old.volume.part
            coarse = " at a coarser level" if part.step != (1.0, 1.0, 1.0) else ""
            raise InputError(
                f"'{path}' does not hold the volume that was run as it was: {old.volume.channels} "
                f"channel(s) of {old.volume.shape} voxels, time point {part.time_index}{coarse}. "
                "What was run at a coarser level, or on channels that were put together, can be "
                "run again in the panel or from Python alone."
            )
        volumes.append(old.volume.replace(data=found.data))
    return volumes


def _model(about: Mapping[str, Any], moved: str, trust: bool) -> Model:
    from napari_attention_unet.model import load_model

    source = moved or about.get("source", "")
    if not source:
        raise InputError(
            f"The result does not say where its model '{about.get('model', '')}' was loaded from. "
            "--model FILE names the checkpoint."
        )
    if not resolve(source).exists():
        raise InputError(
            f"The checkpoint '{source}' is not there any more. --model FILE says where it is now."
        )
    model = load_model(source, trust=trust, **load_keywords(about))
    if model.sha256 != about["sha256"]:
        raise InputError(
            f"'{source}' is another model than that of the result: its SHA-256 begins with "
            f"{model.sha256[:12]}, that of the result with {about['sha256'][:12]}. --model FILE "
            "says where the one of the result is now."
        )
    return model


def _voxels(old: Prediction, new: Prediction) -> int:
    return int(np.count_nonzero(np.asarray(old.mask) != np.asarray(new.mask)))


def _differences(saved: Sequence[Prediction], made: Sequence[Prediction]) -> dict[str, float]:
    """The largest difference of each gate, over all time points."""
    found: dict[str, float] = {}
    for old, new in zip(saved, made, strict=True):
        ours = {gate.name: np.asarray(gate.coefficients, np.float32) for gate in old.gates}
        theirs = {gate.name: np.asarray(gate.coefficients, np.float32) for gate in new.gates}
        for name in {**ours, **theirs}:
            one, other = ours.get(name), theirs.get(name)
            alike = one is not None and other is not None and one.shape == other.shape
            largest = float(np.abs(one - other).max()) if alike else float("inf")  # type: ignore[operator]
            found[name] = max(found.get(name, 0.0), largest)
    return found


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    """What was not as it was."""
    said = [
        f"{name}: {before['versions'][name]} then, {version} now"
        for name, version in now["versions"].items()
        if before.get("versions", {}).get(name, version) != version
    ]
    for key, words in _CONDITIONS.items():
        if key in before and before[key] != now[key]:
            said.append(f"{words}: {before[key]} then, {now[key]} now")
    if INPUT not in before:
        said.append("the result does not say the content of its file, which may have changed")
    return tuple(said)
