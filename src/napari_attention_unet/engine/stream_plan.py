"""How a volume is streamed: block sizes, cuts in the plane, and the memory that takes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import product
from math import prod

import torch

from napari_attention_unet.engine.stream_schedule import Buffer, Schedule, Scheduler
from napari_attention_unet.engine.stream_stages import (
    Group,
    Stages,
    make_stages,
    slides,
    unstreamable,
)
from napari_attention_unet.engine.tiling import Cut, Reach, exact_cuts
from napari_attention_unet.errors import MemoryBudgetError
from napari_attention_unet.graph.lower import Program
from napari_attention_unet.graph.operations import Operation
from napari_attention_unet.volume import Shape3

#: Blocks that are worth trying, the fastest first.
_BLOCKS = ((4, 500), (2, 500), (2, 200), (1, 300), (1, 100), (1, 1))
#: Planes beyond which a block gains nothing, however small they are.
_MOST = 16
#: Parts of an axis in the plane that are worth trying.
_PARTS = (1, 2, 3, 4, 6, 8, 12, 16)


@dataclass(frozen=True)
class Blocks:
    """How many planes are made at once.

    Attributes
    ----------
    planes : int
        At least so many.
    voxels : int
        And at least so many voxels: kernels are slow on small ones.
    """

    planes: int
    voxels: int

    def of(self, program: Program, group: Group, extent: Shape3) -> int:
        """Planes of a group."""
        op = group.actions[0].op
        name = op.inputs[0] if group.actions[0].measuring else op.name
        plane = prod(program.shape_at(name, extent)[3:])
        count = max(self.planes, min(-(-self.voxels // plane), _MOST))
        # a transposed convolution makes several planes of each
        before = [program.shape_at(n, extent)[2] for n in op.inputs if slides(program, n)]
        factor = group.depth // min(before) if before and group.depth % min(before) == 0 else 1
        return min(-(-count // factor) * factor, group.depth)


@dataclass(frozen=True)
class StreamPlan:
    """How a volume is streamed.

    Attributes
    ----------
    blocks : Blocks
        Planes that are made at once.
    cuts : two tuples of Cut
        Of the plane, along y and x: each part is streamed by itself with what it reads around it.
    on_disk : bool
        Whether values that wait for a whole-volume statistic wait in a temporary file.
    memory : int
        Bytes that are held on the device at worst; see `stream_bytes`. A temporary file is not.
    work : float
        Of all operations, in the unit of `Operation.work`.
    """

    blocks: Blocks
    cuts: tuple[tuple[Cut, ...], tuple[Cut, ...]]
    on_disk: bool
    memory: int
    work: float

    @property
    def parts(self) -> int:
        """Number of parts of the plane."""
        return len(self.cuts[0]) * len(self.cuts[1])


def results_of(program: Program) -> set[str]:
    """Names of the output and the gates."""
    return {program.graph.output, *(gate.node for gate in program.graph.gates)}


def streamable(program: Program) -> tuple[str, ...]:
    """Operators for which a program cannot be streamed, by name; empty if it can."""
    return unstreamable(program, program.needed(results_of(program)))


def make_schedule(
    program: Program, extent: Shape3, blocks: Blocks, given: Collection[str] = ()
) -> tuple[Schedule, Stages]:
    """The order of a run over an extent, and what is done together.

    Parameters
    ----------
    program : Program
        A `streamable` one.
    extent : tuple of int
        Spatial shape of what is streamed.
    blocks : Blocks
        Planes that are made at once.
    given : collection of str
        Values that are wholly imposed.
    """
    wanted = results_of(program)
    operations = program.needed(wanted, given)
    stages = make_stages(program, operations, extent, wanted)
    block_of = {g: blocks.of(program, g, extent) for g in stages.groups}
    scheduler = Scheduler(program, stages, extent, given, block_of.__getitem__)
    return scheduler.schedule(), stages


def stream_bytes(
    program: Program, extent: Shape3, plan: StreamPlan, given: Collection[str] = ()
) -> int:
    """Bytes that streaming holds on the program's device at worst.

    Buffers of every stage, the largest block in the making with what it is made of, and imposed
    values; neither the input volume nor the results, which belong to the caller.
    """
    longest = tuple(max(cut.length for cut in cuts) for cuts in plan.cuts)
    part = (extent[0], longest[0], longest[1])
    return _bytes(program, part, plan.blocks, plan.on_disk, given)


def _bytes(
    program: Program, part: Shape3, blocks: Blocks, on_disk: bool, given: Collection[str]
) -> int:
    # beyond the planes that wait nothing grows with the depth, statistics aside
    schedule, stages = make_schedule(program, part, blocks, given)
    dtypes = dtypes_of(program, program.needed(results_of(program), given))

    def plane(name: str) -> int:
        shape = program.shape_at(name, part)
        return shape[1] * shape[3] * shape[4] * dtypes[name].itemsize

    worst = 0
    for stage in range(len(schedule.steps)):
        held = sum(
            (b.capacity + mirrored(b)) * plane(name)
            for name, b in schedule.buffers.items()
            if b.stages[0] <= stage <= b.stages[1] and not (on_disk and spools(b))
        )
        worst = max(worst, held)
    making = 0
    for group in stages.groups:
        count = blocks.of(program, group, part)
        names = [action.op.name for action in group.actions if not action.measuring]
        making = max(making, sum(2 * count * plane(name) for name in names))
    imposed = sum(4 * prod(program.shape_at(name, part)) for name in given)
    return worst + making + imposed


def mirrored(buffer: Buffer) -> int:
    """Planes that a `Ring` keeps twice."""
    whole = buffer.depth + buffer.before + buffer.after
    return 0 if buffer.capacity >= whole else buffer.longest - 1


def spools(buffer: Buffer) -> bool:
    """Whether a value is kept as a whole for a later stage."""
    return buffer.stages[0] != buffer.stages[1]


def dtypes_of(program: Program, operations: Collection[Operation]) -> dict[str, torch.dtype]:
    """In which type each value is kept."""
    source = program.graph.input
    readers = {op.dtype for op in operations if source in op.inputs}
    kept = readers.pop() if len(readers) == 1 else torch.float32
    return {source: kept, **{op.name: op.result for op in operations}}


def plan_stream(
    program: Program, extent: Shape3, budget: int, given: Collection[str] = ()
) -> StreamPlan:
    """The fastest way of streaming that fits a budget.

    Parameters
    ----------
    program : Program
        A `streamable` one.
    extent : tuple of int
        Spatial shape of the padded input.
    budget : int
        Bytes that may be taken on the program's device; see `stream_bytes`.
    given : collection of str
        Values that are wholly imposed.

    Raises
    ------
    MemoryBudgetError
        If no way fits.
    """
    operations = program.needed(results_of(program), given)
    reach = Reach(program, operations)
    least = 0
    shape_at = program.shape_at
    work = sum(
        op.work(shape_at(op.name, extent), [shape_at(n, extent) for n in op.inputs])
        for op in operations
    )
    for cuts in _cuts(reach, extent):
        y, x = (max(cut.length for cut in axis) for axis in cuts)
        read = prod(sum(cut.length for cut in axis) for axis in cuts) / prod(extent[1:])
        for blocks in (Blocks(*numbers) for numbers in _BLOCKS):
            for on_disk in (False, True):
                needs = _bytes(program, (extent[0], y, x), blocks, on_disk, given)
                least = min(least or needs, needs)
                if needs <= budget:
                    return StreamPlan(blocks, cuts, on_disk, needs, work * read)
    raise MemoryBudgetError(
        f"Streaming needs {least >> 20} MiB at least, and {budget >> 20} MiB may be used. Close "
        "other programs, allow more memory, or pass a smaller region."
    )


def _cuts(reach: Reach, extent: Shape3) -> list[tuple[tuple[Cut, ...], tuple[Cut, ...]]]:
    """Ways of cutting the plane, the one of least work first."""
    whole = ((Cut(0, extent[1], 0, extent[1]),), (Cut(0, extent[2], 0, extent[2]),))
    if not reach.bounded:
        return [whole]
    stride = reach.program.graph.stride
    along_y, along_x = (
        [exact_cuts(reach, extent, axis, n) for n in _PARTS if n <= extent[axis] // stride[axis]]
        for axis in (1, 2)
    )
    made = list(product(along_y, along_x))
    return sorted(made, key=lambda cuts: prod(sum(c.length for c in axis) for axis in cuts))
