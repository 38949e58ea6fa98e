"""A run to compare others with, kept so that the network can be run again with other gates.

What the part of the network downstream of the gates reads is kept in memory where that fits, so
that a change of a gate costs only what depends on it. Where it does not fit, or the settings ask
for tiles, streams or mirrored runs, every change is a run of its own.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from torch import Tensor

from napari_attention_unet.engine.device import GIB
from napari_attention_unet.engine.plan import Plan, make_plan, memory_budget
from napari_attention_unet.engine.recompute import Kept, run_again, run_keeping, worth_keeping
from napari_attention_unet.engine.run import Course
from napari_attention_unet.engine.whole import Progress
from napari_attention_unet.errors import MemoryBudgetError, NotFiniteError
from napari_attention_unet.graph.lower import Program
from napari_attention_unet.graph.operations import Operation
from napari_attention_unet.job import Job, job_for
from napari_attention_unet.model import Model
from napari_attention_unet.predict import predict_steps
from napari_attention_unet.prediction import Prediction, Step
from napari_attention_unet.preprocess import prepare
from napari_attention_unet.settings import Settings
from napari_attention_unet.volume import Shape3

from .network import prediction_of
from .steps import predicted

T = TypeVar("T")
#: Shares of a run's time: reading the volume, and labelling its voxels.
_READING, _LABELLING = 0.03, 0.12


@dataclass(frozen=True, eq=False)
class Baseline:
    """A model, a volume and how it is run, with what the network gives unchanged.

    Attributes
    ----------
    model : Model
    volume : Volume or array
        As it was passed.
    settings : Settings
        Without forced gates.
    prediction : Prediction
        With every gate as computed.
    kept : Kept or None
        Values from which changed runs start; None where each change is a full run.
    note : str
        How changes are computed and what is held in memory for it, for the person at the screen.
    """

    model: Model
    volume: Any
    settings: Settings
    prediction: Prediction
    kept: Kept | None
    note: str

    @property
    def held(self) -> int:
        """Bytes that are held for changed runs."""
        return 0 if self.kept is None else self.kept.bytes


def baseline_steps(
    model: Model,
    volume: Any,
    settings: Settings | None = None,
    *,
    keep: float | None = None,
    **options: Any,
) -> Generator[Step, None, Baseline]:
    """Run a model on a volume as it is, as a base for changed runs.

    Parameters
    ----------
    model, volume, settings, **options
        As of `predict`. Forced gates, `out` and `gate_dtype` are left aside.
    keep : float, optional
        GiB that may be held between runs; None takes what a run of the whole volume leaves of the
        memory that it may use, 0 makes every change a run of its own.

    Yields
    ------
    Step

    Returns
    -------
    Baseline

    Raises
    ------
    InputError, MemoryBudgetError
        As of `predict`.
    """
    chosen = replace(
        replace(settings or Settings(), **options), gates={}, out=None, gate_dtype="float32"
    )
    job = job_for(model, volume, chosen)
    yield Step(0.0, 1.0, "Preparing the network")
    names: list[str] | None = None
    reason = "the settings ask for another plan"
    if chosen.plan in ("auto", "whole") and not chosen.flips and chosen.tile is None:
        program = yield from _shared(model.program_steps(job.device, job.dtype), "Preparing")
        names, reason = _what_to_keep(job, program, keep)
    if names is not None:
        try:
            kept = yield from _keep(job, program, names)
            prediction = yield from _say(job, kept, kept.results)
        except MemoryBudgetError:
            reason = "memory ran out"
        except NotFiniteError:
            reason = f"{str(job.dtype).removeprefix('torch.')} overflowed in this network"
        else:
            note = f"What depends on a gate is computed anew; {_size(kept.bytes)} are held."
            return Baseline(model, volume, chosen, prediction, kept, note)
    prediction = yield from predicted(predict_steps(model, volume, chosen))
    note = f"Every change is a run of its own: {reason}."
    return Baseline(model, volume, chosen, prediction, None, note)


def changed_steps(
    baseline: Baseline, gates: Mapping[str, Any]
) -> Generator[Step, None, Prediction]:
    """Run the network of a baseline with some gates imposed.

    Parameters
    ----------
    baseline : Baseline
        What to change.
    gates : mapping of str to float or array
        As `Settings.gates`.

    Returns
    -------
    Prediction
        As `predict` gives it for these gates.
    """
    settings = replace(baseline.settings, gates=gates)
    if baseline.kept is not None:
        job = job_for(baseline.model, baseline.volume, settings)
        kept = baseline.kept
        work = _work(kept.program, kept.operations(job.imposed), kept.extent)
        try:
            results = yield from _followed(run_again(kept, job.imposed), work, 0.0)
            return (yield from _say(job, kept, results))
        except (MemoryBudgetError, NotFiniteError):
            pass  # a run of its own knows how to do with less, and with more precision
    return (yield from predicted(predict_steps(baseline.model, baseline.volume, settings)))


def _what_to_keep(job: Job, program: Program, keep: float | None) -> tuple[list[str] | None, str]:
    """Names of values, or None and why."""
    budget = memory_budget(job.device, job.settings.memory)
    try:
        plan = make_plan(program, job.frame.padded, budget, "whole")
    except MemoryBudgetError:
        return None, "the whole volume does not fit the memory at once"
    room = budget - plan.memory
    if keep is not None:
        room = min(room, int(keep * GIB))
    names = worth_keeping(program, job.frame.padded, room)
    return names, f"what it would need to hold is more than {_size(room)}"


def _keep(job: Job, program: Program, names: list[str]) -> Generator[Step, None, Kept]:
    """The base run."""
    read = prepare(job.volume, job.frame, job.normalization, job.model.card.padding_value)
    x = yield from _shared(read, "Reading the volume", 0.0, _READING)
    work = _work(program, program.operations, job.frame.padded)
    return (yield from _followed(run_keeping(program, x, names), work, _READING))


def _work(program: Program, operations: Sequence[Operation], extent: Shape3) -> float:
    shape_at = program.shape_at
    return sum(
        op.work(shape_at(op.name, extent), [shape_at(name, extent) for name in op.inputs])
        for op in operations
    )


def _say(job: Job, kept: Kept, results: Mapping[str, Tensor]) -> Generator[Step, None, Prediction]:
    """The prediction of a network's results."""
    yield Step(1 - _LABELLING, 1.0, "Labelling the voxels")
    plan = Plan("whole", "from values that were kept", kept.bytes, 0.0)
    return prediction_of(job, Course(kept.program, plan), results)


def _shared(
    work: Generator[float, None, T], message: str, start: float = 0.0, stop: float = 0.0
) -> Generator[Step, None, T]:
    """Follow a work that tells its share, as the part of a run from `start` to `stop`."""
    try:
        while True:
            yield Step(start + (stop - start) * next(work), 1.0, message)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        work.close()


def _followed(
    run: Generator[Progress, None, T], work: float, start: float
) -> Generator[Step, None, T]:
    """Follow an execution of so much work, from `start` to the labelling."""
    done, stop = 0.0, 1 - _LABELLING
    try:
        while True:
            progress = next(run)
            done = min(done + progress.work, work)
            share = done / work if work else 1.0
            message = f"Running the network: {progress.message}".rstrip(": ")
            yield Step(start + (stop - start) * share, 1.0, message)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        run.close()


def _size(count: int) -> str:
    return f"{max(count, 0) / GIB:.2g} GiB"
