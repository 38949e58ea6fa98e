"""Run a network as planned; where that fails, run it in a way that does not."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from napari_attention_unet.engine.device import release
from napari_attention_unet.engine.plan import Plan, make_plan, memory_budget
from napari_attention_unet.engine.tiles import run_tiles
from napari_attention_unet.engine.whole import Progress, Run, run_whole
from napari_attention_unet.errors import MemoryBudgetError
from napari_attention_unet.graph.lower import Program
from napari_attention_unet.volume import Shape3

#: Gives the network lowered for a device and precision.
Lowered = Callable[[torch.device, torch.dtype], Program]


@dataclass
class Course:
    """How a volume is being run, and why.

    Attributes
    ----------
    program : Program
        Network, device and precision.
    plan : Plan
        Whole or tiles.
    notes : list of str
        What was changed on the way, a sentence each.
    """

    program: Program
    plan: Plan
    notes: list[str] = field(default_factory=list)


def run(
    course: Course, x: Tensor, lowered: Lowered, imposed: Mapping[str, Tensor] | None = None
) -> Generator[Progress | Plan, None, dict[str, Tensor]]:
    """Run a network over a volume, and keep to what memory and precision allow.

    Where memory runs out, the slab or the exact tile at hand is halved and what was computed is
    kept; where that does not help, the volume is run in smaller tiles, then on the CPU. Where
    reduced precision gives a number that is not finite, the volume is run in float32.

    Parameters
    ----------
    course : Course
        To begin with; it is changed as the run changes.
    x : Tensor, shape (1, channel, z, y, x), float32
        On the CPU, spatial sizes multiples of the stride.
    lowered : callable
        Where another device or precision comes from.
    imposed : dict of str to Tensor, optional
        See `run_whole`.

    Yields
    ------
    Progress or Plan
        A plan where the run begins again with another one.

    Returns
    -------
    dict of str to Tensor
        See `run_whole`.

    Raises
    ------
    MemoryBudgetError
        If memory runs out on the last rung.
    """
    while True:
        results = yield from _attempt(course, x, imposed or {})
        if isinstance(results, dict):
            output = results[course.program.graph.output]
            if course.program.dtype == torch.float32 or bool(output.isfinite().all()):
                return results
            del results, output
            _widen(course, x, lowered, imposed or {})
        else:
            _descend(course, x, lowered, imposed or {}, results)
        yield Progress(0.0, course.notes[-1])
        yield course.plan


def _attempt(
    course: Course, x: Tensor, imposed: Mapping[str, Tensor]
) -> Generator[Progress | Plan, None, dict[str, Tensor] | str]:
    """Results, or in words why memory ran out."""
    try:
        results = yield from _as_planned(course, x, imposed)
    except MemoryBudgetError as error:
        # the error itself must go: it holds the frames, and they hold the tensors
        return str(error)
    return results


def _as_planned(course: Course, x: Tensor, imposed: Mapping[str, Tensor]) -> Run:
    if course.plan.tiling is not None:
        return run_tiles(course.program, x, course.plan.tiling, imposed)
    return run_whole(course.program, x, imposed)


def _widen(course: Course, x: Tensor, lowered: Lowered, imposed: Mapping[str, Tensor]) -> None:
    name = str(course.program.dtype).removeprefix("torch.")
    course.program = lowered(course.program.device, torch.float32)
    budget = memory_budget(course.program.device)
    course.plan = make_plan(course.program, _extent(x), budget, imposed=imposed)
    course.notes.append(f"{name} overflowed in this network; run again in float32.")


def _descend(
    course: Course, x: Tensor, lowered: Lowered, imposed: Mapping[str, Tensor], failure: str
) -> None:
    """The next rung of the ladder."""
    device = course.program.device
    release(device)
    try:
        course.plan = make_plan(
            course.program, _extent(x), course.plan.memory // 2, "tiles", imposed
        )
        course.notes.append(f"Memory ran out on '{device}'; run again in smaller tiles.")
        return
    except MemoryBudgetError:
        if device.type == "cpu":
            raise MemoryBudgetError(failure) from None
    cpu = torch.device("cpu")
    course.program = lowered(cpu, torch.float32)
    course.plan = make_plan(course.program, _extent(x), memory_budget(cpu), imposed=imposed)
    course.notes.append(f"Memory ran out on '{device}'; run again on the CPU.")


def _extent(x: Tensor) -> Shape3:
    return x.shape[2], x.shape[3], x.shape[4]
