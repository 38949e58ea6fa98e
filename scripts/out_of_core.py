"""Run a volume that is larger than the memory a run may take, and check it block by block.

A zarr volume of uint16 noise around a few bright bodies is made in the folder, a network of the
blog's kind with random weights is streamed over it into a zarr group, and the logits of a few
blocks are compared with those of a run over the block and all that the network sees around it.

    python scripts/out_of_core.py FOLDER --shape 512,1024,1024 --width 8 --memory 6
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
import torch
import zarr

import napari_attention_unet as nau
from napari_attention_unet.engine.tiling import Reach
from napari_attention_unet.engine.whole import run_whole
from napari_attention_unet.frame import frame_for
from napari_attention_unet.graph.lower import finished
from napari_attention_unet.models.attention_unet_3d import AttentionUNet3D
from napari_attention_unet.preprocess import Prepared, measure
from napari_attention_unet.reader import Reader

GIB = 1 << 30


def make_volume(path: Path, shape: tuple[int, int, int]) -> zarr.Array:
    """A zarr array in chunks of 64 voxels, made a row of chunks at a time."""
    if path.exists():
        return zarr.open_array(path, mode="r")
    array = zarr.create_array(str(path), shape=shape, dtype="uint16", chunks=(64, 128, 128))
    rng = np.random.default_rng(0)
    _, y, x = np.ogrid[:1, : shape[1], : shape[2]]
    for start in range(0, shape[0], 64):
        z = np.arange(start, min(start + 64, shape[0]))[:, None, None]
        bodies = np.sin(z / 23) * np.sin(y / 31) * np.sin(x / 41) > 0.4
        noise = rng.normal(1000, 120, bodies.shape).astype(np.float32)
        array[start : start + 64] = (noise + 900 * bodies).astype(np.uint16)
    return array


def make_model(width: int) -> nau.Model:
    """A network of four levels that gives varied logits."""
    generator = torch.Generator().manual_seed(0)
    module = AttentionUNet3D(1, 3, tuple(width * 2**k for k in range(4))).eval()
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, torch.nn.Conv3d | torch.nn.ConvTranspose3d):
                scale = (2 / part.weight[0].numel()) ** 0.5
                part.weight.normal_(0, scale, generator=generator)
    return nau.load_model(module, name=f"blog-{width}")


def peak() -> float:
    """Most memory that the process ever had resident, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


def worst_of_blocks(model: nau.Model, volume: nau.Volume, group: zarr.Group, size: int) -> float:
    """Largest difference of logits in blocks at an end, at an edge and in the middle."""
    frame = frame_for(volume, model.card, model.stride)
    reader = Reader(volume, frame)
    planes = Prepared(reader, frame, finished(measure(reader, frame, model.card.normalization)))
    dtype = getattr(torch, group.attrs["attention_unet"]["precision"])
    program = model.program(torch.device("cpu"), dtype)
    reach = Reach(program, program.operations)
    worst = 0.0
    corners = [(0, 0, 0), tuple(n - size for n in frame.size), tuple(n // 2 for n in frame.size)]
    for corner in corners:
        stride = model.stride
        keep = [
            (low // s * s, min(-(-(low + size) // s) * s, n))
            for low, s, n in zip(corner, stride, frame.padded, strict=True)
        ]
        cuts = [reach.cut(frame.padded, axis, keep[axis]) for axis in range(3)]
        x = planes.read(tuple(slice(cut.start, cut.stop) for cut in cuts))
        logits = finished(run_whole(program, x))[model.graph.output][0]
        here = tuple(slice(a, a + size) for a in corner)
        there = tuple(
            slice(a - cut.start, a - cut.start + size) for a, cut in zip(corner, cuts, strict=True)
        )
        difference = np.abs(group["logits"][(slice(None), *here)] - logits[(..., *there)].numpy())
        print(
            f"block at {corner}: largest difference of logits {difference.max():.2e}, "
            f"their spread {float(logits.std()):.2f}",
            flush=True,
        )
        worst = max(worst, float(difference.max()))
    reader.close()
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", default="512,1024,1024")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--memory", type=float, default=6.0, help="GiB for the process")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--block", type=int, default=16)
    given = parser.parse_args()
    z, y, x = (int(n) for n in given.shape.split(","))
    given.folder.mkdir(parents=True, exist_ok=True)
    volume = nau.Volume.from_array(make_volume(given.folder / "volume.zarr", (z, y, x)))
    model = make_model(given.width)
    base = peak()
    print(f"the process holds {base:.2f} GiB before the run", flush=True)
    group = zarr.open_group(given.folder / "result.zarr", mode="a")
    started, said = time.perf_counter(), 0.0
    for step in nau.predict_steps(
        model,
        volume,
        device="cpu",
        precision=given.precision,
        memory=given.memory - base,
        outputs=("logits",),
        out=group,
    ):
        now = time.perf_counter() - started
        if now - said > 20 or step.prediction is not None:
            said = now
            print(f"{now:6.0f} s  {step.done / step.total:4.0%}  {step.message}", flush=True)
    seconds = time.perf_counter() - started
    about = group.attrs["attention_unet"]
    print(f"{about['plan']}: {about['plan_reason']}")
    print(f"notes: {about['notes']}")
    print(f"{seconds:.0f} s, {z * y * x / seconds / 1e6:.2f} million voxels a second")
    print(f"peak memory of the process {peak():.2f} GiB of {given.memory:g} GiB")
    worst = worst_of_blocks(model, volume, group, given.block)
    print(f"worst of all blocks, in {about['precision']}: {worst:.2e}")


if __name__ == "__main__":
    main()
