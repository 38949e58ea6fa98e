"""Planning: how a volume will be run, from what it needs and the memory there is."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from math import prod

import torch

from napari_attention_unet.engine.device import GIB, free_memory
from napari_attention_unet.engine.tiling import Cut, Reach, Tiling, blended_cuts, exact_cuts
from napari_attention_unet.errors import InputError, MemoryBudgetError
from napari_attention_unet.graph.lower import Program
from napari_attention_unet.graph.operations import Operation
from napari_attention_unet.volume import Shape3

#: Ways of running that can be asked for.
PLANS = ("auto", "whole", "tiles")
#: Share of the free memory that a run may take without being asked.
_SHARE = 0.8
#: Beyond the tensors themselves: slabs in the making, kernels' own buffers.
_MARGIN = 1.15
#: Exact tiles are taken up to this many times the work of blended ones.
_WORTH = 2.0


@dataclass(frozen=True)
class Plan:
    """How a volume will be run.

    Attributes
    ----------
    kind : str
        ``"whole"`` or ``"tiles"``.
    reason : str
        Why, for the person at the screen.
    memory : int
        Bytes that the run will take at most on its device, estimated.
    work : float
        Of all its operations, in the unit of `Operation.work`.
    tiling : Tiling or None
        For tiles.
    """

    kind: str
    reason: str
    memory: int
    work: float
    tiling: Tiling | None = None


def memory_budget(device: torch.device, gib: float | None = None) -> int:
    """Bytes that a run may take: what was asked for, or a share of what is free."""
    return int(_SHARE * free_memory(device)) if gib is None else int(gib * GIB)


def check_wish(wish: str) -> None:
    """Refuse a plan that there is not.

    Raises
    ------
    InputError
        The message names those there are.
    """
    if wish == "stream":
        raise InputError(
            "plan='stream' is not available yet; use 'auto', 'whole', or 'tiles', which is exact "
            "as well where the network's reach allows it."
        )
    if wish not in PLANS:
        raise InputError(f"plan='{wish}' is not known; use {', '.join(map(repr, PLANS))}.")


def make_plan(
    program: Program,
    extent: Shape3,
    budget: int,
    wish: str = "auto",
    imposed: Collection[str] = (),
) -> Plan:
    """Decide how a volume will be run.

    Parameters
    ----------
    program : Program
        The lowered network.
    extent : tuple of int
        Spatial shape of the padded input.
    budget : int
        Bytes that may be taken on the program's device.
    wish : str
        ``"auto"`` (whole where it fits, otherwise tiles), ``"whole"`` or ``"tiles"``.
    imposed : collection of str
        Values that will be given instead of computed.

    Raises
    ------
    InputError
        If the wish is not one of these.
    MemoryBudgetError
        If no way fits.
    """
    check_wish(wish)
    planner = _Planner(program, extent, imposed)
    needs = planner.memory(extent)
    fits = f"the whole volume needs {_gib(needs)}, {_gib(budget)} may be used"
    if needs <= budget and wish != "tiles":
        return Plan("whole", fits, needs, planner.work(extent))
    if wish == "whole":
        raise MemoryBudgetError(
            f"{fits[0].upper()}{fits[1:]}; use plan='auto' or 'tiles', allow more memory, or pass "
            "a smaller region."
        )
    if wish == "auto":
        return planner.tiles(budget, fits)
    if needs <= budget:  # tiles smaller than would fit, or it would be a single one
        with suppress(MemoryBudgetError):
            return planner.tiles(planner.held + needs // 2, "as asked for")
    return planner.tiles(budget, "as asked for")


class _Planner:
    def __init__(self, program: Program, extent: Shape3, imposed: Collection[str]) -> None:
        self.program, self.extent = program, extent
        self.wanted = {program.graph.output, *(g.node for g in program.graph.gates)}
        self.operations = program.needed(self.wanted, imposed)
        self.reach = Reach(program, self.operations)
        # tiles are cut of the input and merged in the results: both stay in the host's memory
        both = (program.graph.input, *self.wanted)
        on_host = program.device.type == "cpu"
        self.held = sum(4 * prod(program.shape_at(n, extent)) for n in both) if on_host else 0

    def memory(self, extent: Shape3) -> int:
        """Bytes of all values that are alive at once at worst."""
        return int(_MARGIN * peak_bytes(self.program, self.operations, self.wanted, extent))

    def work(self, extent: Shape3) -> float:
        """Of a run over an input of that extent."""
        shape_at = self.program.shape_at
        return sum(
            op.work(shape_at(op.name, extent), [shape_at(n, extent) for n in op.inputs])
            for op in self.operations
        )

    def tiles(self, budget: int, why: str) -> Plan:
        """Exact tiles where they are worth it, blended ones otherwise."""
        room = budget - self.held
        blended = self._blended(room)
        exact = self._exact(room) if self.reach.bounded else None
        if exact is not None and (blended is None or exact.voxels <= _WORTH * blended.voxels):
            chosen = exact
        elif blended is not None:
            chosen = blended
        else:
            least = self.held + self.memory(self.program.graph.stride)
            raise MemoryBudgetError(
                f"Even in the smallest tiles this run needs {_gib(least)}, and {_gib(budget)} may "
                "be used. Close other programs, allow more memory, or pass a smaller region."
            )
        work = chosen.voxels / prod(self.extent)
        size = "×".join(str(n) for n in chosen.largest)
        how = "exact margins" if chosen.exact else "blended, an approximation"
        reason = f"{why}: {chosen.count} tiles of up to {size} voxels, {how}, {work:.2g}× the work"
        if not chosen.exact and not self.reach.bounded:
            culprits = ", ".join(self.program.unknown) or "its statistics or resampling"
            reason += f"; the network looks at the whole volume ({culprits})"
        total = self.work(self.extent) * work
        memory = self.held + self.memory(chosen.largest)
        return Plan("tiles", reason, memory, total, chosen)

    def _exact(self, budget: int) -> Tiling | None:
        """The exact tiling of least work that fits."""
        cells = [n // s for n, s in zip(self.extent, self.program.graph.stride, strict=True)]
        options: list[list[tuple[Cut, ...]]] = [
            [exact_cuts(self.reach, self.extent, axis, parts) for parts in _counts(cells[axis])]
            for axis in range(3)
        ]
        tilings = [Tiling((z, y, x), exact=True) for z, y, x in product(*options)]
        a_voxel = self.memory(self.extent) / prod(self.extent)
        for tiling in sorted(tilings, key=lambda t: (t.voxels, t.count)):
            # the estimate by volume spares most of the slow exact ones
            near = a_voxel * prod(tiling.largest) < 1.5 * budget
            if near and self.memory(tiling.largest) <= budget:
                return tiling
        return None

    def _blended(self, budget: int) -> Tiling | None:
        """The largest tiles that fit, as near to cubes as the volume allows."""
        stride = self.program.graph.stride
        lengths = list(self.extent)
        while self.memory((lengths[0], lengths[1], lengths[2])) > budget:
            axis = max(range(3), key=lambda k: (lengths[k] > stride[k], lengths[k]))
            if lengths[axis] <= stride[axis]:
                return None
            cells = lengths[axis] // stride[axis]
            lengths[axis] = max(1, cells * 3 // 4) * stride[axis]
        z, y, x = (
            blended_cuts(n, length, s)
            for n, length, s in zip(self.extent, lengths, stride, strict=True)
        )
        return Tiling((z, y, x), exact=False)


def peak_bytes(
    program: Program, operations: Sequence[Operation], wanted: Collection[str], extent: Shape3
) -> int:
    """Bytes of the values that a whole run holds at once at worst, results included."""

    def size(name: str, dtype: torch.dtype) -> int:
        return prod(program.shape_at(name, extent)) * dtype.itemsize

    last = {name: op.name for op in operations for name in (op.name, *op.inputs)}
    alive = {program.graph.input: size(program.graph.input, torch.float32)}
    results = peak = 0
    for op in operations:
        alive[op.name] = size(op.name, op.dtype)
        peak = max(peak, results + sum(alive.values()))
        if op.name in wanted:
            results += size(op.name, torch.float32)
        for name in (op.name, *op.inputs):
            if last[name] == op.name:
                alive.pop(name, None)
    return peak


def _counts(cells: int) -> list[int]:
    """Numbers of parts that are worth trying: all small ones, then sparser."""
    wanted = [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 64]
    return [n for n in wanted if n <= cells]


def _gib(count: int) -> str:
    return f"{count / GIB:.2g} GiB" if count < 100 * GIB else f"{count / GIB:.0f} GiB"
