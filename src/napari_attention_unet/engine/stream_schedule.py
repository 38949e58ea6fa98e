"""In which order groups run, block by block, and how many planes of each value wait meanwhile.

Each stage is pulled from its ends: a group runs a block when what follows it needs its planes, and
not before. The order is worked out beforehand, and so is how long each plane is needed: from that
follow the sizes of all buffers. Neither grows with the depth of the volume, once that is beyond
the planes that wait.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from napari_attention_unet.engine.stream_stages import Action, Group, Stages, slides
from napari_attention_unet.graph.lower import Program
from napari_attention_unet.graph.operations import Range
from napari_attention_unet.volume import Shape3


@dataclass(frozen=True)
class Step:
    """A group makes a range of planes; without a group, the input is read."""

    group: Group | None
    start: int
    stop: int


@dataclass
class Buffer:
    """What has to be kept of a value; see `Ring`."""

    depth: int
    before: int = 0
    after: int = 0
    capacity: int = 0
    longest: int = 1
    stages: tuple[int, int] = (0, 0)  #: First and last stage in which it is there.


@dataclass(frozen=True, eq=False)
class Schedule:
    """The order of a run.

    Attributes
    ----------
    steps : list of list of Step
        Of each stage.
    buffers : dict of str to Buffer
        Of every value that has to wait for another group.
    """

    steps: list[list[Step]]
    buffers: dict[str, Buffer]


@dataclass(eq=False)
class _Reader:
    """A group that reads a value from a buffer."""

    group: Group
    spans: list[Callable[[int, int], Range]] = field(default_factory=list)

    def range(self, start: int, stop: int) -> Range:
        """Planes that it needs for a range of its own."""
        ranges = [span(start, stop) for span in self.spans]
        return min(low for low, _ in ranges), max(high for _, high in ranges)


class Scheduler:
    """Works out a `Schedule`.

    Parameters
    ----------
    program : Program
        The lowered network.
    stages : Stages
        Its groups.
    extent : tuple of int
        Spatial shape of the input.
    given : collection of str
        Values that are there as a whole from the start.
    block : callable
        Planes that a group makes at once.
    """

    def __init__(
        self,
        program: Program,
        stages: Stages,
        extent: Shape3,
        given: Collection[str],
        block: Callable[[Group], int],
    ) -> None:
        self.program, self.extent, self.given = program, extent, given
        self.groups = stages.groups
        self.count = 1 + max([g.stage for g in self.groups] + list(stages.small), default=0)
        self.blocks = {group: block(group) for group in self.groups}
        self.maker = {name: group for group in self.groups for name in group.made}
        self.readers: dict[str, list[_Reader]] = {}
        self.reads = {group: self._reads_of(group) for group in self.groups}
        self.buffers = {name: self._buffer(name) for name in self.readers}
        source = program.graph.input
        starts = [r.range(0, self.blocks[r.group]) for r in self.readers.get(source, [])]
        self.reading = max((high - max(low, 0) for low, high in starts), default=1)
        self._made: dict[str, int] = {}
        self._next = dict.fromkeys(self.groups, 0)

    def _reads_of(self, group: Group) -> dict[str, _Reader]:
        made, found = set[str](), dict[str, _Reader]()
        for action in group.actions:
            depths = [self._depth(name) for name in action.op.inputs]
            for index, name in enumerate(action.op.inputs):
                if name in made or name in self.given or not slides(self.program, name):
                    continue
                reader = found.setdefault(name, _Reader(group))
                reader.spans.append(self._span(action, index, depths, group.depth))
            if not action.measuring:
                made.add(action.op.name)
        for name, reader in found.items():
            self.readers.setdefault(name, []).append(reader)
        return found

    @staticmethod
    def _span(
        action: Action, index: int, depths: Sequence[int], depth: int
    ) -> Callable[[int, int], Range]:
        if action.measuring or not action.op.local:
            return lambda start, stop: (start, stop)
        return lambda start, stop: action.op.spans(start, stop, depths, depth)[index]

    def _depth(self, name: str) -> int:
        return self.program.shape_at(name, self.extent)[2] if slides(self.program, name) else 1

    def _buffer(self, name: str) -> Buffer:
        depth, readers = self._depth(name), self.readers[name]
        before = after = 0
        for reader in readers:
            before = max(before, -reader.range(0, 1)[0])
            after = max(after, reader.range(reader.group.depth - 1, reader.group.depth)[1] - depth)
        maker = self.maker.get(name)
        first = 0 if maker is None else maker.stage
        last = max(reader.group.stage for reader in readers)
        return Buffer(depth, before, after, stages=(first, last))

    def schedule(self) -> Schedule:
        """The order, and the buffers."""
        self._made = dict.fromkeys(self.buffers, 0)
        for buffer in self.buffers.values():
            if buffer.stages[0] != buffer.stages[1]:  # kept from stage to stage as a whole
                buffer.capacity = buffer.depth + buffer.before + buffer.after
        steps = [self._stage(stage) for stage in range(self.count)]
        for buffer in self.buffers.values():
            buffer.capacity = max(buffer.capacity, buffer.longest)
        return Schedule(steps, self.buffers)

    def _stage(self, stage: int) -> list[Step]:
        steps: list[Step] = []
        groups = [group for group in self.groups if group.stage == stage]
        fed = {
            self.maker[name]
            for name, readers in self.readers.items()
            if name in self.maker and any(reader.group.stage == stage for reader in readers)
        }
        ends = [group for group in groups if group not in fed]
        while waiting := [group for group in ends if self._next[group] < group.depth]:
            self._pull(min(waiting, key=lambda g: self._next[g] / g.depth), steps)
        for group in reversed(groups):  # last planes that nothing reads may be results
            while self._next[group] < group.depth:
                self._pull(group, steps)
        return steps

    def _pull(self, group: Group, steps: list[Step]) -> None:
        """Run the next block of a group, and before it what that needs."""
        start = self._next[group]
        stop = min(start + self.blocks[group], group.depth)
        for name, reader in self.reads[group].items():
            low, high = reader.range(start, stop)
            self._await(name, high, steps)
            self._see(name, high - low)
        steps.append(Step(group, start, stop))
        self._next[group] = stop
        for name in group.made:
            self._write(name, start, stop)

    def _await(self, name: str, stop: int, steps: list[Step]) -> None:
        stop = min(stop, self.buffers[name].depth)
        while self._made[name] < stop:
            if name in self.maker:
                self._pull(self.maker[name], steps)
            else:
                start = self._made[name]
                end = min(start + self.reading, self.buffers[name].depth)
                steps.append(Step(None, start, end))
                self._write(name, start, end)

    def _see(self, name: str, planes: int) -> None:
        self.buffers[name].longest = max(self.buffers[name].longest, planes)

    def _write(self, name: str, start: int, stop: int) -> None:
        buffer = self.buffers.get(name)
        if buffer is None:
            return
        self._made[name] = stop
        end = stop + buffer.after if stop == buffer.depth else stop
        lows = []
        for reader in self.readers[name]:
            position, depth = self._next[reader.group], reader.group.depth
            if position < depth:
                lows.append(reader.range(position, position + 1)[0])
        low = min(lows, default=start)
        buffer.capacity = max(buffer.capacity, end - low)
        self._see(name, max(stop - start, buffer.before, buffer.after))
