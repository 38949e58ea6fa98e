"""Volumes that stay on disk: whether memory grows with depth, whether a large one fits a budget."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

from napari_attention_unet.engine.device import GIB
from napari_attention_unet.graph.receptive import receptive_field
from napari_attention_unet.model import load_model
from napari_attention_unet.prediction import Step
from napari_attention_unet.volume import Shape3

from .children import CHILD, run_child
from .compare import truth
from .how import How
from .networks import network
from .results import Row

FLAT, LARGE = "flat-memory", "large"
_PLANES: Shape3 = (512, 192, 192)
_TIMES_DEEPER = 4
_LARGE: Shape3 = (512, 1024, 1024)
_BUDGET = 6.0
FLAT_AIMS = {FLAT: "≤ 1.15×"}
LARGE_AIMS = {LARGE: f"≤ {_BUDGET:g} GiB, exact"}
#: Intensities that the network sees as 0 and 1.
_WINDOW = (0, 4096)
_CHUNK_PLANES = 16
#: Edge of the blocks that are computed again, in voxels.
_BLOCK = 32


def write_noise(path: Path, size: Shape3, seed: int = 0) -> None:
    """A uint16 zarr array of noise with a slow wave in it, written chunk by chunk."""
    z, y, x = size
    chunks = tuple(min(n, c) for n, c in zip(size, (_CHUNK_PLANES, 256, 256), strict=True))
    array = zarr.create_array(path, shape=size, chunks=chunks, dtype="uint16")
    rng = np.random.default_rng(seed)
    wave = 700 * np.sin(np.arange(y) / 23)[:, None] * np.cos(np.arange(x) / 31)
    for start in range(0, z, _CHUNK_PLANES):
        count = min(_CHUNK_PLANES, z - start)
        slab = rng.normal(2000, 300, (count, y, x)).astype(np.float32) + wave.astype(np.float32)
        array[start : start + count] = slab.clip(0, 65535).astype(np.uint16)


def _run(folder: Path, size: Shape3, **job: Any) -> dict[str, Any]:
    """Write a volume, run it in a fresh process."""
    folder.mkdir()
    source = folder / "volume.zarr"
    write_noise(source, size)
    return run_child(
        CHILD,
        {
            "job": "lazy",
            "input": str(source),
            "output": str(folder / "result.zarr"),
            "window": _WINDOW,
            "threads": torch.get_num_threads(),
            **job,
        },
    )


def flat_steps(how: How) -> Generator[Step, None, list[Row]]:
    """Peak memory of a deep volume over that of a less deep one, streamed from zarr to zarr."""
    z, y, x = how.size or _PLANES
    sizes: list[Shape3] = [(z, y, x), (_TIMES_DEEPER * z, y, x)]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for index, size in enumerate(sizes):
            yield Step(index, 2, f"{size[0]} planes of {y}×{x}, zarr in and out")
            run = _run(
                Path(folder) / str(index), size, network="blog16", precision="auto", plan="stream"
            )
            found.append(run)
    shallow, deep = (run["peak"] for run in found)
    reached = deep / shallow
    text = (
        f"{reached:.3f}×: {_gib(shallow)} at {z} planes ({found[0]['seconds']:.0f} s), "
        f"{_gib(deep)} at {_TIMES_DEEPER * z} ({found[1]['seconds']:.0f} s); of it "
        f"{_gib(found[0]['before'])} before the run"
    )
    title = (
        f"blog16, auto precision, plan stream, planes of {y}×{x}, zarr in and out: peak memory of "
        f"the process at {_TIMES_DEEPER * z} planes over {z}"
    )
    return [Row(FLAT, title, FLAT_AIMS[FLAT], reached, text, {"runs": found})]


def large_steps(how: How) -> Generator[Step, None, list[Row]]:
    """A large volume within a budget for the process, blocks of it computed again."""
    size = how.size or _LARGE
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "large"
        yield Step(0, 4, f"{'×'.join(map(str, size))} voxels, zarr in and out")
        job = {"network": "blog8", "precision": "float32", "plan": "auto", "budget_gib": _BUDGET}
        found = _run(folder, size, **job)
        for index, corner in enumerate(_corners(size)):
            yield Step(1 + index, 4, "computing a block again")
            found.setdefault("blocks", []).append(check_block(folder, found["gates"], corner))
    worst = max(max(b["gates"].values()) for b in found["blocks"])
    labels = sum(b["labels"] for b in found["blocks"])
    text = (
        f"{_gib(found['peak'])} at most, {found['seconds']:.0f} s, {found['plan']}; in "
        f"{len(found['blocks'])} blocks {labels} other labels, gates to {worst:.1e}"
    )
    title = (
        f"{'×'.join(map(str, size))} uint16 zarr in and out, blog8, float32, "
        f"{_BUDGET:g} GiB for the process: peak memory in GiB"
    )
    reached = found["peak"] / GIB
    return [Row(LARGE, title, LARGE_AIMS[LARGE], reached, text, found)]


def _corners(size: Shape3) -> list[Shape3]:
    """First voxels of the blocks that are checked: both ends and the middle."""
    last = [max(0, (n - _BLOCK) // 16 * 16) for n in size]
    middle = [n // 2 // 16 * 16 for n in last]
    return [(0, 0, 0), (middle[0], middle[1], middle[2]), (last[0], last[1], last[2])]


def check_block(folder: Path, gates: dict[str, Any], corner: Shape3) -> dict[str, Any]:
    """Compare a block with the forward of a crop that holds all that the block depends on.

    The crop starts at multiples of the network's stride, so that its grids lie as in the whole.

    Returns
    -------
    dict
        ``"labels"`` that differ, and the largest difference of each of the ``"gates"``.
    """
    source = zarr.open_array(folder / "volume.zarr", mode="r")
    result: Any = zarr.open_group(folder / "result.zarr", mode="r")
    module = network("blog8")
    graph = load_model(module).graph
    reach = max(receptive_field(graph, graph.output))
    halo = -(-int(reach) // 2 // 16) * 16
    low = [max(0, c - halo) for c in corner]
    high = [min(n, c + _BLOCK + halo) for n, c in zip(source.shape, corner, strict=True)]
    crop = np.asarray(source[tuple(slice(a, b) for a, b in zip(low, high, strict=True))])
    zero, one = _WINDOW
    true = truth(module, ((crop.astype(np.float32) - zero) / (one - zero)).clip(0, 1))
    stop = [min(n, c + _BLOCK) for n, c in zip(source.shape, corner, strict=True)]
    there = tuple(slice(a, b) for a, b in zip(corner, stop, strict=True))
    here = tuple(slice(a - o, b - o) for a, b, o in zip(corner, stop, low, strict=True))
    labels = int((true.logits.argmax(0)[here] != np.asarray(result["mask"][there])).sum())
    differences = {}
    for name, grid in gates.items():
        stride = [round(s) for s in grid["scale"]]
        at = tuple(slice(s.start // n, s.stop // n) for s, n in zip(there, stride, strict=True))
        within = tuple(slice(s.start // n, s.stop // n) for s, n in zip(here, stride, strict=True))
        values = np.asarray(result[f"gates/{name}"][at], np.float32)
        differences[name] = float(np.abs(values - true.gates[name][within]).max())
    return {"corner": list(corner), "labels": labels, "gates": differences}


def _gib(count: float) -> str:
    return f"{count / GIB:.2f} GiB"
