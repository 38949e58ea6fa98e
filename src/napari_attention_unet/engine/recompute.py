"""Run a network again with other gates, computing only what depends on them.

A base run keeps the values that the part downstream of the gates reads: in a U-Net the skips and
the decoder's outputs that meet them. A run with some gates imposed then starts there. Values are
those of a whole run with the same gates, bit for bit; only where a network takes statistics over
the whole volume, the order of their sums may differ, as between any two runs.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from napari_attention_unet.engine.whole import Execution, Progress, Run, run_whole
from napari_attention_unet.graph.lower import Program
from napari_attention_unet.graph.operations import Operation
from napari_attention_unet.volume import Shape3


@dataclass(frozen=True, eq=False)
class Kept:
    """What a base run left behind.

    Attributes
    ----------
    program : Program
        The network that was run.
    x : Tensor, shape (1, channel, z, y, x), float32
        Its input.
    values : dict of str to Tensor
        By node, on the program's device and as the program computes them.
    results : dict of str to Tensor
        Output and gates of the base run, as of `run_whole`.
    """

    program: Program
    x: Tensor
    values: dict[str, Tensor]
    results: dict[str, Tensor]

    @property
    def bytes(self) -> int:
        """Memory that all of it takes."""
        tensors = (self.x, *self.values.values(), *self.results.values())
        return sum(t.numel() * t.element_size() for t in tensors)

    @property
    def extent(self) -> Shape3:
        """Spatial shape (z, y, x) of the input."""
        return self.x.shape[2], self.x.shape[3], self.x.shape[4]

    def operations(self, imposed: Mapping[str, Tensor]) -> list[Operation]:
        """What `run_again` computes for these gates."""
        start = self.start(imposed)
        return self.program.needed(self.results, [n for n, v in start.items() if not _open(v)])

    def start(self, imposed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """All that need not be computed for these gates: what does not depend on them, and they.

        A gate that no other one of them leads to keeps its own values where they are NaN.
        """
        stale = downstream(self.program, imposed)
        known = {n: v for n, v in (self.values | self.results).items() if n not in stale}
        filled = {
            name: torch.where(value.isnan(), known[name], value) if name in known else value
            for name, value in imposed.items()
        }
        return known | filled


def _open(value: Tensor) -> bool:
    """Whether some of it is still to be computed."""
    return bool(value.isnan().any())


def downstream(program: Program, names: Collection[str]) -> set[str]:
    """The operations that depend on some values."""
    found: set[str] = set()
    for op in program.operations:
        if any(name in names or name in found for name in op.inputs):
            found.add(op.name)
    return found


def worth_keeping(program: Program, extent: Shape3, room: int) -> list[str] | None:
    """Values that a base run should keep so that gates can be changed.

    Best those from which each gate can be changed without computing the gates before it; where
    they do not fit, those from which all that follows the first gate is computed.

    Parameters
    ----------
    program : Program
        The lowered network.
    extent : tuple of int
        Spatial shape (z, y, x) of the padded input.
    room : int
        Bytes that the kept values may take.

    Returns
    -------
    list of str or None
        Names of nodes; None where not even the fewest fit.
    """
    gates = [gate.node for gate in program.graph.gates]
    each: set[str] = set()
    for gate in gates:
        each |= _read_downstream(program, [gate])
    for names in (each, _read_downstream(program, gates)):
        if _bytes(program, names, extent) <= room:
            return sorted(names)
    return None


def _read_downstream(program: Program, gates: Collection[str]) -> set[str]:
    """What the part downstream of some gates reads of the rest, gates themselves excepted.

    What follows from others of these by one operation, such as a gate's projection of its skip,
    is left out: it is as large as they are and quickly computed.
    """
    below = downstream(program, gates)
    makers = {op.name: op for op in program.operations}
    read = {name for name in below for name in makers[name].inputs} - below
    read -= {gate.node for gate in program.graph.gates}
    read &= makers.keys()
    return {name for name in read if not read.issuperset(makers[name].inputs)}


def _bytes(program: Program, names: Collection[str], extent: Shape3) -> int:
    sizes = {op.name: op.result.itemsize for op in program.operations}
    return sum(prod(program.shape_at(name, extent)) * sizes[name] for name in names)


def run_keeping(
    program: Program, x: Tensor, names: Collection[str]
) -> Generator[Progress, None, Kept]:
    """Run a network over a volume in memory, and keep some values.

    Parameters
    ----------
    program, x
        As of `run_whole`.
    names : collection of str
        Nodes; see `worth_keeping`.

    Raises
    ------
    MemoryBudgetError
        If memory runs out.
    """
    execution = Execution(program, x, {})
    values: dict[str, Tensor] = {}
    results: dict[str, Tensor] = {}
    for op in execution.operations:
        yield from execution.run(op)
        if op.name in names:
            values[op.name] = execution.values[op.name]
        if op.name in execution.wanted:
            results[op.name] = execution.values[op.name].float().cpu()
        execution.forget(op)
    return Kept(program, x, values, results)


def run_again(kept: Kept, imposed: Mapping[str, Tensor]) -> Run:
    """Run the network of a base run with some gates imposed.

    Parameters
    ----------
    kept : Kept
        Of the base run.
    imposed : dict of str to Tensor
        As of `run_whole`.

    Returns
    -------
    dict of str to Tensor
        As of `run_whole`.
    """
    results = yield from run_whole(kept.program, kept.x, kept.start(imposed))
    return {name: results[name] for name in kept.results}
