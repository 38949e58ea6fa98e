"""The one path from a volume to a prediction."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from napari_attention_unet.checks import check_size, check_volume
from napari_attention_unet.engine.device import resolve_device, resolve_precision
from napari_attention_unet.engine.plan import Plan, check_wish, make_plan, memory_budget
from napari_attention_unet.engine.run import Course, run
from napari_attention_unet.errors import InputError
from napari_attention_unet.frame import Frame, frame_for
from napari_attention_unet.graph.geometry import grid_of
from napari_attention_unet.model import Model, load_model
from napari_attention_unet.models.card import Normalization
from napari_attention_unet.postprocess import Answer, answer, largest_component
from napari_attention_unet.prediction import GateMap, Prediction, Step
from napari_attention_unet.preprocess import (
    prepare,
    resolve_normalization,
)
from napari_attention_unet.provenance import provenance_of, write_group
from napari_attention_unet.settings import Settings
from napari_attention_unet.volume import Volume

__all__ = ["Model", "Settings", "load_model", "predict", "predict_steps"]

T = TypeVar("T")

#: Work (see `Operation.work`) in the time in which a voxel is read and normalised, or labelled.
_READING, _LABELLING = 1e4, 5e3


def predict(
    model: Model, volume: Any, settings: Settings | None = None, **options: Any
) -> Prediction:
    """Run a model on a volume.

    Parameters
    ----------
    model : Model
        As `load_model` gives it.
    volume : array, shape (z, y, x) or (channel, z, y, x), or Volume
        numpy, dask or zarr, any real dtype and byte order.
    settings : Settings, optional
        How to run it.
    **options
        Fields of `Settings` by name, such as ``device="cpu"``; they go before `settings`.

    Returns
    -------
    Prediction
        Mask, gates and, where asked for, probabilities and logits, all in voxels of `volume`.

    Raises
    ------
    InputError
        If the volume or an option cannot be used; the message says what would work.
    MemoryBudgetError
        If no way of running it fits the memory.

    Examples
    --------
    >>> model = load_model("brain-t1")  # doctest: +SKIP
    >>> prediction = predict(model, volume, spacing=(1, 1, 1))  # doctest: +SKIP
    """
    prediction = None
    for step in predict_steps(model, volume, settings, **options):
        prediction = step.prediction
    assert prediction is not None
    return prediction


def predict_steps(
    model: Model, volume: Any, settings: Settings | None = None, **options: Any
) -> Generator[Step, None, None]:
    """Run a model on a volume in small steps, so that the run can be followed and stopped.

    Parameters and errors are those of `predict`; options and the volume's shape are checked at
    once, its voxels in the first steps. Closing the generator stops the run and frees its memory.

    Yields
    ------
    Step
        ``done`` goes evenly from 0 to ``total``; the last step carries the prediction.
    """
    chosen = replace(settings or Settings(), **options)
    return _steps(job_for(model, volume, chosen))


@dataclass(frozen=True)
class Job:
    """All that is settled before a run starts.

    Attributes
    ----------
    imposed : dict of str to Tensor
        Forced gates by node, shape (1, 1, z, y, x) on the network's grid, NaN where computed.
    """

    model: Model
    volume: Volume
    settings: Settings
    frame: Frame
    device: torch.device
    dtype: torch.dtype
    normalization: Normalization
    activation: str
    imposed: dict[str, Tensor]


def job_for(model: Model, volume: Any, settings: Settings) -> Job:
    """Settle what a run needs, and refuse what cannot be run; see `predict`."""
    if not isinstance(model, Model):
        raise InputError(f"model is a {type(model).__name__}; pass what load_model gives.")
    volume = _as_volume(volume, settings)
    card = model.card
    check_volume(volume, card)
    check_wish(settings.plan)
    frame = frame_for(volume, card, model.stride)
    check_size(frame, model.stride)
    activation = card.activation if settings.activation == "card" else settings.activation
    if activation == "softmax" and model.graph.out_channels == 1:
        raise InputError("The softmax of one channel is always 1; use activation='sigmoid'.")
    device = resolve_device(settings.device)
    return Job(
        model=model,
        volume=volume,
        settings=settings,
        frame=frame,
        device=device,
        dtype=resolve_precision(settings.precision, device),
        normalization=resolve_normalization(settings.normalize, card),
        activation=activation,
        imposed=_imposed(model, frame, settings),
    )


def _as_volume(volume: Any, settings: Settings) -> Volume:
    if isinstance(volume, Tensor):
        volume = volume.detach().cpu().numpy()
    made: Volume = volume if isinstance(volume, Volume) else Volume.from_array(volume)
    if settings.spacing is not None:
        z, y, x = (float(s) for s in settings.spacing)
        made = made.replace(spacing=(z, y, x))
    return made


def _imposed(model: Model, frame: Frame, settings: Settings) -> dict[str, Tensor]:
    gates = {gate.name: gate for gate in model.gates}
    made = {}
    for name, value in settings.gates.items():
        if name not in gates:
            known = ", ".join(map(repr, gates)) or "none"
            raise InputError(f"There is no gate '{name}' to force; the gates are: {known}.")
        node = gates[name].node
        shape = model.graph.shape_at(node, frame.padded)
        array = np.asarray(value, dtype=np.float32)
        if array.ndim == 0:
            if not np.isfinite(array):
                raise InputError(f"The gate '{name}' cannot be forced to {value}; give a number.")
            made[node] = torch.full(shape, float(array))
            continue
        grid = grid_of(model.graph, node, frame.padded)
        size = (shape[2], shape[3], shape[4])
        full = frame.place_back(array, size, grid.scale, grid.translate)
        made[node] = torch.from_numpy(full)[None, None]
    return made


class _Meter:
    """How far a run is: work that is done of a total that stays what it was at the start."""

    def __init__(self) -> None:
        self.done, self.total, self._scale = 0.0, 1.0, 1.0

    def expect(self, work: float) -> None:
        """So much is still to be done."""
        if self.done == 0:
            self.total = work
        self._scale = (self.total - self.done) / work

    def step(self, work: float, message: str) -> Step:
        """So much more is done."""
        self.done = min(self.done + work * self._scale, self.total)
        return Step(self.done, self.total, message)


def _steps(job: Job) -> Generator[Step, None, None]:
    model, frame = job.model, job.frame
    meter, started = _Meter(), perf_counter()
    yield meter.step(0.0, "Preparing the network")
    lowering = model.program_steps(job.device, job.dtype)
    program = yield from _metered(lowering, meter, 0.0, "Preparing the network")
    budget = memory_budget(job.device, job.settings.memory)
    plan = make_plan(program, frame.padded, budget, job.settings.plan, job.imposed)
    course = Course(program, plan)
    if not model.gates:
        course.notes.append("This network has no attention gates: there is a mask alone.")
    reading = _READING * np.prod(job.volume.data.shape)
    labelling = _LABELLING * np.prod(frame.turned) * model.graph.out_channels
    meter.expect(reading + plan.work + labelling)
    clock = {"preparing": perf_counter() - started}

    began = perf_counter()
    read = prepare(job.volume, frame, job.normalization, model.card.padding_value)
    x = yield from _metered(read, meter, reading, "Reading the volume")
    clock["reading"], began = perf_counter() - began, perf_counter()
    results = yield from _network(job, course, x, meter, labelling)
    del x
    clock["network"], began = perf_counter() - began, perf_counter()
    gates = _gate_maps(job, results)
    output = results.pop(model.graph.output)
    del results
    say = answer(output, frame, job.activation, job.settings, len(model.classes))
    found = yield from _metered(say, meter, labelling, "Labelling the voxels")
    del output
    if job.settings.keep_largest:
        yield meter.step(0.0, "Keeping the largest component")
        found = replace(found, mask=largest_component(found.mask))
    clock["labelling"], clock["total"] = perf_counter() - began, perf_counter() - started
    prediction = _prediction(job, course, found, gates, clock)
    if job.settings.out is not None:
        yield meter.step(0.0, "Writing")
        write_group(job.settings.out, prediction)
    yield Step(meter.total, meter.total, "Done", prediction)


def _metered(
    work: Generator[float, None, T], meter: _Meter, amount: float, message: str
) -> Generator[Step, None, T]:
    """Follow a work that tells its share."""
    share = 0.0
    try:
        while True:
            now = next(work)
            yield meter.step((now - share) * amount, message)
            share = now
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        work.close()


def _network(
    job: Job, course: Course, x: Tensor, meter: _Meter, after: float
) -> Generator[Step, None, dict[str, Tensor]]:
    yield meter.step(0.0, f"Running {course.plan.kind}: {course.plan.reason}")
    work = run(course, x, job.model.program, job.imposed)
    try:
        while True:
            done = next(work)
            if isinstance(done, Plan):
                meter.expect(done.work + after)
                yield meter.step(0.0, f"Running {done.kind}: {done.reason}")
            else:
                yield meter.step(done.work, f"Running the network: {done.message}".rstrip(": "))
    except StopIteration as end:
        results: dict[str, Tensor] = end.value
        return results
    finally:
        work.close()


def _gate_maps(job: Job, results: dict[str, Tensor]) -> tuple[GateMap, ...]:
    made = []
    for gate in job.model.gates:
        grid = grid_of(job.model.graph, gate.node, job.frame.padded)
        values = results[gate.node][0, 0].numpy()
        placed, scale, translate = job.frame.place(values, grid.scale, grid.translate)
        z, y, x = (grid.scale[job.frame.axes.index(axis)] for axis in range(3))
        made.append(
            GateMap(
                name=gate.name,
                coefficients=placed,
                scale=scale,
                translate=translate,
                kind=gate.kind,
                stride=(z, y, x),
                forced=gate.node in job.imposed,
            )
        )
    return tuple(made)


def _prediction(
    job: Job, course: Course, found: Answer, gates: tuple[GateMap, ...], clock: dict[str, float]
) -> Prediction:
    return Prediction(
        mask=found.mask,
        gates=gates,
        classes=job.model.classes,
        volume=job.volume.without_data(),
        probabilities=found.probabilities,
        logits=found.logits,
        provenance=provenance_of(
            job.model, job.settings, job.volume, job.frame, course, gates, clock
        ),
    )
