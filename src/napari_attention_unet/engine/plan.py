"""Planning: how a volume will be run, from what it needs and the memory there is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from math import lcm, prod

import torch
from torch import Tensor

from napari_attention_unet.engine.device import GIB, free_memory
from napari_attention_unet.engine.stream_plan import (
    StreamPlan,
    plan_stream,
    results_of,
    streamable,
)
from napari_attention_unet.engine.tiling import (
    Cut,
    Reach,
    Tiling,
    blended_cuts,
    exact_cuts,
    samples_per_voxel,
)
from napari_attention_unet.errors import InputError, MemoryBudgetError
from napari_attention_unet.graph.lower import Program
from napari_attention_unet.graph.operations import Operation
from napari_attention_unet.volume import Shape3

#: Ways of running that can be asked for.
PLANS = ("auto", "whole", "stream", "tiles")
#: Share of the free memory that a run may take without being asked.
_SHARE = 0.8
#: Voxels from which streaming is faster on a CPU, up to twice.
_LARGE = 1 << 20
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
        ``"whole"``, ``"stream"`` or ``"tiles"``.
    reason : str
        Why, for the person at the screen.
    memory : int
        Bytes that the run will take at most on its device, estimated.
    work : float
        Of all its operations, in the unit of `Operation.work`.
    stream : StreamPlan or None
        For streaming.
    tiling : Tiling or None
        For tiles.
    """

    kind: str
    reason: str
    memory: int
    work: float
    stream: StreamPlan | None = None
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
    if wish not in PLANS:
        raise InputError(f"plan='{wish}' is not known; use {', '.join(map(repr, PLANS))}.")


