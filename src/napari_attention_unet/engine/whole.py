"""Run a lowered network over a volume in memory, one operation after the other.

Every tensor is freed after its last use. An operation that takes long is cut along z into slabs of
about `TARGET` seconds, learned from what slabs of it took, so that a run can be followed and
stopped. Values do not depend on the cut: each slab reads the planes that it needs of its inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from math import prod
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from napari_attention_unet.engine.device import (
    computing,
    is_out_of_memory,
    release,
    synchronise,
)
from napari_attention_unet.errors import MemoryBudgetError
from napari_attention_unet.graph.around import memory_format
from napari_attention_unet.graph.lower import Program
from napari_attention_unet.graph.operations import (
    GlobalPooling,
    Operation,
    Statistical,
    Window,
)
from napari_attention_unet.volume import Shape3

#: Seconds that a slab should take.
TARGET = 0.1
#: Work per second before anything was measured: low, so that the first slab is short.
_FIRST_GUESS = 1e9
#: Elements of a tensor beyond which kernels with 32-bit indices fail.
_MOST_ELEMENTS = 1 << 30


@dataclass(frozen=True)
class Progress:
    """A piece of a run that is done.

    Attributes
    ----------
    work : float
        In the unit of `Operation.work`.
    message : str
        What is going on, where there is something to say.
    """

    work: float
    message: str = ""


Run = Generator[Progress, None, dict[str, Tensor]]


def run_whole(program: Program, x: Tensor, imposed: Mapping[str, Tensor] | None = None) -> Run:
    """Run a network over a volume.

    Parameters
    ----------
    program : Program
        The lowered network.
    x : Tensor, shape (1, channel, z, y, x), float32
        On any device; spatial sizes are multiples of the network's stride.
    imposed : dict of str to Tensor, optional
        Values (names of gates' nodes) that are not computed but given, shape (1, 1, z, y, x); where
        one is NaN it is computed.

    Yields
    ------
    Progress
        At least every few `TARGET`, unless one plane of one operation takes longer.

    Returns
    -------
    dict of str to Tensor
        Output and gates by the name of their node, float32, on the CPU.

    Raises
    ------
    MemoryBudgetError
        If memory runs out even for the smallest slab.
    """
    execution = Execution(program, x, imposed or {})
    del x
    results: dict[str, Tensor] = {}
    for op in execution.operations:
        yield from execution.run(op)
        if op.name in execution.wanted:
            results[op.name] = execution.values[op.name].float().cpu()
        execution.forget(op)
    return results | {name: value.float().cpu() for name, value in execution.given.items()}


class Execution:
    """The values of a run that are in memory, and the operations that make them."""

    def __init__(self, program: Program, x: Tensor, imposed: Mapping[str, Tensor]) -> None:
        graph, device = program.graph, program.device
        self.program = program
        self.extent: Shape3 = (x.shape[2], x.shape[3], x.shape[4])
        self.wanted = {graph.output, *(gate.node for gate in graph.gates)}
        # where some of it is NaN the operation has to run all the same
        self.mixed = {n: v.to(device) for n, v in imposed.items() if v.isnan().any()}
        self.given = {n: v.to(device) for n, v in imposed.items() if n not in self.mixed}
        self.operations = program.needed(self.wanted, self.given)
        last = {name: op.name for op in self.operations for name in (op.name, *op.inputs)}
        self._last_uses: dict[str, list[str]] = {}
        for name, user in last.items():
            self._last_uses.setdefault(user, []).append(name)
        with computing(device):
            placed = x.to(device).contiguous(memory_format=memory_format(device))
        self.values: dict[str, Any] = {graph.input: placed, **self.given}

    def run(self, op: Operation) -> Generator[Progress, None, None]:
        """Compute the value of an operation, and keep it."""
        if isinstance(op, Statistical):
            yield from self._with_statistics(op)
        elif op.local:
            yield from self._in_slabs(op, lambda *planes: self._compute(op, *planes))
        else:
            window = Window(0, 0, (), 0, self.extent)
            yield from self._paced(
                op, 1, lambda *_: self._keep(op, op.run(self._inputs(op), window))
            )
        if op.name in self.mixed:
            given = self.mixed.pop(op.name)
            with computing(self.program.device):
                value = self.values[op.name]
                self._keep(op, torch.where(given.isnan(), value, given.to(value.dtype)))

    def forget(self, op: Operation) -> None:
        """Free what no operation after `op` reads."""
        for name in self._last_uses.get(op.name, ()):
            self.values.pop(name, None)

    def _keep(self, op: Operation, value: Any) -> None:
        self.values[op.name] = value

    def _inputs(self, op: Operation) -> list[Any]:
        return [self.values[name] for name in op.inputs]

    def _at_once(self, op: Operation) -> None:
        self._keep(op, op.run(self._inputs(op), Window(0, 0, (), 0, self.extent)))

    def _compute(self, op: Operation, start: int, stop: int) -> Tensor:
        inputs = self._inputs(op)
        depths = tuple(value.shape[2] for value in inputs)
        window = Window(start, stop, depths, self._shape(op)[2], self.extent)
        ranges = op.reads(0, start, stop, depths, window.depth)
        pieces = [v.narrow(2, a, b - a) for v, (a, b) in zip(inputs, ranges, strict=True)]
        result: Tensor = op.run(pieces, window)
        return result

    def _with_statistics(self, op: Statistical) -> Generator[Progress, None, None]:
        (name,) = op.inputs
        found: list[Any] = []

        def measure(start: int, stop: int) -> None:
            part = op.measure(self.values[name].narrow(2, start, stop - start))
            found[:] = [found[0].merged(part)] if found else [part]

        def apply(start: int, stop: int) -> Tensor:
            return op.apply(self.values[name].narrow(2, start, stop - start), found[0])

        yield from self._paced(op, self.values[name].shape[2], measure, portion=0.5)
        if isinstance(op, GlobalPooling):
            yield from self._paced(op, 1, lambda *_: self._keep(op, apply(0, 1)), portion=0.5)
        else:
            yield from self._in_slabs(op, apply, portion=0.5)

    def _in_slabs(
        self, op: Operation, make: Callable[[int, int], Tensor], portion: float = 1.0
    ) -> Generator[Progress, None, None]:
        """Make a value by ranges of planes."""
        shape = self._shape(op)

        def fill(start: int, stop: int) -> None:
            piece = make(start, stop)
            if stop - start == shape[2]:
                self._keep(op, piece)
                return
            if op.name not in self.values:
                empty = torch.empty(
                    shape,
                    dtype=piece.dtype,
                    device=piece.device,
                    memory_format=memory_format(piece.device),
                )
                self._keep(op, empty)
            self.values[op.name].narrow(2, start, stop - start).copy_(piece)

        yield from self._paced(op, shape[2], fill, portion)

    def _paced(
        self,
        op: Operation,
        depth: int,
        do: Callable[[int, int], None],
        portion: float = 1.0,
    ) -> Generator[Progress, None, None]:
        """Do a piece of work for all planes, in ranges of about `TARGET` seconds.

        Where memory runs out the range is halved and tried again.
        """
        shapes = [self.program.shape_at(name, self.extent) for name in op.inputs]
        shape = self._shape(op)
        work = portion * op.work(shape, shapes)
        message = self.program.graph.nodes[op.name].path or op.name
        most = max(1, _MOST_ELEMENTS * depth // max(prod(s) for s in (shape, *shapes)))
        start = 0
        while start < depth:
            stop = min(depth, start + most, start + self._planes(op, work / depth))
            begin = perf_counter()
            if not self._fits(op, do, start, stop):
                if stop - start == 1:
                    raise MemoryBudgetError(
                        f"Memory ran out in '{message}' of the network. Choose a "
                        "smaller region, plan='tiles', or another device."
                    )
                most = (stop - start) // 2
                release(self.program.device)
                yield Progress(
                    0.0, f"{message}: memory ran out, going on with {most} planes at once"
                )
                continue
            self._learn(op, work * (stop - start) / depth, perf_counter() - begin)
            yield Progress(work * (stop - start) / depth, message)
            start = stop

    def _fits(self, op: Operation, do: Callable[[int, int], None], start: int, stop: int) -> bool:
        try:
            with computing(self.program.device):
                do(start, stop)
                synchronise(self.program.device)
        except Exception as error:
            if is_out_of_memory(error):
                return False
            raise
        return True

    def _planes(self, op: Operation, work: float) -> int:
        rate = self.program.rates.get(op.name, _FIRST_GUESS)
        return max(1, int(TARGET * rate / work))

    def _learn(self, op: Operation, work: float, seconds: float) -> None:
        self.program.rates[op.name] = work / max(seconds, 1e-6)

    def _shape(self, op: Operation) -> tuple[int, ...]:
        return self.program.shape_at(op.name, self.extent)
