"""Work on a thread of its own that is no run: measuring, overlays, interventions, histories."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_attention_unet.prediction import Step

from .request import Progress
from .worker import REPORT_EVERY, explain, start_worker

_LOG = logging.getLogger(__name__)

Work = Callable[..., Generator[Step, None, Any]]


@dataclass(frozen=True)
class Ended:
    """How a job ended: with a result, with an error, or cancelled (neither).

    Attributes
    ----------
    generation : int
        Of the job.
    result : object
        What the generator returned; None unless it came to its end.
    error, details : str
        As in `request.Answer`.
    seconds : float
        How long it took.
    cancelled : bool
        Whether it was stopped.
    """

    generation: int
    result: Any = None
    error: str = ""
    details: str = ""
    seconds: float = 0.0
    cancelled: bool = False


class Job(QObject):
    """Runs one generator of steps at a time; the latest counts, what an older one says is dropped.

    Signals reach the thread of this object.
    """

    progressed = Signal(object)  #: a `Progress`
    ended = Signal(object)  #: an `Ended`

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._generation = 0
        self._stop: threading.Event | None = None

    @property
    def busy(self) -> bool:
        """Whether something is under way whose result is still wanted."""
        return self._stop is not None

    @property
    def cancelling(self) -> bool:
        """Whether it was told to stop and has not answered yet."""
        return self._stop is not None and self._stop.is_set()

    def start(self, title: str, work: Work, *args: Any) -> None:
        """Start; what is under way is stopped and its result dropped.

        Parameters
        ----------
        title : str
            Shown in napari's list of tasks.
        work : callable
            A module's own function (what a closure holds would outlive the work) that gives a
            generator of `Step`, which returns the result.
        *args
            For `work`.
        """
        self.abandon()
        self._stop = threading.Event()
        worker = start_worker(
            f"Attention U-Net: {title}", _follow, work, args, self._generation, self._stop
        )
        worker.yielded.connect(self._on_progress)
        worker.returned.connect(self._on_ended)
        worker.errored.connect(self._on_error)
        worker.start()

    def cancel(self) -> None:
        """Ask it to stop; it answers within a step."""
        if self._stop is not None:
            self._stop.set()

    def abandon(self) -> None:
        """Stop it and drop whatever it answers."""
        self.cancel()
        self._stop = None
        self._generation += 1

    def _on_progress(self, progress: Progress) -> None:
        if progress.generation == self._generation:
            self.progressed.emit(progress)

    def _on_ended(self, ended: Ended) -> None:
        if ended.generation == self._generation:
            self._stop = None
            self.ended.emit(ended)

    def _on_error(self, error: Exception) -> None:  # a defect in `_follow` itself
        _LOG.error("a job failed", exc_info=error)
        self._on_ended(Ended(self._generation, error=f"{type(error).__name__}: {error}"))


def _follow(
    work: Work, args: tuple[Any, ...], generation: int, stop: threading.Event
) -> Generator[Progress, None, Ended]:
    """Go through the steps until the end or until it is stopped; never raises."""
    started = time.perf_counter()
    steps: Generator[Step, None, Any] | None = None
    try:
        yield Progress(generation, None, "Starting")
        steps = work(*args)
        reported = 0.0
        while not stop.is_set():
            try:
                step = next(steps)
            except StopIteration as end:
                return Ended(generation, end.value, seconds=time.perf_counter() - started)
            now = time.perf_counter()
            if now - reported >= REPORT_EVERY:
                reported = now
                yield _progress(generation, step, now - started)
        return Ended(generation, seconds=time.perf_counter() - started, cancelled=True)
    except Exception as error:  # whatever it is, the panel says it
        sentence, details = explain(error)
        error.__traceback__ = None  # it holds the frames, and they the tensors
        seconds = time.perf_counter() - started
        return Ended(generation, error=sentence, details=details, seconds=seconds)
    finally:
        if steps is not None:
            steps.close()


def _progress(generation: int, step: Step, elapsed: float) -> Progress:
    if not step.total:
        return Progress(generation, None, step.message)
    done = step.done / step.total
    left = elapsed * (1 - done) / done if done > 0.02 and elapsed > 0.5 else None
    return Progress(generation, done, step.message, left)
