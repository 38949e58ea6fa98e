"""One volume of a batch: read, run, save, with what tells a finished result from another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_attention_unet import io
from napari_attention_unet.errors import AttentionUNetError, InputError
from napari_attention_unet.io.readers import split_inner
from napari_attention_unet.io.save import SUMMARY, Format
from napari_attention_unet.prediction import Prediction, Step
from napari_attention_unet.settings import Settings

from .items import Item, item_settings
from .table import write_measures

if TYPE_CHECKING:
    from napari_attention_unet.model import Model

#: Key of the summary under which the batch keeps what it was made of.
INPUT = "input"


@dataclass(frozen=True)
class Order:
    """What is wanted of every volume of a batch; goes to the workers of a cluster as it is.

    Attributes
    ----------
    model : str
        A checkpoint's path or a bundled name.
    options : tuple of (str, value)
        Keywords of `load_model`.
    settings : Settings
        For volumes that have none of their own.
    output : str
        Folder in which each volume gets its own.
    format : str
        See `napari_attention_unet.io.save`.
    resume : bool
        Leave finished results as they are, and replace those of other volumes or settings.
    overwrite : bool
        Replace earlier results.
    """

    model: str
    options: tuple[tuple[str, Any], ...] = ()
    settings: Settings = field(default_factory=Settings)
    output: str = "."
    format: Format = "auto"
    resume: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of a volume.

    Attributes
    ----------
    item : Item
        The volume.
    folder : str
        Its results.
    status : str
        ``"done"``, ``"skipped"`` (finished before) or ``"failed"``.
    message : str
        Why it failed, in one sentence.
    bad_input : bool
        Whether it failed because volume or options cannot be used.
    """

    item: Item
    folder: str
    status: str
    message: str = ""
    bad_input: bool = False


def load(order: Order) -> Model:
    """The model of an order; a process keeps the last one."""
    from napari_attention_unet.model import load_model

    key = order.model, repr(order.options)
    if key not in _loaded:
        _loaded.clear()  # the weights of one are enough
        _loaded[key] = load_model(order.model, **dict(order.options))
    return _loaded[key]


_loaded: dict[tuple[str, str], Model] = {}


def run_item(order: Order, item: Item) -> Outcome:
    """Run one volume to its end; see `item_steps`."""
    from napari_attention_unet.graph.lower import finished

    return finished(item_steps(load(order), order, item))


def item_steps(model: Model, order: Order, item: Item) -> Generator[Step, None, Outcome]:
    """Read a volume, run it, save its results; whatever goes wrong with it is its outcome.

    Yields
    ------
    Step
        ``done`` of ``total`` of this volume.
    """
    folder = Path(order.output) / item.name
    try:
        status = yield from _steps(model, order, item, folder)
    except AttentionUNetError as error:
        return Outcome(item, str(folder), "failed", _one_line(error), bad_input=True)
    except Exception as error:  # a bad volume must not end the batch
        message = f"{type(error).__name__}: {_one_line(error)}"
        return Outcome(item, str(folder), "failed", message)
    return Outcome(item, str(folder), status)


def _steps(model: Model, order: Order, item: Item, folder: Path) -> Generator[Step, None, str]:
    from napari_attention_unet.predict import predict_steps

    settings = item_settings(item, order.settings)
    yield Step(0.0, 1.0, "Reading")
    made_of = _made_of(item, model, settings)
    check_free(order, item)
    if order.resume and not order.overwrite and is_finished(folder, made_of):
        return "skipped"
    volumes = io.read(item.path)
    predictions: list[Prediction] = []
    for index, volume in enumerate(volumes):
        for step in predict_steps(model, volume, settings):
            yield Step(index + step.done / step.total, len(volumes), step.message)
            if step.prediction is not None:
                from_file = {**step.prediction.provenance, INPUT: made_of}
                predictions.append(replace(step.prediction, provenance=from_file))
    yield Step(len(volumes), len(volumes), "Saving")
    write_measures(folder, item.name, predictions)
    io.save(predictions, folder, order.format)
    return "done"


def check_free(order: Order, item: Item) -> None:
    """Refuse to replace earlier results without being asked to.

    Raises
    ------
    InputError
        If there are any.
    """
    folder = Path(order.output) / item.name
    if (folder / SUMMARY).exists() and not order.overwrite and not order.resume:
        raise InputError(
            f"'{folder}' has results already. Choose another output folder, resume the batch "
            "(--resume), or overwrite them (--overwrite)."
        )


def is_finished(folder: Path, made_of: dict[str, Any]) -> bool:
    """Whether a folder has the complete results of this volume, model and settings."""
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        there = all((folder / name).exists() for name in summary["files"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False
    return there and bool(summary.get(INPUT) == made_of)


def _made_of(item: Item, model: Model, settings: Settings) -> dict[str, Any]:
    """What a result depends on, in plain JSON types."""
    return {
        "path": str(Path(item.path).absolute()),
        "content": content_hash(item.path),
        "model": model.sha256,
        "card": hashlib.sha256(model.card.to_json().encode()).hexdigest(),
        "settings": settings.as_json(),
    }


def content_hash(path: str | Path) -> str:
    """SHA-256 of a file; of the names and contents of all files of a folder.

    Raises
    ------
    InputError
        If there is no such file.
    """
    from napari_attention_unet.models.contents import sha256_of

    outer, inner = split_inner(path)
    if not outer.exists():
        raise InputError(f"There is no file '{path}'. Check its path.")
    files = [p for p in outer.rglob("*") if p.is_file()] if outer.is_dir() else [outer]
    return hashlib.sha256(f"{inner} {sha256_of(files, outer)}".encode()).hexdigest()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
