"""What is computed together, and when: operations become groups, groups belong to stages.

A statistic of a whole volume parts the run: what follows it can begin only when all that leads to
it is done. A *stage* is what runs between two such barriers. Within a stage, operations that need
but the same plane of each input follow the one that makes these planes in a *group*: they run
block by block on planes that are still in the cache, and need no buffer between them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from math import prod

from napari_attention_unet.graph.lower import Program
from napari_attention_unet.graph.operations import GlobalPooling, Operation, Statistical, Whole
from napari_attention_unet.volume import Shape3


@dataclass(frozen=True, eq=False)
class Action:
    """One operation of a group: making planes of its value, or measuring those of its input."""

    op: Operation
    measuring: bool = False


@dataclass(eq=False)
class Group:
    """Actions that run together on the same range of planes.

    Attributes
    ----------
    stage : int
        When.
    depth : int
        Planes that it goes through in all.
    actions : list of Action
        In order; all but the first need but the same planes of what they read.
    """

    stage: int
    depth: int
    actions: list[Action] = field(default_factory=list)

    @property
    def made(self) -> set[str]:
        """Names of the values that it makes."""
        return {action.op.name for action in self.actions if not action.measuring}


@dataclass(frozen=True, eq=False)
class Stages:
    """All groups in order, and the operations on values without voxels, by stage.

    Attributes
    ----------
    groups : list of Group
        Each after those that it reads from.
    small : dict of int to list of Operation
        What is to be done before each stage begins.
    """

    groups: list[Group]
    small: dict[int, list[Operation]]


def unstreamable(program: Program, operations: Sequence[Operation]) -> tuple[str, ...]:
    """Operators among `operations` that cannot go plane by plane, by name, each once."""
    graph = program.graph
    found = []
    for op in operations:
        names = (op.name, *op.inputs)
        if isinstance(op, Whole):
            fits = not any(map(program.grows, names))
        else:
            pooled = isinstance(op, GlobalPooling)
            reads = [n for n in op.inputs if program.grows(n)]
            fits = pooled or slides(program, op.name)
            fits = fits and bool(reads) and all(slides(program, name) for name in reads)
        if not fits:
            found.append(graph.nodes[op.name].op)
    return tuple(dict.fromkeys(found))


def slides(program: Program, name: str) -> bool:
    """Whether a value has planes along z, as the input has."""
    node = program.graph.nodes.get(name)
    if node is None:
        return True
    size = node.shape[2] if len(node.shape) == 5 else 1
    return not isinstance(size, int) and size.axes == (0,)


def make_stages(
    program: Program, operations: Sequence[Operation], extent: Shape3, wanted: Collection[str]
) -> Stages:
    """Part operations into stages and groups.

    Parameters
    ----------
    program : Program
        Of which they are.
    operations : sequence of Operation
        Those that run, all of them streamable.
    extent : tuple of int
        Spatial shape of the input.
    wanted : collection of str
        Values that are results.
    """
    when = _Stages(program, operations, extent, wanted)
    small: dict[int, list[Operation]] = {}
    builder = _Builder(program, extent)
    for op in operations:
        if not slides(program, op.name) and not isinstance(op, GlobalPooling):
            small.setdefault(when.ready[op.name], []).append(op)
            continue
        if isinstance(op, Statistical):
            (name,) = op.inputs
            builder.add(Action(op, measuring=True), when.stage.get(name, 0))
        if not isinstance(op, GlobalPooling):
            builder.add(Action(op), when.stage[op.name])
    # measuring may have come to a group that was made before others of an earlier stage
    builder.groups.sort(key=lambda group: group.stage)
    return Stages(builder.groups, small)


class _Stages:
    """In which stage each operation runs: late, where that keeps less in memory."""

    def __init__(
        self,
        program: Program,
        operations: Sequence[Operation],
        extent: Shape3,
        wanted: Collection[str],
    ) -> None:
        self.program, self.extent = program, extent
        #: When each value is there for others in the same stage.
        self.ready: dict[str, int] = {}
        for op in operations:
            inputs = [self.ready.get(name, 0) for name in op.inputs]
            self.ready[op.name] = max(inputs, default=0) + isinstance(op, Statistical)
        self.stage = dict(self.ready)
        self._delay(operations, wanted)

    def _delay(self, operations: Sequence[Operation], wanted: Collection[str]) -> None:
        last: dict[str, int] = {}  # when each value is read for the last time, as known so far
        first: dict[str, int] = {}
        made = {op.name for op in operations}
        for op in reversed(operations):
            sliding = slides(self.program, op.name)
            latest = first.get(op.name, self.ready[op.name])
            if sliding and op.name not in wanted and latest > self.stage[op.name]:
                kept_for = self._bytes(op.name, op)
                more = sum(
                    self._bytes(name, op)
                    for name in op.inputs
                    if name in made and slides(self.program, name) and last.get(name, 0) < latest
                )
                if more < kept_for:
                    self.stage[op.name] = latest
            for name in op.inputs:
                # a statistic is measured when its input is made
                own = self.ready.get(name, 0) if isinstance(op, Statistical) else None
                reads = self.stage[op.name] if own is None else own
                first[name] = min(first.get(name, reads), reads)
                last[name] = max(last.get(name, 0), self.stage[op.name])

    def _bytes(self, name: str, op: Operation) -> int:
        return prod(self.program.shape_at(name, self.extent)) * op.result.itemsize


class _Builder:
    def __init__(self, program: Program, extent: Shape3) -> None:
        self.program, self.extent = program, extent
        self.groups: list[Group] = []
        self._maker: dict[str, int] = {}

    def add(self, action: Action, stage: int) -> None:
        """To the group that makes what it reads, or to a new one."""
        depth = self._depth(action.op.inputs[0] if action.measuring else action.op.name)
        index = self._joined(action, stage, depth)
        if index is None:
            index = len(self.groups)
            self.groups.append(Group(stage, depth))
        self.groups[index].actions.append(action)
        if not action.measuring:
            self._maker[action.op.name] = index

    def _joined(self, action: Action, stage: int, depth: int) -> int | None:
        op = action.op
        reads = [name for name in op.inputs if slides(self.program, name)]
        if not (op.aligned or isinstance(op, Statistical)):
            return None
        if any(self._depth(name) != depth for name in reads):
            return None
        makers = [self._maker[n] for n in reads if n in self._maker]
        here = [index for index in makers if self.groups[index].stage == stage]
        if not here:
            return None
        # whatever it reads from groups before this one is there when this one runs
        return max(here) if max(here) == max(makers) else None

    def _depth(self, name: str) -> int:
        return self.program.shape_at(name, self.extent)[2]