def make_plan(
    program: Program,
    extent: Shape3,
    budget: int,
    wish: str = "auto",
    imposed: Mapping[str, Tensor] | None = None,
    *,
    held: int = 0,
    tile: Shape3 | None = None,
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
        ``"auto"`` (on a CPU stream where it is worth it; otherwise whole where that fits, then
        stream, then tiles), or one of these.
    imposed : dict of str to Tensor, optional
        Values that will be given instead of computed, where they are not NaN.
    held : int
        Bytes of the budget that the run takes however it is run.
    tile : tuple of int, optional
        Size of blended tiles; the plan is tiles then.

    Raises
    ------
    InputError
        If the wish is not one of these, or the network cannot be run so.
    MemoryBudgetError
        If no way fits.
    """
    check_wish(wish)
    planner = _Planner(program, extent, imposed or {}, budget, held)
    if program.graph.fixed:
        return planner.one_size(wish, tile)
    if tile is not None:
        return planner.tiles("as asked for", planner.sized(tile))
    if wish == "whole":
        return planner.whole(strictly=True)
    if wish == "stream":
        return planner.stream("as asked for")
    if wish == "tiles":
        return planner.smaller_tiles()
    if planner.streams_faster:
        with suppress(MemoryBudgetError):
            return planner.stream("the fastest way")
    why = planner.misfit
    if not why:
        return planner.whole()
    if not planner.obstacles:
        with suppress(MemoryBudgetError):
            return planner.stream(why)
    else:
        why += f"; it cannot be streamed because of {', '.join(planner.obstacles)}"
    return planner.tiles(why)


class _Planner:
    def __init__(
        self,
        program: Program,
        extent: Shape3,
        imposed: Mapping[str, Tensor],
        budget: int,
        held: int,
    ) -> None:
        self.program, self.extent = program, extent
        self.budget, self.held = budget, held
        self.room = budget - held
        self.given = [name for name, value in imposed.items() if not value.isnan().any()]
        self.wanted = results_of(program)
        self.operations = program.needed(self.wanted, self.given)
        self.obstacles = streamable(program)
        self.reach = Reach(program, self.operations)
        self.needs = self.memory(extent)
        on_host = program.device.type == "cpu"
        # a row of tiles is read and merged in the host's memory
        self.merged = (program.graph.input, *self.wanted) if on_host else ()

    @property
    def misfit(self) -> str:
        """Why the volume cannot be run as a whole; empty if it can."""
        return "" if self.needs <= self.room else self.fits

    @property
    def fits(self) -> str:
        """What is needed and what there is."""
        needs = _gib(self.needs + self.held)
        return f"the whole volume needs {needs}, {_gib(self.budget)} may be used"

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

    def whole(self, *, strictly: bool = False) -> Plan:
        """All at once."""
        if strictly and self.misfit:
            raise MemoryBudgetError(
                f"{self.fits[0].upper()}{self.fits[1:]}; use plan='auto', 'stream' or 'tiles', "
                "allow more memory, or pass a smaller region."
            )
        return Plan("whole", self.fits, self.needs + self.held, self.work(self.extent))

    @property
    def streams_faster(self) -> bool:
        """Whether blocks that stay in the cache outweigh the setting up."""
        large = prod(self.extent) >= _LARGE
        return large and self.program.device.type == "cpu" and not self.obstacles

    def stream(self, why: str) -> Plan:
        """Plane by plane, exactly."""
        if self.obstacles:
            raise InputError(
                f"This network cannot be streamed because of {', '.join(self.obstacles)}; use "
                "plan='auto', 'whole' or 'tiles'."
            )
        stream = plan_stream(self.program, self.extent, self.room, self.given)
        pieces = f"in {stream.parts} parts of the plane" if stream.parts > 1 else "plane by plane"
        memory = stream.memory + self.held
        reason = f"{why}: {pieces}, exact, in {_gib(memory)}"
        return Plan("stream", reason, memory, stream.work, stream=stream)

    def one_size(self, wish: str, tile: Shape3 | None) -> Plan:
        """For a network that takes inputs of one size."""
        only = self.program.graph.stride
        size = "×".join(map(str, only))
        if wish == "stream" or tile not in (None, only):
            raise InputError(
                f"This network takes {size} voxels and no other size: use plan='auto' or 'tiles'."
            )
        if self.extent == only and wish != "tiles":
            return self.whole(strictly=True)
        if wish == "whole":
            raise InputError(
                f"This network takes {size} voxels, and the volume is larger: use plan='tiles'."
            )
        return self.tiles(f"the network takes {size} voxels alone", self._tiling_of(only))

    def smaller_tiles(self) -> Plan:
        """Tiles that were asked for: smaller than would fit, or it would be a single one."""
        if not self.misfit:
            room, self.room = self.room, self.needs // 2
            with suppress(MemoryBudgetError):
                return self.tiles("as asked for")
            self.room = room
        return self.tiles("as asked for")

    def sized(self, tile: Shape3) -> Tiling:
        """Blended tiles of a size that was asked for."""
        stride = self.program.graph.stride
        if any(n % s for n, s in zip(tile, stride, strict=True)):
            near = "×".join(str(-(-n // s) * s) for n, s in zip(tile, stride, strict=True))
            raise InputError(
                f"tile={tile}: this network takes multiples of {'×'.join(map(str, stride))}, such "
                f"as {near}."
            )
        return self._tiling_of(tile)

    def tiles(self, why: str, chosen: Tiling | None = None) -> Plan:
        """Exact tiles where they are worth it, blended ones otherwise."""
        if chosen is None:
            blended = self._blended()
            exact = self._exact() if self.reach.bounded else None
            worth = exact is not None and (
                blended is None or exact.voxels <= _WORTH * blended.voxels
            )
            chosen = exact if worth else blended
        elif self._tile_memory(chosen) > self.room:
            least = self.held + self._tile_memory(chosen)
            raise MemoryBudgetError(
                f"In tiles of that size this run needs {_gib(least)}, and {_gib(self.budget)} may "
                "be used. Close other programs, or allow more memory."
            )
        if chosen is None:
            stride = self.program.graph.stride
            least = self.held + self._tile_memory(self._tiling_of(stride))
            raise MemoryBudgetError(
                f"Even in the smallest tiles this run needs {_gib(least)}, and "
                f"{_gib(self.budget)} may be used. Close other programs, allow more memory, or "
                "pass a smaller region."
            )
        work = chosen.voxels / prod(self.extent)
        size = "×".join(str(n) for n in chosen.largest)
        how = "exact margins" if chosen.exact else "blended, an approximation"
        reason = f"{why}: {chosen.count} tiles of up to {size} voxels, {how}, {work:.2g}× the work"
        if not chosen.exact and not self.reach.bounded:
            culprits = ", ".join(self.program.unknown) or "its statistics or resampling"
            reason += f"; the network looks at the whole volume ({culprits})"
        total = self.work(self.extent) * work
        memory = self.held + self._tile_memory(chosen)
        return Plan("tiles", reason, memory, total, tiling=chosen)

    def _tile_memory(self, tiling: Tiling) -> int:
        """Bytes of the largest tile, and of the rows of tiles that are held."""
        row = (tiling.largest[0], *self.extent[1:])
        # the input once; results of this row, and those of the row before as they are handed over
        rows = sum(
            4 * prod(self.program.shape_at(name, row)) * (1 if index == 0 else 2)
            for index, name in enumerate(self.merged)
        )
        return rows + self.memory(tiling.largest)

    def _exact(self) -> Tiling | None:
        """The exact tiling of least work that fits."""
        cells = [n // s for n, s in zip(self.extent, self.program.graph.stride, strict=True)]
        options: list[list[tuple[Cut, ...]]] = [
            [exact_cuts(self.reach, self.extent, axis, parts) for parts in _counts(cells[axis])]
            for axis in range(3)
        ]
        tilings = [Tiling((z, y, x), exact=True) for z, y, x in product(*options)]
        a_voxel = self.needs / prod(self.extent)
        for tiling in sorted(tilings, key=lambda t: (t.voxels, t.count)):
            # the estimate by volume spares most of the slow exact ones
            near = a_voxel * prod(tiling.largest) < 1.5 * self.room
            if near and self._tile_memory(tiling) <= self.room:
                return tiling
        return None

    def _blended(self) -> Tiling | None:
        """The largest tiles that fit, as near to cubes as the volume allows."""
        stride = self.program.graph.stride
        lengths = list(self.extent)
        while self._tile_memory(tiling := self._tiling_of(lengths)) > self.room:
            axis = max(range(3), key=lambda k: (lengths[k] > stride[k], lengths[k]))
            if lengths[axis] <= stride[axis]:
                return None
            cells = lengths[axis] // stride[axis]
            lengths[axis] = max(1, cells * 3 // 4) * stride[axis]
        return tiling

    def _step(self) -> Shape3:
        """Multiples at which tiles start: every grid lies in a tile as in the whole."""
        if not self.program.graph.fixed:
            return self.program.graph.stride
        z, y, x = (
            lcm(*(samples_per_voxel(self.program, name, axis).denominator for name in self.wanted))
            for axis in range(3)
        )
        return z, y, x

    def _tiling_of(self, lengths: Sequence[int]) -> Tiling:
        """Blended tiles of one size."""
        stride = self._step()
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
        alive[op.name] = size(op.name, op.result)
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
