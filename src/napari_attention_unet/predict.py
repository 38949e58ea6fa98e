"""The one path from a volume to a prediction."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import replace
from math import prod
from time import perf_counter
from typing import Any, TypeVar

import numpy as np

from napari_attention_unet.collect import Collector, kinds_of
from napari_attention_unet.engine.device import remarks
from napari_attention_unet.engine.flips import passes, run_mirrored
from napari_attention_unet.engine.plan import Plan, make_plan, memory_budget
from napari_attention_unet.engine.planes import Planes
from napari_attention_unet.engine.run import Course, Steps, run
from napari_attention_unet.graph.lower import Program
from napari_attention_unet.job import Job, job_for
from napari_attention_unet.model import Model, load_model
from napari_attention_unet.postprocess import largest_component
from napari_attention_unet.prediction import Prediction, Step
from napari_attention_unet.preprocess import Prepared, measure
from napari_attention_unet.provenance import fingerprint_of, provenance_of
from napari_attention_unet.reader import Reader
from napari_attention_unet.settings import Settings
from napari_attention_unet.store import Store
from napari_attention_unet.targets import ArrayTarget, Target, bytes_of

__all__ = ["Job", "Model", "Settings", "job_for", "load_model", "predict", "predict_steps"]

T = TypeVar("T")

#: Work (see `Operation.work`) in the time in which a voxel is measured, or labelled.
_MEASURING, _LABELLING = 1e4, 5e3


def predict(
    model: Model, volume: Any, settings: Settings | None = None, **options: Any
) -> Prediction:
    """Run a model on a volume.

    Parameters
    ----------
    model : Model
        As `load_model` gives it.
    volume : array, shape (z, y, x) or (channel, z, y, x), or Volume
        numpy, dask or zarr, any real dtype and byte order; dask and zarr are read as the run needs
        them, so they may be larger than memory.
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
    OutputError
        If `Settings.out` cannot be written to; what was computed so far is kept there.

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
        ``done`` goes evenly from 0 to ``total``; the last step carries the prediction. Where the
        volume is streamed or run in tiles, steps carry what they finished as `Step.region`.
    """
    chosen = replace(settings or Settings(), **options)
    return _steps(job_for(model, volume, chosen))


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
    reader = Reader(job.volume, job.frame)
    try:
        yield from _Running(job, reader).steps()
    finally:
        reader.close()


class _Running:
    """One run, from the network's preparation to the prediction."""

    def __init__(self, job: Job, reader: Reader) -> None:
        self.job, self.reader, self.meter = job, reader, _Meter()
        self.kinds = kinds_of(job.model, job.frame, job.settings)
        self.labelling = _LABELLING * float(np.prod(job.frame.turned)) * job.model.out_channels
        self.clock: dict[str, float] = {}

    def steps(self) -> Generator[Step, None, None]:
        """See `predict_steps`."""
        job, meter, started = self.job, self.meter, perf_counter()
        yield meter.step(0.0, "Preparing the network")
        lowering = job.model.program_steps(job.device, job.dtype)
        program = yield from _metered(lowering, meter, 0.0, "Preparing the network")
        course = self._course(program)
        measuring = _MEASURING * float(np.prod(self.reader.shape))
        network = course.plan.work * len(passes(job.flips))
        meter.expect(measuring + network + self.labelling)
        self.clock["preparing"] = perf_counter() - started

        began = perf_counter()
        digest = job.settings.out is not None
        work = measure(self.reader, job.frame, job.normalization, digest=digest)
        measured = yield from _metered(work, meter, measuring, "Reading the volume")
        self.clock["reading"] = perf_counter() - began

        began = perf_counter()
        store = None
        if job.settings.out is not None:
            fingerprint = fingerprint_of(job, course, measured.digest)
            store = Store(job.settings.out, self.kinds, job.frame, fingerprint)
            if store.resumed:
                course.notes.append("An equal run had begun to write these results; it goes on.")
        targets: dict[str, Target] = {
            kind.name: store.targets[kind.name] if store else ArrayTarget(kind, job.frame)
            for kind in self.kinds
        }
        collector = Collector(job.model, job.frame, job.settings, job.activation, targets)
        planes = Prepared(self.reader, job.frame, measured, job.model.card.padding_value)
        prediction = self._prediction(course, targets, collector)
        yield from self._network(course, planes, collector, prediction)
        self.clock["network"] = perf_counter() - began
        if job.settings.keep_largest:
            yield meter.step(0.0, "Keeping the largest component")
            prediction = replace(prediction, mask=_largest(prediction.mask, store))
        self.clock["total"] = perf_counter() - started
        provenance = provenance_of(job, course, prediction.gates, self.clock)
        if store is not None:
            store.complete(provenance)
        prediction = replace(prediction, provenance=provenance)
        yield Step(meter.total, meter.total, "Done", prediction)

    def _course(self, program: Program) -> Course:
        """How the volume is run, with the memory that is left beside the input and the results."""
        job, held = self.job, 0
        if job.device.type == "cpu":
            held = self.reader.bytes
            if job.settings.out is None:
                held += sum(bytes_of(kind) for kind in self.kinds)
                held += self._sums if job.flips else 0
        budget = memory_budget(job.device, job.settings.memory)
        wish, tile = job.settings.plan, job.settings.tile
        plan = make_plan(program, job.frame.padded, budget, wish, job.imposed, held=held, tile=tile)
        course = Course(program, plan, memory=job.settings.memory, wish=wish, tile=tile)
        course.notes.extend(remarks(job.device, job.dtype))
        if not job.model.gates:
            course.notes.append("This network has no attention gates: there is a mask alone.")
        return course

    def _prediction(
        self, course: Course, targets: Mapping[str, Target], collector: Collector
    ) -> Prediction:
        """The result as far as it is; its arrays are filled in place."""
        job = self.job
        gates = collector.gate_maps(job.imposed)
        maps = {
            name: targets[name].array for name in ("probabilities", "logits") if name in targets
        }
        return Prediction(
            mask=targets["mask"].array,
            gates=gates,
            classes=job.model.classes,
            volume=job.volume.without_data(),
            provenance=provenance_of(job, course, gates, self.clock),
            **maps,
        )

    def _network(
        self, course: Course, planes: Planes, collector: Collector, partial: Prediction
    ) -> Generator[Step, None, None]:
        meter = self.meter
        yield meter.step(0.0, f"Running {course.plan.kind}: {course.plan.reason}")
        work = self._run(course, planes, collector)
        labelled = collector.share
        try:
            for done in work:
                if isinstance(done, Plan):
                    meter.expect(done.work + self.labelling * (1 - collector.share))
                    yield meter.step(0.0, f"Running {done.kind}: {done.reason}")
                    continue
                fresh, labelled = collector.share - labelled, collector.share
                step = meter.step(
                    done.work + self.labelling * fresh,
                    f"Running the network: {done.message}".rstrip(": "),
                )
                if course.plan.kind != "whole":
                    step = replace(step, region=collector.region(partial))
                yield step
        finally:
            work.close()

    def _run(self, course: Course, planes: Planes, collector: Collector) -> Steps:
        job = self.job
        lowered, imposed = job.model.program, job.imposed
        if not job.flips:
            return run(course, planes, collector, lowered, imposed)
        on_disk = job.settings.out is not None
        return run_mirrored(course, planes, collector, lowered, imposed, job.flips, on_disk=on_disk)

    @property
    def _sums(self) -> int:
        """Bytes of output and gates on the network's grid."""
        graph, padded = self.job.model.graph, self.job.frame.padded
        names = (graph.output, *(gate.node for gate in graph.gates))
        return sum(4 * prod(graph.shape_at(name, padded)) for name in names)


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


def _largest(mask: Any, store: Store | None) -> Any:
    kept = largest_component(np.asarray(mask))
    if store is None:
        return kept
    store.replace("mask", kept)
    return mask
