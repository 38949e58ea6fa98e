"""Run a lowered network plane by plane: exactly, each voxel once, whatever the depth.

Planes are pushed through the operations block by block. Every value keeps the planes that are still
needed, in a buffer of fixed size; skips wait there for their coarser partners. Padding is put at
the true ends of the volume alone, so the answer is that of the whole volume. Statistics of the
whole volume are measured in one stage and used in the next.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from napari_attention_unet.engine.device import (
    computing,
    is_out_of_memory,
    release,
    synchronise,
)
from napari_attention_unet.engine.planes import Box, Planes, Sink
from napari_attention_unet.engine.stream_plan import (
    StreamPlan,
    dtypes_of,
    make_schedule,
    plan_stream,
    results_of,
    spools,
    stream_bytes,
    streamable,
)
from napari_attention_unet.engine.stream_ring import Ring
from napari_attention_unet.engine.stream_schedule import Buffer, Step
from napari_attention_unet.engine.stream_stages import Action, slides
from napari_attention_unet.engine.tiling import Cut, samples_per_voxel
from napari_attention_unet.engine.whole import Progress
from napari_attention_unet.errors import GraphError, MemoryBudgetError
from napari_attention_unet.graph.lower import Program
from napari_attention_unet.graph.operations import GlobalPooling, Statistical, Window
from napari_attention_unet.volume import Shape3

__all__ = [
    "Planes",
    "Sink",
    "StreamPlan",
    "TensorPlanes",
    "plan_stream",
    "run_stream",
    "stream_bytes",
    "streamable",
]


class TensorPlanes:
    """Planes of a volume in memory.

    Parameters
    ----------
    x : Tensor, shape (1, channel, z, y, x)
        The whole.
    """

    def __init__(self, x: Tensor) -> None:
        self.x = x
        one, channels, z, y, xs = x.shape
        self.shape = (one, channels, z, y, xs)

    def read(self, box: Box) -> Tensor:
        """A view."""
        return self.x[(..., *box)]


def run_stream(
    program: Program,
    planes: Planes,
    sink: Sink,
    plan: StreamPlan,
    imposed: Mapping[str, Tensor] | None = None,
) -> Generator[Progress, None, None]:
    """Stream a volume through a network.

    Parameters
    ----------
    program : Program
        The lowered network, `streamable`.
    planes : Planes
        The input; spatial sizes are multiples of the network's stride.
    sink : callable
        Gets the output and every gate, imposed ones included, part by part.
    plan : StreamPlan
        Of `plan_stream` for this extent.
    imposed : dict of str to Tensor, optional
        Values (names of gates' nodes) that are not computed but given, shape (1, 1, z, y, x); where
        one is NaN it is computed.

    Yields
    ------
    Progress
        After each block.

    Raises
    ------
    GraphError
        If the network cannot be streamed; the message names the operators.
    MemoryBudgetError
        If memory runs out even for the smallest block.
    """
    if names := streamable(program):
        raise GraphError(
            f"This network cannot be streamed because of: {', '.join(names)}. Use plan='whole' or "
            "'tiles'."
        )
    for cut_y, cut_x in product(*plan.cuts):
        part = _Part(program, planes.shape, (cut_y, cut_x))
        yield from _Stream(part, planes, sink, plan, imposed or {}).run()


class _Part:
    """A part of the plane that is streamed by itself, and where its samples lie in the whole."""

    def __init__(self, program: Program, shape: tuple[int, ...], cuts: tuple[Cut, Cut]) -> None:
        self.program, self.cuts = program, cuts
        self.whole: Shape3 = (shape[2], shape[3], shape[4])
        self.extent: Shape3 = (shape[2], cuts[0].length, cuts[1].length)
        self.alone = self.extent == self.whole

    def box(self, start: int, stop: int) -> Box:
        """What is read of the input."""
        y, x = (slice(cut.start, cut.stop) for cut in self.cuts)
        return slice(start, stop), y, x

    def narrowed(self, name: str, value: Tensor) -> Tensor:
        """The part of a value that is given as a whole."""
        for axis, _ in enumerate(self.cuts, start=1):
            start, stop = self._samples(name, axis)
            value = value.narrow(2 + axis, start, stop - start)
        return value

    def kept(self, name: str, value: Tensor, start: int) -> tuple[Shape3, Tensor]:
        """What is kept of the samples that were computed, and where it begins."""
        if self.alone:
            return (start, 0, 0), value
        begins = [start]
        for axis, cut in enumerate(self.cuts, start=1):
            first, last = self._samples(name, axis)
            ratio = samples_per_voxel(self.program, name, axis)
            low = int(cut.keep_start * ratio)
            high = last if cut.keep_stop == self.whole[axis] else int(cut.keep_stop * ratio)
            value = value.narrow(2 + axis, low - first, high - low)
            begins.append(low)
        return (begins[0], begins[1], begins[2]), value

    def _samples(self, name: str, axis: int) -> tuple[int, int]:
        if self.alone:
            return 0, self.program.shape_at(name, self.whole)[2 + axis]
        ratio = samples_per_voxel(self.program, name, axis)
        start = int(self.cuts[axis - 1].start * ratio)
        return start, start + self.program.shape_at(name, self.extent)[2 + axis]


class _Stream:
    """The buffers of a run, and what fills them."""

    def __init__(
        self,
        part: _Part,
        planes: Planes,
        sink: Sink,
        plan: StreamPlan,
        imposed: Mapping[str, Tensor],
    ) -> None:
        program = part.program
        self.part, self.planes, self.sink, self.plan = part, planes, sink, plan
        self.program, self.extent, self.device = program, part.extent, program.device
        self.wanted = results_of(program)
        placed = {name: part.narrowed(name, value) for name, value in imposed.items()}
        self.mixed = {n: v for n, v in placed.items() if v.isnan().any()}
        self.given = {n: v for n, v in placed.items() if n not in self.mixed}
        operations = program.needed(self.wanted, self.given)
        self.dtypes = dtypes_of(program, operations)
        self.schedule, self.stages = make_schedule(program, self.extent, plan.blocks, self.given)
        self.rings: dict[str, Ring] = {}
        self.small: dict[str, Any] = {}
        self.found: dict[str, Any] = {}  # statistics, by the operation that they are for
        self._windows: dict[str, tuple[tuple[int, ...], int]] = {}
        self._pace = {
            action: self._work(action) for group in self.stages.groups for action in group.actions
        }

    def run(self) -> Generator[Progress, None, None]:
        """All stages."""
        for name, value in self.given.items():
            if name in self.wanted:
                self.sink(name, *self.part.kept(name, value.float().cpu(), 0))
        with computing(self.device):
            self.given = {name: value.to(self.device) for name, value in self.given.items()}
            self.mixed = {name: value.to(self.device) for name, value in self.mixed.items()}
        with tempfile.TemporaryDirectory(prefix="attention-unet-") as folder:
            for stage, steps in enumerate(self.schedule.steps):
                self._begin(stage, Path(folder))
                for step in steps:
                    yield from self._step(step)
                for name, buffer in self.schedule.buffers.items():
                    if buffer.stages[1] == stage:
                        self.rings.pop(name, None)
            self.rings.clear()

    def _begin(self, stage: int, folder: Path) -> None:
        with computing(self.device):
            for name, buffer in self.schedule.buffers.items():
                if buffer.stages[0] == stage:
                    self.rings[name] = self._ring(name, buffer, folder)
            for op in self.stages.small.get(stage, ()):
                inputs = [self._small(name) for name in op.inputs]
                window = Window(0, 0, (), 0, self.extent)
                self.small[op.name] = op.run(inputs, window)

    def _ring(self, name: str, buffer: Buffer, folder: Path) -> Ring:
        on_disk = self.plan.on_disk and spools(buffer)
        return Ring(
            self.program.shape_at(name, self.extent),
            buffer.before,
            buffer.after,
            buffer.capacity,
            buffer.longest,
            self.dtypes[name],
            torch.device("cpu") if on_disk else self.device,
            folder / f"{len(self.rings)}-{name}" if on_disk else None,
        )

    def _small(self, name: str) -> Any:
        """A value without voxels."""
        if name not in self.small:
            op = next(o for o in self.program.operations if o.name == name)
            assert isinstance(op, GlobalPooling)
            self.small[name] = op.apply(torch.empty(0), self.found[name])
        return self.small[name]

    def _step(self, step: Step) -> Generator[Progress, None, None]:
        try:
            with computing(self.device):
                self._do(step)
                synchronise(self.device)
        except Exception as error:
            if not is_out_of_memory(error) or step.group is None:
                raise
            failed = True
        else:
            failed = False
        if failed:
            yield from self._halved(step)
            return
        if step.group is not None:
            work = sum(self._pace[action] for action in step.group.actions)
            name = self.program.graph.nodes[step.group.actions[0].op.name].path
            yield Progress(work * (step.stop - step.start), name)

    def _halved(self, step: Step) -> Generator[Progress, None, None]:
        if step.stop - step.start == 1:
            raise MemoryBudgetError(
                "Memory ran out for a single plane. Choose a smaller region, less memory for the "
                "buffers (so that planes are cut into parts), or another device."
            )
        release(self.device)
        middle = (step.start + step.stop) // 2
        yield Progress(0.0, f"memory ran out, going on with {middle - step.start} planes at once")
        yield from self._step(Step(step.group, step.start, middle))
        yield from self._step(Step(step.group, middle, step.stop))

    def _do(self, step: Step) -> None:
        start, stop = step.start, step.stop
        made: dict[str, Tensor] = {}
        if step.group is None:
            name = self.program.graph.input
            ring = self.rings[name]
            ring.space(start, stop).copy_(self.planes.read(self.part.box(start, stop)))
            ring.keep(start, stop)
            return
        for action in step.group.actions:
            self._act(action, start, stop, made)
        for name in made:
            if name in self.rings:
                self.rings[name].keep(start, stop)

    def _act(self, action: Action, start: int, stop: int, made: dict[str, Tensor]) -> None:
        op = action.op
        if action.measuring:
            assert isinstance(op, Statistical)
            (name,) = op.inputs
            part = op.measure(self._planes(name, start, stop, made))
            before = self.found.get(op.name)
            self.found[op.name] = part if before is None else before.merged(part)
            return
        ring = self.rings.get(op.name)
        out = None if ring is None else ring.space(start, stop)
        if isinstance(op, Statistical):
            value = op.apply(self._planes(op.inputs[0], start, stop, made), self.found[op.name])
        else:
            window, ranges = self._window(action, start, stop)
            pieces = [
                self._planes(name, low, high, made)
                for name, (low, high) in zip(op.inputs, ranges, strict=True)
            ]
            if out is not None and out.device.type == self.device.type:
                op.run_into(pieces, window, out)
                value = out
            else:
                value = op.run(pieces, window)
        if op.name in self.mixed:
            given = self.mixed[op.name].narrow(2, start, stop - start)
            value = torch.where(given.isnan(), value, given.to(value.dtype))
        if out is not None and value is not out:
            out.copy_(value)
        made[op.name] = value
        if op.name in self.wanted:
            self.sink(op.name, *self.part.kept(op.name, value.float().cpu(), start))

    def _window(self, action: Action, start: int, stop: int) -> tuple[Window, list[Any]]:
        op = action.op
        if op.name not in self._windows:
            depths = tuple(
                self.program.shape_at(name, self.extent)[2] if slides(self.program, name) else 1
                for name in op.inputs
            )
            self._windows[op.name] = depths, self.program.shape_at(op.name, self.extent)[2]
        depths, depth = self._windows[op.name]
        ranges = op.spans(start, stop, depths, depth)
        if self.given:
            inside = op.reads(0, start, stop, depths, depth)
            ranges = [
                there if name in self.given else with_zeros
                for name, there, with_zeros in zip(op.inputs, inside, ranges, strict=True)
            ]
        return Window(start, stop, depths, depth, self.extent), ranges

    def _planes(self, name: str, start: int, stop: int, made: dict[str, Tensor]) -> Any:
        if name in made:
            return made[name]
        if name in self.rings:
            return self.rings[name].planes(start, stop).to(self.device)
        if name in self.given:
            return self.given[name].narrow(2, start, stop - start)
        return self._small(name)

    def _work(self, action: Action) -> float:
        op = action.op
        shape = self.program.shape_at(op.name, self.extent)
        inputs = [self.program.shape_at(name, self.extent) for name in op.inputs]
        portion = 1.0 if op.local or isinstance(op, GlobalPooling) else 0.5
        depth = inputs[0][2] if action.measuring else shape[2]
        return portion * op.work(shape, inputs) / depth
