"""One run at a time on a thread of its own; answers of an earlier run are dropped."""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial
from typing import Any

import psutil
from napari.qt.threading import GeneratorWorker, create_worker
from qtpy.QtCore import QObject, Signal

from napari_attention_unet.errors import AttentionUNetError
from napari_attention_unet.prediction import Prediction, Region

from .models import ModelStore
from .request import Answer, Progress, Request, together

_LOG = logging.getLogger(__name__)

#: Progress reaches the screen this often at most, in seconds.
REPORT_EVERY = 0.1


class Runner(QObject):
    """Runs requests on a worker thread, the latest alone; signals reach the thread of this object.

    The thread is napari's generator worker, so napari knows of it and asks before it closes. It
    polls an event of its own and returns normally: napari keeps a worker's ``quit`` for ever, and
    with a generator that was merely abandoned it would keep the tensors in its frame as well.
    """

    progressed = Signal(object)  #: a `Progress`
    answered = Signal(object)  #: an `Answer`

    def __init__(self, models: ModelStore, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._models = models
        self._generation = 0
        self._stop: threading.Event | None = None
        self._telling = False
        self._region: Region | None = None

    @property
    def busy(self) -> bool:
        """Whether a run is under way whose answer is still wanted."""
        return self._stop is not None

    @property
    def cancelling(self) -> bool:
        """Whether the run was told to stop and has not answered yet."""
        return self._stop is not None and self._stop.is_set()

    def start(self, request: Request) -> int:
        """Start a run; one that is under way is stopped and its answer dropped.

        Returns
        -------
        int
            Generation of the run.
        """
        self.abandon()
        self._generation += 1
        self._stop = threading.Event()
        worker = start_worker(
            f"Attention U-Net: {request.volumes[0].name} with {request.model}",
            run,
            request,
            self._models,
            self._generation,
            self._stop,
        )
        worker.yielded.connect(self._on_progress)
        worker.returned.connect(self._on_answer)
        worker.errored.connect(self._on_error)
        worker.start()
        return self._generation

    def cancel(self) -> None:
        """Ask the run to stop; it answers within a step."""
        if self._stop is not None:
            self._stop.set()

    def abandon(self) -> None:
        """Stop the run and drop whatever it answers."""
        self.cancel()
        self._stop = None
        self._region = None
        self._generation += 1

    def _on_progress(self, progress: Progress) -> None:
        if progress.generation != self._generation:
            return
        progress = replace(progress, region=together(self._region, progress.region))
        if self._telling:  # napari's progress bar serves the event loop in the middle of it
            self._region = progress.region
            return
        self._telling, self._region = True, None
        try:
            self.progressed.emit(progress)
        finally:
            self._telling = False

    def _on_answer(self, answer: Answer) -> None:
        if answer.generation == self._generation:
            self._stop = None
            self.answered.emit(answer)

    def _on_error(self, error: Exception) -> None:  # a defect in `run` itself
        _LOG.error("the run failed", exc_info=error)
        if self._stop is not None:
            self._on_answer(Answer(self._generation, error=f"{type(error).__name__}: {error}"))


class _Worker(GeneratorWorker):  # type: ignore[misc]
    """A generator worker whose `quit` asks the generator to return instead of abandoning it."""

    def __init__(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(func, *args, **kwargs)
        self._stop = next(a for a in args if isinstance(a, threading.Event))

    def quit(self) -> None:
        """Ask the generator to return."""
        self._stop.set()


class _Task(partial[Any]):
    """A function that napari's list of tasks shows by a name for people."""

    title = ""

    def __repr__(self) -> str:
        return self.title

    __str__ = __repr__


def start_worker(title: str, function: Callable[..., Any], *args: Any) -> Any:
    """A worker, not yet started, for a generator function that takes a `threading.Event`.

    The function must be a module's own: what a closure holds would outlive the run.
    """
    task = _Task(function)
    task.title = title
    return create_worker(task, *args, _worker_class=_Worker, _start_thread=False)


def run(
    request: Request, models: ModelStore, generation: int, stop: threading.Event
) -> Generator[Progress, None, Answer]:
    """Load the model, run every volume, measure the gates; never raises.

    Yields
    ------
    Progress
        Every `REPORT_EVERY` seconds at most.

    Returns
    -------
    Answer
    """
    started = time.perf_counter()
    steps: Generator[Progress, None, Answer] | None = None
    sofar = _SoFar()
    try:
        yield Progress(generation, None, f"Reading {models.title(request.model)}")
        steps = _steps(request, models, generation, sofar)
        reported, region = 0.0, None
        while not stop.is_set():
            try:
                progress = next(steps)
            except StopIteration as end:
                answer: Answer = end.value
                return answer
            region = together(region, progress.region)
            now = time.perf_counter()
            if now - reported >= REPORT_EVERY:
                reported = now
                yield replace(progress, region=region)
                region = None
        return replace(_cancelled(generation, steps, started), partial=sofar.predictions)
    except Exception as error:  # whatever it is, the panel says it
        seconds = time.perf_counter() - started
        sentence, details = explain(error)
        error.__traceback__ = None  # it holds the frames, and they the tensors
        return Answer(
            generation,
            error=sentence,
            details=details,
            seconds=seconds,
            partial=sofar.predictions,
        )
    finally:
        if steps is not None:
            steps.close()


class _SoFar:
    """What a run computed of its volumes."""

    def __init__(self) -> None:
        self.done: list[Prediction] = []
        self.growing: Prediction | None = None

    @property
    def predictions(self) -> tuple[Prediction, ...]:
        """Of volumes that are done, and of the one that is run if any of it is there."""
        growing = () if self.growing is None else (self.growing,)
        return (*self.done, *growing)


def _steps(
    request: Request, models: ModelStore, generation: int, sofar: _SoFar
) -> Generator[Progress, None, Answer]:
    from napari_attention_unet.inspect.measures import gate_measures
    from napari_attention_unet.predict import predict_steps

    model = models.get(request.model)
    started = time.perf_counter()
    predictions, measures = [], []
    count = len(request.volumes)
    for index, volume in enumerate(request.volumes):
        prefix = f"Time point {index + 1} of {count}: " if count > 1 else ""
        prediction = None
        for step in predict_steps(model, volume, request.settings):
            prediction = step.prediction
            if step.region is not None:
                sofar.growing = step.region.partial
            done = (index + step.done / max(step.total, 1e-9)) / count
            elapsed = time.perf_counter() - started
            left = elapsed * (1 - done) / done if done > 0.02 and elapsed > 0.5 else None
            yield Progress(generation, done, prefix + step.message, left, step.region, index)
        assert prediction is not None
        yield Progress(generation, (index + 1) / count, prefix + "Measuring the gates")
        measures.append(tuple(gate_measures(prediction)))
        predictions.append(prediction)
        sofar.done, sofar.growing = predictions, None
    seconds = time.perf_counter() - started
    return Answer(generation, tuple(predictions), tuple(measures), seconds=seconds)


def _cancelled(generation: int, steps: Generator[Progress, None, Answer], started: float) -> Answer:
    process = psutil.Process()
    before = process.memory_info().rss
    steps.close()
    freed = max(0, before - process.memory_info().rss)
    return Answer(generation, seconds=time.perf_counter() - started, freed=freed)


def explain(error: BaseException) -> tuple[str, str]:
    """One sentence for the panel, and the traceback where the error was not foreseen."""
    if isinstance(error, AttentionUNetError):
        return str(error), ""
    if _is_out_of_memory(error):
        return (
            "Out of memory: close other programs, run a smaller region, or set a memory budget "
            "under Advanced so that the volume is run in tiles."
        ), ""
    if isinstance(error, OSError) and "torch" in str(error):
        return (
            f"PyTorch could not be loaded ({error}). On Windows start napari with "
            "'python -c \"import torch, napari; napari.Viewer(); napari.run()\"', or install the "
            "Microsoft Visual C++ redistributable."
        ), ""
    details = "".join(traceback.format_exception(error))
    _LOG.error("unexpected error", exc_info=error)
    return f"Unexpected error, {type(error).__name__}: {error}", details


def _is_out_of_memory(error: BaseException) -> bool:
    if "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from napari_attention_unet.engine.device import is_out_of_memory

    return is_out_of_memory(error)
