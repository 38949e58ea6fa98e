"""Models as the panel knows them: listed by name, loaded once, described without their tensors."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_attention_unet.errors import InputError
from napari_attention_unet.models import ModelCard, bundled_models
from napari_attention_unet.models.bundled import resolve
from napari_attention_unet.volume import Shape3, Volume

from .request import size

#: Loaded models that are kept; one to run, one to go back to.
KEPT = 2
#: Endings by which a dropped file is taken for a checkpoint.
CHECKPOINT_ENDINGS = (
    ".safetensors",
    ".pth",
    ".pt",
    ".ckpt",
    ".pkl",
    ".tar",
    ".bin",
    ".model",
)


@dataclass(frozen=True)
class ModelFacts:
    """What the panel shows of a model.

    Attributes
    ----------
    name : str
        Bundled name or path, as chosen.
    in_channels : int
        Number of input channels.
    channel_names : tuple of str
        One a channel, or empty.
    classes : tuple of str
        Names, the background first.
    gates : int
        Number of attention gates.
    card : ModelCard or None
        What it expects of a volume; None if it cannot be used.
    stride : tuple of int
        Multiples to which volumes are padded.
    architecture : str
        Name of the network.
    about : str
        What the card says of it, for a tip: description, training data, limits, assumptions.
    error : str
        Why it cannot be used; empty if it can.
    """

    name: str
    in_channels: int = 1
    channel_names: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    gates: int = 0
    card: ModelCard | None = None
    stride: Shape3 = (1, 1, 1)
    architecture: str = ""
    about: str = ""
    error: str = ""

    @property
    def summary(self) -> str:
        """One line: channels, classes, gates, and how much was assumed of the file."""
        channels = "" if self.in_channels == 1 else f"{self.in_channels} channels · "
        names = ", ".join(self.classes[1:]) or "no classes"
        gates = {0: "no attention gate", 1: "1 gate"}.get(self.gates, f"{self.gates} gates")
        assumed = f" · {n} assumed" if self.card and (n := len(self.card.assumptions)) else ""
        return f"{channels}{names} · {gates}{assumed}"

    def problem_with(self, volume: Volume) -> str:
        """Why a volume cannot be run, by what its shape says; empty if it can."""
        if self.card is None:
            return self.error
        if volume.channels != self.in_channels:
            plural = "s" if self.in_channels != 1 else ""
            return (
                f"{ModelStore.title(self.name)} takes {self.in_channels} channel{plural}; "
                f"'{volume.name}' has {volume.channels}. Choose another image or another model."
            )
        # both import torch, which is there once a model is
        from napari_attention_unet.checks import check_size, check_volume
        from napari_attention_unet.frame import frame_for

        try:
            check_volume(volume, self.card)
            check_size(frame_for(volume, self.card, self.stride), self.stride)
        except InputError as error:
            return str(error)
        return ""


class ModelStore:
    """Loads models, each file once until it changes on disk; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, int, int], Any] = OrderedDict()

    @staticmethod
    def title(name: str) -> str:
        """What a model is called on the screen: its bundled name, or the file's name."""
        return name if name in bundled_models() else Path(name).name

    def get(self, name: str) -> Any:
        """The model of that name, loaded if it is not yet.

        Raises
        ------
        AttentionUNetError
            If it cannot be opened.
        """
        from napari_attention_unet.predict import load_model

        key = _key(name)
        with self._lock:
            model = self._kept.get(key)
            if model is None:
                model = load_model(name)
            self._kept[key] = model
            self._kept.move_to_end(key)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            return model

    def clear(self) -> None:
        """Let go of all models."""
        with self._lock:
            self._kept.clear()


def _key(name: str) -> tuple[str, int, int]:
    path = resolve(name)
    try:
        stat = path.stat()
    except OSError:
        return str(path), 0, 0
    return str(path), stat.st_mtime_ns, stat.st_size


class Prefetch(QObject):
    """Loads the chosen model on a worker thread and says what it is; the latest choice counts."""

    described = Signal(object)  #: `ModelFacts` of the chosen model
    devices_found = Signal(object)  #: list of (title, name)

    def __init__(self, models: ModelStore, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._models = models
        self._wanted = ""
        self._stop = threading.Event()

    def choose(self, name: str) -> None:
        """Load the model of that name and emit `described`, unless another is chosen meanwhile."""
        self._wanted = name
        worker = self._worker(f"Attention U-Net: reading {self._models.title(name)}", _describe)(
            name
        )
        worker.returned.connect(self._on_described)
        worker.start()

    def find_devices(self) -> None:
        """Look for devices and emit `devices_found`."""
        worker = self._worker("Attention U-Net: looking for devices", _devices)("")
        worker.returned.connect(self.devices_found)
        worker.start()

    def close(self) -> None:
        """Drop whatever is still to come."""
        self._wanted = ""
        self._stop.set()
        self.blockSignals(True)

    def _worker(self, title: str, function: Any) -> Any:
        from .worker import start_worker

        return lambda name: start_worker(title, function, name, self._models, self._stop)

    def _on_described(self, facts: ModelFacts) -> None:
        if facts.name == self._wanted:
            self.described.emit(facts)


def _describe(
    name: str, models: ModelStore, stop: threading.Event
) -> Generator[None, None, ModelFacts]:
    from .worker import explain

    yield
    try:
        model = models.get(name)
    except Exception as error:  # whatever it is, the panel says it
        return ModelFacts(name, error=explain(error)[0])
    card = model.card
    about = [
        f"{model.architecture}: {card.description}".strip(": "),
        card.training_data,
        card.limits,
        *(f"Assumed: {text}" for text in card.assumptions),
    ]
    return ModelFacts(
        name,
        in_channels=model.in_channels,
        channel_names=tuple(card.channel_names),
        classes=tuple(c.name for c in model.classes),
        gates=len(model.gates),
        card=card,
        stride=model.stride,
        architecture=model.architecture,
        about="\n".join(text for text in about if text),
    )


def _devices(
    _name: str, _models: ModelStore, stop: threading.Event
) -> Generator[None, None, list[tuple[str, str]]]:
    from napari_attention_unet.engine.device import devices

    yield
    found = devices()
    listed = [(f"{d.label} · {size(d.free)} free", d.name) for d in found]
    best = f"auto: {found[0].label.split(',')[0]} · {size(found[0].free)} free"
    return [(best, "auto"), *listed]
