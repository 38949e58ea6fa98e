"""The chosen model, read and changed on a worker thread; what it is comes back as `ModelFacts`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_attention_unet.errors import TrustRequired
from napari_attention_unet.models import ClassInfo

from .models import ModelFacts, ModelStore
from .request import size

#: A change of what is known of a model; gives a sentence for the person, or none.
_Change = Callable[[], str]


class Prefetch(QObject):
    """Loads the chosen model on a worker thread and says what it is; the latest word counts."""

    described = Signal(object)  #: `ModelFacts` of the chosen model
    devices_found = Signal(object)  #: list of (title, name)

    def __init__(self, models: ModelStore, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._models = models
        self._generation = 0
        self._stop = threading.Event()

    def choose(self, name: str) -> None:
        """Load the model of that name and emit `described`, unless another is chosen meanwhile."""
        self._start(name, None)

    def state(self, name: str, option: str, value: Any) -> None:
        """Load it with this value of an option, and those that were said before."""
        self._start(name, partial(self._models.state, name, option, value))

    def name_network(self, name: str, architecture: str, arguments: Mapping[str, Any]) -> None:
        """Load it as a network of this Python class."""
        change = partial(self._models.name_network, name, architecture, dict(arguments))
        self._start(name, change)

    def name_classes(self, name: str, classes: Sequence[ClassInfo]) -> None:
        """Name and colour its classes."""
        self._start(name, partial(self._models.name_classes, name, tuple(classes)))

    def trust(self, name: str, question: TrustRequired) -> None:
        """Load it, as the person said that it may run its code."""
        self._start(name, partial(self._models.trust, name, question))

    def save_card(self, name: str) -> None:
        """Save its card beside the checkpoint."""
        self._start(name, partial(self._models.save_card, name))

    def forget(self, name: str) -> None:
        """Take back what the person said of it."""
        self._start(name, partial(self._models.forget, name))

    def find_devices(self) -> None:
        """Look for devices and emit `devices_found`."""
        from .worker import start_worker

        worker = start_worker("Attention U-Net: looking for devices", _devices, self._stop)
        worker.returned.connect(self.devices_found)
        worker.start()

    def close(self) -> None:
        """Drop whatever is still to come."""
        self._generation += 1
        self._stop.set()
        self.blockSignals(True)

    def _start(self, name: str, change: _Change | None) -> None:
        from .worker import start_worker

        self._generation += 1
        title = f"Attention U-Net: reading {self._models.title(name)}"
        worker = start_worker(
            title, _describe, name, change, self._models, self._generation, self._stop
        )
        worker.returned.connect(self._on_described)
        worker.start()

    def _on_described(self, answer: tuple[int, ModelFacts]) -> None:
        generation, facts = answer
        if generation == self._generation:
            self.described.emit(facts)


def _describe(
    name: str,
    change: _Change | None,
    models: ModelStore,
    generation: int,
    stop: threading.Event,
) -> Generator[None, None, tuple[int, ModelFacts]]:
    from .worker import explain

    yield
    try:
        notice = change() if change is not None else ""
        model = models.get(name)
    except TrustRequired as question:
        question.__traceback__ = None  # it holds the frames
        error = f"'{question.path.name}' is {question.what}, and has not been allowed to run."
        return generation, ModelFacts(name, error=error, question=question)
    except Exception as error:  # whatever it is, the panel says it
        return generation, ModelFacts(name, error=explain(error)[0])
    from napari_attention_unet.describe import describe

    return generation, ModelFacts(name, describe(model), notice=notice)


def _devices(stop: threading.Event) -> Generator[None, None, list[tuple[str, str]]]:
    from napari_attention_unet.engine.device import devices

    yield
    found = devices()
    listed = [(f"{d.label} · {size(d.free)} free", d.name) for d in found]
    best = f"auto: {found[0].label.split(',')[0]} · {size(found[0].free)} free"
    return [(best, "auto"), *listed]
