"""Where a prediction came from, in plain JSON types."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from hashlib import blake2b
from importlib.metadata import version
from typing import Any

import torch

from napari_attention_unet.engine.device import devices
from napari_attention_unet.engine.run import Course
from napari_attention_unet.job import Job
from napari_attention_unet.prediction import GateMap


def provenance_of(
    job: Job, course: Course, gates: Sequence[GateMap], seconds: Mapping[str, float]
) -> dict[str, Any]:
    """What made a prediction: all that is needed to make it again.

    Parameters
    ----------
    job : Job
        What was asked for.
    course : Course
        How it was run in the end.
    gates : sequence of GateMap
        What it gave.
    seconds : dict of str to float
        How long its parts took.

    Returns
    -------
    dict
        Plain JSON types.
    """
    model, settings, volume, frame = job.model, job.settings, job.volume, job.frame
    card, plan, device = model.card, course.plan, str(course.program.device)
    tiling = plan.tiling
    labels = {known.name: known.label for known in devices()}
    size = [volume.spacing[a] * r for a, r in zip(frame.axes, frame.ratio, strict=True)]
    return {
        "model": card.name,
        "sha256": model.sha256,
        "source": model.source,
        "stated": _plain(model.stated),
        "architecture": card.architecture,
        "assumptions": list(card.assumptions),
        "checkpoint_options": {
            option.name: {"value": option.value, "stated": option.stated}
            for option in model.options
        },
        "options": settings.as_json(),
        "normalization": asdict(job.normalization),
        "device": device,
        "device_label": labels.get(device, device),
        "precision": str(course.program.dtype).removeprefix("torch."),
        "plan": plan.kind,
        "plan_reason": plan.reason,
        "tile": list(tiling.largest) if tiling is not None and not tiling.exact else None,
        "memory_gib": plan.memory / 2**30,
        "notes": [*model.graph.notes, *course.notes],
        "voxel_size": [float(s) for s in volume.spacing],
        "units": volume.units,
        "network_grid": {
            "axes": list(frame.axes),
            "flipped": list(frame.flipped),
            "voxel_size": [float(s) for s in size],
            "shape": list(frame.size),
            "padded": list(frame.padded),
        },
        "gates": [
            {
                "name": gate.name,
                "kind": gate.kind,
                "shape": list(gate.coefficients.shape),
                "stride": list(gate.stride),
                "scale": list(gate.scale),
                "translate": list(gate.translate),
                "forced": gate.forced,
            }
            for gate in gates
        ],
        "versions": _versions(),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }


def fingerprint_of(job: Job, course: Course, voxels: str) -> dict[str, Any]:
    """All that the values of a run depend on, so that an equal run can go on with them.

    Parameters
    ----------
    job : Job
        What is asked for.
    course : Course
        How it will be run; memory and the way of running do not matter where that is exact.
    voxels : str
        Digest of the volume's voxels.

    Returns
    -------
    dict
        Plain JSON types.
    """
    options = job.settings.as_json()
    for name in ("memory", "device", "plan"):
        del options[name]
    program, tiling = course.program, course.plan.tiling
    blended = tiling is not None and not tiling.exact
    forced = blake2b(digest_size=16)
    for name, value in sorted(job.imposed.items()):
        forced.update(name.encode() + value.numpy().tobytes())
    network = blake2b(digest_size=16)
    for node in job.model.graph.nodes.values():
        network.update(repr((node.name, node.op, node.args, node.kwargs)).encode())
    return {
        "voxels": voxels,
        "frame": repr(job.frame),
        "model": job.model.sha256,
        "network": network.hexdigest(),
        "card": repr((job.model.card.padding_value, job.activation, job.model.classes)),
        "normalization": asdict(job.normalization),
        "options": options,
        "forced": forced.hexdigest(),
        "computed": [program.device.type, str(program.dtype).removeprefix("torch.")],
        "tiles": list(tiling.largest) if blended and tiling is not None else None,
        "versions": _versions(),
    }


def _plain(stated: Mapping[str, Any]) -> Any:
    """Keywords of `load_model` in plain JSON types."""

    def plain(value: Any) -> Any:
        return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)

    return json.loads(json.dumps(dict(stated), default=plain))


def _versions() -> dict[str, str]:
    found = {name: version(name) for name in ("napari-attention-unet", "numpy")}
    torch_build = str(torch.__version__)  # such as 2.13.0+cu130
    return {**found, "torch": torch_build, "python": platform.python_version()}
