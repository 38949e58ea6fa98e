"""Run a network as planned; where that fails, go on in a way that does not.

Results are handed over plane by plane, and what was handed over stays: whatever happens, the run
goes on from the first plane that is missing. Where the network's reach is bounded, it reads that
reach before this plane, and the rest of its result is what a run from the start would give.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from napari_attention_unet.engine.device import is_out_of_memory, release
from napari_attention_unet.engine.plan import Plan, make_plan, memory_budget
from napari_attention_unet.engine.planes import Gathered, Part, Planes, Sink
from napari_attention_unet.engine.stream import run_stream
from napari_attention_unet.engine.stream_plan import StreamPlan, results_of
from napari_attention_unet.engine.tiles import run_tiles
from napari_attention_unet.engine.tiling import Cut, Reach, samples_per_voxel
from napari_attention_unet.engine.whole import Progress, run_whole
from napari_attention_unet.errors import InputError, MemoryBudgetError, NotFiniteError
from napari_attention_unet.graph.around import memory_format
from napari_attention_unet.graph.lower import Program
from napari_attention_unet.volume import Shape3

#: Gives the network lowered for a device and precision.
Lowered = Callable[[torch.device, torch.dtype], Program]

#: Planes that are computed in float32 where reduced precision overflows, and how often before the
#: rest is.
_REDONE, _REDOS = 64, 3
#: Voxels of the input that are read, or of the results handed over, between two steps.
_SLAB = 2_000_000


class Receiver(Protocol):
    """Takes the planes of the results, those that it has already as well.

    Attributes
    ----------
    taken : dict of str to int
        By the node of the output and of each gate: the plane that is awaited.
    """

    taken: dict[str, int]

    def __call__(self, name: str, begin: Shape3, values: Tensor) -> None:
        """Take planes, as a `Sink`; `NotFiniteError` refuses them."""
        ...


@dataclass
class Course:
    """How a volume is being run, and why.

    Attributes
    ----------
    program : Program
        Network, device and precision.
    plan : Plan
        Whole, stream or tiles.
    notes : list of str
        What was changed on the way, a sentence each.
    memory : float or None
        GiB that the run may take; None for what is free.
    wish : str
        Plan that was asked for.
    tile : tuple of int or None
        Size of tiles that was asked for.
    """

    program: Program
    plan: Plan
    notes: list[str] = field(default_factory=list)
    memory: float | None = None
    wish: str = "auto"
    tile: Shape3 | None = None


Steps = Generator[Progress | Plan, None, None]


def run(
    course: Course,
    planes: Planes,
    receiver: Receiver,
    lowered: Lowered,
    imposed: Mapping[str, Tensor] | None = None,
) -> Steps:
    """Run a network over a volume, and keep to what memory and precision allow.

    Where memory runs out, the slab or the exact tile at hand is halved; where that does not help,
    the run goes on in smaller slabs, in tiles, then on the CPU. Where reduced precision gives a
    number that is not finite, these planes are computed in float32, or all that follow.

    Parameters
    ----------
    course : Course
        To begin with; it is changed as the run changes.
    planes : Planes
        The network's input.
    receiver : Receiver
        Takes the results; the run begins with the first plane that it awaits.
    lowered : callable
        Where another device or precision comes from.
    imposed : dict of str to Tensor, optional
        See `run_whole`.

    Yields
    ------
    Progress or Plan
        A plan where the run goes on with another one.

    Raises
    ------
    MemoryBudgetError
        If memory runs out on the last rung.
    NotFiniteError
        If the network gives NaN or infinite values in float32.
    """
    ladder = _Ladder(course, planes, receiver, lowered, imposed or {})
    while (start := ladder.start()) is not None:
        failure = yield from ladder.attempt(course.program, course.plan, start, planes.shape[2])
        if failure is None:
            return
        if isinstance(failure, str):
            ladder.descend(failure)
        elif course.program.dtype == torch.float32:
            raise failure
        elif not (yield from ladder.redo()):
            ladder.widen()
        yield Progress(0.0, course.notes[-1])
        yield course.plan


class _Ladder:
    def __init__(
        self,
        course: Course,
        planes: Planes,
        receiver: Receiver,
        lowered: Lowered,
        imposed: Mapping[str, Tensor],
    ) -> None:
        self.course, self.planes, self.receiver = course, planes, receiver
        self.lowered, self.imposed = lowered, imposed
        _, _, z, y, x = planes.shape
        self.extent: Shape3 = (z, y, x)
        program = course.program
        self.reach = Reach(program, program.needed(set(receiver.taken), imposed))
        self.redone = 0

    def start(self) -> int | None:
        """First plane of the input whose results are not all taken; None if none is missing."""
        program, taken = self.course.program, self.receiver.taken
        missing = [
            (name, count)
            for name, count in taken.items()
            if count < program.shape_at(name, self.extent)[2]
        ]
        if not missing:
            return None
        stride, starts = program.graph.stride[0], []
        for name, count in missing:
            ratio = samples_per_voxel(program, name, 0)
            starts.append(int(count / ratio) // stride * stride if ratio else 0)
        return min(starts)

    def attempt(
        self, program: Program, plan: Plan, start: int, stop: int
    ) -> Generator[Progress | Plan, None, str | NotFiniteError | None]:
        """Run over planes ``start..stop``; what went wrong, if that can be mended."""
        try:
            yield from self._as_planned(program, plan, start, stop)
        except NotFiniteError as error:
            return NotFiniteError(error.node)
        except Exception as error:
            if isinstance(error, MemoryBudgetError) or is_out_of_memory(error):
                # the error itself must go: it holds the frames, and they hold the tensors
                return str(error)
            raise
        return None

    def _as_planned(self, program: Program, plan: Plan, start: int, stop: int) -> Steps:
        if plan.tiling is not None:
            return run_tiles(program, self.planes, plan.tiling, self.receiver, self.imposed, start)
        cut = Cut(0, self.extent[0], 0, self.extent[0])
        if self.reach.bounded:
            cut = self.reach.cut(self.extent, 0, (start, stop))
        part = Part(self.planes, cut.start, cut.stop)
        sink, imposed = self._shifted(cut), self._imposed(cut)
        if plan.stream is None:
            return _whole(program, part, sink, imposed)
        if plan.stream.parts == 1:
            return run_stream(program, part, sink, plan.stream, imposed)
        return _in_parts(program, part, sink, plan.stream, imposed)

    def _shifted(self, cut: Cut) -> Sink:
        """Hands on the planes of a part as those of the volume, as far as they are right."""
        program, receiver = self.course.program, self.receiver
        place = {}
        for name in receiver.taken:
            ratio = samples_per_voxel(program, name, 0)
            end = program.shape_at(name, self.extent)[2]
            if cut.keep_stop < self.extent[0]:
                end = int(cut.keep_stop * ratio)
            place[name] = int(cut.start * ratio), end

        def take(name: str, begin: Shape3, values: Tensor) -> None:
            first, end = place[name]
            start = begin[0] + first
            if start < end:
                receiver(name, (start, *begin[1:]), values[:, :, : end - start])

        return take

    def _imposed(self, cut: Cut) -> dict[str, Tensor]:
        """The part of the imposed values that belongs to a part of the input."""
        program, made = self.course.program, {}
        extent = (cut.length, *self.extent[1:])
        for name, value in self.imposed.items():
            first = int(cut.start * samples_per_voxel(program, name, 0))
            made[name] = value[:, :, first : first + program.shape_at(name, extent)[2]]
        return made

    def redo(self) -> Generator[Progress | Plan, None, bool]:
        """Compute the planes that overflowed in float32; whether that is worth it."""
        course, start = self.course, self.start()
        if course.plan.kind != "stream" or not self.reach.bounded or self.redone == _REDOS:
            return False
        assert start is not None
        stride = course.program.graph.stride[0]
        stop = start + -(-_REDONE // stride) * stride
        cut = self.reach.cut(self.extent, 0, (start, min(stop, self.extent[0])))
        if cut.stop >= self.extent[0]:  # as well the rest
            return False
        self.redone += 1
        program = self.lowered(course.program.device, torch.float32)
        extent = (cut.length, *self.extent[1:])
        plan = make_plan(program, extent, self._budget(program), imposed=self.imposed)
        course.notes.append(
            f"{_name(course.program.dtype)} overflowed in planes {start} to {stop - 1}; they were "
            "computed in float32."
        )
        yield Progress(0.0, course.notes[-1])
        failure = yield from self.attempt(program, plan, start, stop)
        if isinstance(failure, NotFiniteError):
            raise failure
        return failure is None

    def widen(self) -> None:
        """Go on in float32."""
        course, start = self.course, self.start()
        name = _name(course.program.dtype)
        course.program = self.lowered(course.program.device, torch.float32)
        course.plan = self._plan(course.wish, self._budget(course.program), course.tile)
        course.notes.append(
            f"{name} overflowed in this network; it was run {_since(start)} in float32."
        )

    def descend(self, failure: str) -> None:
        """The next rung: half the memory, then the CPU.

        Raises
        ------
        MemoryBudgetError
            If there is none; the message is what failed last.
        """
        course, start = self.course, self.start()
        device = course.program.device
        release(device)
        for wish in ("stream", "tiles"):
            try:
                plan = self._plan(wish, course.plan.memory // 2)
            except (MemoryBudgetError, InputError):  # too large still, or not to be streamed
                continue
            course.plan = plan
            pieces = "slabs" if plan.kind == "stream" else "tiles"
            course.notes.append(
                f"Memory ran out on '{device}'; run {_since(start)} in smaller {pieces}."
            )
            return
        if device.type == "cpu":
            raise MemoryBudgetError(failure)
        course.program = self.lowered(torch.device("cpu"), torch.float32)
        course.plan = self._plan("auto", self._budget(course.program))
        course.notes.append(f"Memory ran out on '{device}'; run {_since(start)} on the CPU.")

    def _plan(self, wish: str, budget: int, tile: Shape3 | None = None) -> Plan:
        program = self.course.program
        return make_plan(program, self.extent, budget, wish, self.imposed, tile=tile)

    def _budget(self, program: Program) -> int:
        same = program.device == self.course.program.device
        return memory_budget(program.device, self.course.memory if same else None)


def _whole(
    program: Program, planes: Planes, sink: Sink, imposed: Mapping[str, Tensor]
) -> Generator[Progress, None, None]:
    x = torch.empty(planes.shape, memory_format=memory_format(program.device))
    *_, height, width = planes.shape
    for start, stop in _slabs(planes.shape[1:]):
        x[:, :, start:stop] = planes.read((slice(start, stop), slice(0, height), slice(0, width)))
        yield Progress(0.0, "reading the volume")
    work = run_whole(program, x, imposed)
    del x
    yield from handed_over((yield from work), sink)


def _in_parts(
    program: Program, planes: Planes, sink: Sink, plan: StreamPlan, imposed: Mapping[str, Tensor]
) -> Generator[Progress, None, None]:
    """Stream the parts of a plane one after the other; whole planes are there in the end."""
    _, _, z, y, x = planes.shape
    shapes = {name: program.shape_at(name, (z, y, x)) for name in results_of(program)}
    gathered = Gathered(shapes, on_disk=True)
    try:
        yield from run_stream(program, planes, gathered, plan, imposed)
        yield from handed_over(gathered.results(), sink)
    finally:
        gathered.close()


def handed_over(results: dict[str, Tensor], sink: Sink) -> Generator[Progress, None, None]:
    """Give results away, by planes; they are emptied on the way."""
    for name in list(results):
        value = results.pop(name)
        for start, stop in _slabs(value.shape[1:]):
            sink(name, (start, 0, 0), value[:, :, start:stop])
            yield Progress(0.0, "labelling the voxels")
        del value


def _slabs(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """Ranges of planes of an array (channel, z, y, x)."""
    channels, depth, y, x = shape
    size = max(1, _SLAB // (channels * y * x))
    return [(start, min(start + size, depth)) for start in range(0, depth, size)]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _since(start: int | None) -> str:
    return f"from plane {start} on" if start else "again"
