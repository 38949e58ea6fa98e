"""One large zarr volume on a Dask cluster, as exact blocks that do not depend on each other.

Each block reads as far around the part that it keeps as the network looks, so the result is that of
a run of the whole; statistics for the normalisation are taken over the whole volume first. Blocks
end at the ends of chunks, so no two write to one chunk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator
from dataclasses import asdict, dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_attention_unet.errors import InputError
from napari_attention_unet.io import read

from .cluster import RETRIES, one_at_a_time
from .work import Order, load

if TYPE_CHECKING:
    import torch
    from distributed import Client

    from napari_attention_unet.engine.tiling import Cut, Reach
    from napari_attention_unet.graph.lower import Program
    from napari_attention_unet.job import Job
    from napari_attention_unet.preprocess import Measured
    from napari_attention_unet.targets import Kind

#: Voxels of a block along each axis, at most; rounded down to the network's stride.
BLOCK = 256
_LARGEST_CHUNK = 128
#: Attribute of the group and array that say what it holds and which blocks are written.
KEY, WRITTEN = "attention_unet", "written"


@dataclass(frozen=True)
class Block:
    """A block of a volume.

    Attributes
    ----------
    index : int
        Of the block.
    cuts : tuple of Cut
        What it reads and keeps along z, y, x of the padded volume.
    """

    index: int
    cuts: tuple[Cut, Cut, Cut]


@dataclass(frozen=True)
class BlockStep:
    """Progress: `done` of `total` blocks."""

    done: int
    total: int
    message: str = ""


def block_steps(
    client: Client, order: Order, path: str, out: str, block: int = BLOCK
) -> Generator[BlockStep, None, None]:
    """Run one zarr volume on the workers of a cluster and write mask and gates into a zarr group.

    Parameters
    ----------
    client : distributed.Client
        Of the cluster; paths have to mean the same on its workers.
    order : Order
        Model and settings; `Order.resume` leaves out blocks that an equal run wrote.
    path : str
        The volume.
    out : str
        Folder of the zarr group, with the arrays ``mask`` and ``gates/<name>``.
    block : int
        See `BLOCK`.

    Yields
    ------
    BlockStep
        After each block; closing the generator cancels the others, those written stay.

    Raises
    ------
    InputError
        If the volume cannot be cut so: the network takes statistics of the whole volume, or the
        volume has to be turned or resampled for it.
    """
    import zarr
    from distributed import as_completed

    from napari_attention_unet.graph.lower import finished
    from napari_attention_unet.preprocess import measure
    from napari_attention_unet.reader import Reader

    job, program = _job(order, path), _program(order)
    reach = _reach(job, program)
    blocks = _blocks(job, reach, block)
    yield BlockStep(0, len(blocks), "Measuring intensities")
    reader = Reader(job.volume, job.frame)
    try:
        measured = finished(measure(reader, job.frame, job.normalization))
    finally:
        reader.close()
    group = zarr.open_group(out, mode="a")
    about = _about(job, path, measured, block)
    waiting = _prepare(group, job, about, blocks, block, resume=order.resume)
    futures = [
        client.submit(_run, order, path, out, each, measured, pure=False, retries=RETRIES)
        for each in waiting
    ]
    done = len(blocks) - len(waiting)
    yield BlockStep(done, len(blocks))
    try:
        for future in as_completed(futures):  # type: ignore[no-untyped-call]
            future.result()  # raises what the block raised
            done += 1
            yield BlockStep(done, len(blocks))
    finally:
        client.cancel([future for future in futures if not future.done()])  # type: ignore[no-untyped-call]
    group.attrs[KEY] = {**about, "complete": True}


def _job(order: Order, path: str) -> Job:
    from napari_attention_unet.job import job_for

    volumes = read(path)
    if len(volumes) != 1:
        raise InputError(f"'{path}' is a time series; run its time points as volumes.")
    job = job_for(load(order), volumes[0], order.settings)
    frame = job.frame
    if frame.axes != (0, 1, 2) or any(frame.flipped) or frame.size != frame.shape:
        raise InputError(
            f"'{path}' has to be turned or resampled for this model, which blocks cannot do. Save "
            "it in the orientation and voxel size of the model, or run it whole."
        )
    return job


def _program(order: Order) -> Program:
    """The network where its reach is worked out; workers lower their own."""
    import torch

    return load(order).program(torch.device("cpu"), torch.float32)


def _reach(job: Job, program: Program) -> Reach:
    from napari_attention_unet.engine.tiling import Reach

    wanted = {program.graph.output, *(gate.node for gate in program.graph.gates)}
    reach = Reach(program, program.needed(wanted, job.imposed))
    if not reach.bounded:
        raise InputError(
            f"'{job.model.name}' looks at the whole volume for each voxel (statistics over it, or "
            "aligned resampling), so blocks of it cannot be run by themselves. Run whole volumes "
            "on the cluster instead."
        )
    return reach


def _blocks(job: Job, reach: Reach, size: int) -> list[Block]:
    lines = []
    for axis, (extent, stride) in enumerate(zip(job.frame.padded, job.model.stride, strict=True)):
        step = _edge(size, stride)
        keeps = [(low, min(low + step, extent)) for low in range(0, extent, step)]
        lines.append([reach.cut(job.frame.padded, axis, keep) for keep in keeps])
    return [Block(index, (z, y, x)) for index, (z, y, x) in enumerate(product(*lines))]


def _edge(size: int, stride: int) -> int:
    return max(1, size // stride) * stride


def _about(job: Job, path: str, measured: Measured, block: int) -> dict[str, Any]:
    """What the values depend on."""
    card = hashlib.sha256(job.model.card.to_json().encode()).hexdigest()
    about = {
        "path": path,
        "shape": list(job.volume.data.shape),
        "measured": asdict(measured),
        "model": job.model.name,
        "sha256": job.model.sha256,
        "card": card,
        "settings": job.settings.as_json(),
        "block": block,
    }
    plain: dict[str, Any] = json.loads(json.dumps(about))
    return plain


def _prepare(
    group: Any, job: Job, about: dict[str, Any], blocks: list[Block], size: int, *, resume: bool
) -> list[Block]:
    """Make the arrays, or find those of an equal run; the blocks that are still to be written."""
    from napari_attention_unet.collect import kinds_of

    earlier = dict(group.attrs.get(KEY, {}))
    earlier.pop("complete", None)
    if resume and earlier == about and WRITTEN in group:
        written = group[WRITTEN][:]
        group.attrs[KEY] = {**about, "complete": False}
        return [block for block in blocks if not written[block.index]]
    group.attrs[KEY] = {"complete": False}
    for kind in kinds_of(job.model, job.frame, job.settings):
        shape = kind.shape(job.frame)
        group.create_array(
            kind.name,
            shape=shape,
            dtype=kind.dtype,
            chunks=(*shape[:-3], *_chunks(kind, job, size)),
            overwrite=True,
            attributes=dict(kind.attributes),
        )
    group.create_array(WRITTEN, shape=(len(blocks),), chunks=(1,), dtype=np.uint8, overwrite=True)
    group.attrs[KEY] = {**about, "complete": False}
    return blocks


def _chunks(kind: Kind, job: Job, size: int) -> list[int]:
    """Chunks that end where blocks do."""
    graph, padded = job.model.graph, job.frame.padded
    nodes = {f"gates/{gate.name}": gate.node for gate in graph.gates}
    whole = graph.shape_at(nodes[kind.name], padded)[2:] if kind.name in nodes else padded
    made = []
    for samples, extent, stride, kept in zip(
        whole, padded, job.model.stride, kind.turned, strict=True
    ):
        chunk = max(1, _edge(size, stride) * samples // extent)
        while chunk > _LARGEST_CHUNK and chunk % 2 == 0:
            chunk //= 2
        made.append(min(chunk, max(1, kept)))
    return made


def _run(order: Order, path: str, out: str, block: Block, measured: Measured) -> int:
    """On a worker: run a block and write what it keeps."""
    import zarr

    with one_at_a_time:
        job = _job(order, path)
        group: Any = zarr.open_group(out, mode="r+")
        for name, start, values in _computed(job, block, measured):
            array = group[name]
            box = tuple(
                slice(a, min(a + n, size))
                for a, n, size in zip(start, values.shape[-3:], array.shape[-3:], strict=True)
            )
            if all(b.start < b.stop for b in box):
                kept = values[(..., *(slice(0, b.stop - b.start) for b in box))]
                array[(*(slice(None),) * (array.ndim - 3), *box)] = kept
        group[WRITTEN][block.index] = 1
    return block.index


def _computed(
    job: Job, block: Block, measured: Measured
) -> list[tuple[str, tuple[int, int, int], Any]]:
    """Arrays of the part that a block keeps, and where each begins."""
    from napari_attention_unet.collect import kinds_of
    from napari_attention_unet.engine.tiling import samples_per_voxel
    from napari_attention_unet.engine.whole import run_whole
    from napari_attention_unet.graph.geometry import grid_of
    from napari_attention_unet.graph.lower import finished
    from napari_attention_unet.postprocess import activate, label
    from napari_attention_unet.preprocess import Prepared
    from napari_attention_unet.reader import Reader

    model, frame, settings = job.model, job.frame, job.settings
    program = model.program(job.device, job.dtype)
    box = [slice(cut.start, cut.stop) for cut in block.cuts]
    reader = Reader(job.volume, frame)
    try:
        planes = Prepared(reader, frame, measured, model.card.padding_value)
        x = planes.read((box[0], box[1], box[2])).contiguous()
    finally:
        reader.close()
    results = finished(run_whole(program, x))

    def kept(name: str) -> tuple[tuple[int, int, int], torch.Tensor]:
        starts: list[int] = []
        parts: list[slice] = []
        whole = program.shape_at(name, frame.padded)[2:]
        for axis, cut in enumerate(block.cuts):
            ratio = samples_per_voxel(program, name, axis)
            low = int(cut.keep_start * ratio)
            last = cut.keep_stop == frame.padded[axis]
            high = whole[axis] if last else int(cut.keep_stop * ratio)
            first = int(cut.start * ratio)
            starts.append(low)
            parts.append(slice(low - first, high - first))
        return (starts[0], starts[1], starts[2]), results[name][0][(slice(None), *parts)]

    kinds = {kind.name: kind for kind in kinds_of(model, frame, settings)}
    start, output = kept(model.graph.output)
    mask = label(output, job.activation, settings.threshold, len(model.classes))
    made = [("mask", start, kinds["mask"].encoded(mask.numpy()))]
    for name in ("probabilities", "logits"):
        if name in kinds:
            values = activate(output, job.activation) if name == "probabilities" else output
            made.append((name, start, values.numpy()))
    for gate in model.gates:
        begin, values = kept(gate.node)
        name, grid = f"gates/{gate.name}", grid_of(model.graph, gate.node, frame.padded)
        shape = program.shape_at(gate.node, frame.padded)[2:]
        if any(low for low, _ in frame.kept(shape, grid.scale, grid.translate)):
            raise InputError(f"Samples of '{gate.name}' lie before the volume; run it whole.")
        made.append((name, begin, kinds[name].encoded(values[0].numpy())))
    return made
