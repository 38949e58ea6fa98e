"""The measurements that need a fresh process: ``python -m napari_attention_unet.bench.child JOB``.

Nothing heavy is imported at the top, so that importing can be timed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter
from typing import Any

from napari_attention_unet.bench.children import serve


def first_run(job: dict[str, Any]) -> dict[str, Any]:
    """What a contender takes in a fresh process: imports, preparation, its first run."""
    clock = [perf_counter()]

    def lap() -> float:
        clock.append(perf_counter())
        return clock[-1] - clock[-2]

    import torch

    if not job["contender"].startswith("ours"):
        from napari_attention_unet.bench.networks import monai

        monai()
    from napari_attention_unet.bench.contenders import CONTENDERS
    from napari_attention_unet.bench.networks import network, noise

    torch.set_num_threads(job["threads"])
    importing = lap()
    module, voxels = network(job["network"]), noise(job["size"])
    lap()  # building the network and the volume is the same for all
    run = CONTENDERS[job["contender"]].prepare(module)
    preparing = lap()
    run(voxels, False)
    return {"importing": importing, "preparing": preparing, "first_run": lap()}


def memory(job: dict[str, Any]) -> dict[str, Any]:
    """Peak of a contender's memory over one warm run."""
    import torch

    from napari_attention_unet.bench.contenders import CONTENDERS
    from napari_attention_unet.bench.networks import network, noise

    torch.set_num_threads(job["threads"])
    run = CONTENDERS[job["contender"]].prepare(network(job["network"]))
    voxels = noise(job["size"])
    before = start_peak()
    run(voxels, False)
    return {"before": before, "peak": peak_memory()}


def lazy(job: dict[str, Any]) -> dict[str, Any]:
    """Run a zarr array into a zarr group; seconds, plan and peak memory."""
    import torch
    import zarr

    from napari_attention_unet.bench.networks import network
    from napari_attention_unet.model import load_model
    from napari_attention_unet.predict import predict

    torch.set_num_threads(job["threads"])
    model = load_model(network(job["network"]))
    array = zarr.open_array(job["input"], mode="r")
    before = start_peak()
    budget = job.get("budget_gib")
    start = perf_counter()
    made = predict(
        model,
        array,
        device="cpu",
        precision=job["precision"],
        plan=job["plan"],
        normalize=tuple(job["window"]),
        memory=None if budget is None else budget - before / 2**30,
        out=zarr.open_group(job["output"], mode="w"),
    )
    seconds = perf_counter() - start
    told = made.provenance
    return {
        "before": before,
        "peak": peak_memory(),
        "seconds": seconds,
        "plan": f"{told['plan']}: {told['plan_reason']}",
        "precision": told["precision"],
        "notes": told["notes"],
        "gates": {
            gate.name: {"scale": list(gate.scale), "translate": list(gate.translate)}
            for gate in made.gates
        },
    }


def headless(job: dict[str, Any]) -> dict[str, Any]:
    """Seconds of a checkpoint over noise, the first run apart."""
    import torch

    from napari_attention_unet.bench.networks import noise
    from napari_attention_unet.model import load_model
    from napari_attention_unet.predict import predict

    torch.set_num_threads(job["threads"])
    model, voxels = load_model(job["checkpoint"]), noise(job["size"])
    return {"seconds": [predict(model, voxels).provenance["seconds"]["total"] for _ in range(2)][1]}


def start_peak() -> int:
    """Forget the peak so far where the system can; bytes that are resident now."""
    import psutil

    forget = Path("/proc/self/clear_refs")
    if forget.exists():
        forget.write_text("5", encoding="ascii")
    return int(psutil.Process().memory_info().rss)


def peak_memory() -> int:
    """Most bytes that were resident at once, since `start_peak` on Linux, since the start else.

    On Linux not from `getrusage`, which counts what the parent had as well.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="ascii").splitlines()
        line = next(line for line in lines if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import psutil

    info = psutil.Process().memory_info()
    if sys.platform == "win32":
        return int(info.peak_wset)
    import resource

    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # bytes on macOS


JOBS = {"first_run": first_run, "memory": memory, "lazy": lazy, "headless": headless}


if __name__ == "__main__":
    serve(JOBS)
