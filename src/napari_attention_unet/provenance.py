"""Where a prediction came from, in plain JSON types, and a prediction as a zarr group."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import torch

from napari_attention_unet.engine.device import devices
from napari_attention_unet.engine.run import Course
from napari_attention_unet.frame import Frame
from napari_attention_unet.model import Model
from napari_attention_unet.prediction import GateMap, Prediction
from napari_attention_unet.settings import Settings
from napari_attention_unet.volume import Volume


def provenance_of(
    model: Model,
    settings: Settings,
    volume: Volume,
    frame: Frame,
    course: Course,
    gates: Sequence[GateMap],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """What made a prediction: all that is needed to make it again.

    Parameters
    ----------
    model, settings, volume, frame
        Of the run.
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
    card, plan, device = model.card, course.plan, str(course.program.device)
    labels = {known.name: known.label for known in devices()}
    size = [volume.spacing[a] * r for a, r in zip(frame.axes, frame.ratio, strict=True)]
    return {
        "model": card.name,
        "sha256": model.sha256,
        "architecture": card.architecture,
        "assumptions": list(card.assumptions),
        "options": settings.as_json(),
        "normalization": asdict(card.normalization),
        "device": device,
        "device_label": labels.get(device, device),
        "precision": str(course.program.dtype).removeprefix("torch."),
        "plan": plan.kind,
        "plan_reason": plan.reason,
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
        "versions": {name: version(name) for name in ("napari-attention-unet", "numpy")}
        | {"torch": str(torch.__version__)}  # with its build, such as +cu130
        | {"python": platform.python_version()},
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }


def write_group(group: Any, prediction: Prediction) -> None:
    """Write a prediction into a zarr group.

    Arrays ``mask``, ``probabilities`` and ``logits`` where they exist, and ``gates/<name>`` with
    ``scale`` and ``translate`` in their attributes; the provenance is the group's attribute
    ``attention_unet``, written last.
    """
    arrays: dict[str, Any] = {"mask": prediction.mask}
    for name in ("probabilities", "logits"):
        array = getattr(prediction, name)
        if array is not None:
            arrays[name] = array
    for name, array in arrays.items():
        group.create_array(name, data=array, overwrite=True)
    gates = group.require_group("gates")
    for gate in prediction.gates:
        attributes = {
            "scale": list(gate.scale), "translate": list(gate.translate), "kind": gate.kind
        }  # fmt: skip
        gates.create_array(gate.name, data=gate.coefficients, overwrite=True, attributes=attributes)
    group.attrs["attention_unet"] = prediction.provenance
