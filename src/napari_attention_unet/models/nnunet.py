"""What nnU-Net's plans and dataset files say of a network's input and classes.

Facts of nnU-Net v2: spacings and axes are z, y, x, as SimpleITK gives arrays; the plans lie in the
checkpoint's ``init_args`` or as ``plans.json`` beside the folds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from .card import Normalization, default_classes

_LARGEST = 16 * 2**20


def nnunet_facts(told: Mapping[str, Any], path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Fields of the model card, and what could not be told in them.

    Parameters
    ----------
    told : mapping
        ``init_args`` of the checkpoint.
    path : Path
        Of the checkpoint; ``plans.json`` and ``dataset.json`` are looked for beside it and one
        folder up.
    """
    plans = told.get("plans") or _beside(path, "plans.json")
    dataset = told.get("dataset_json") or _beside(path, "dataset.json")
    facts: dict[str, Any] = {}
    notes: list[str] = []
    try:
        name = told.get("configuration")
        chosen = _configuration(plans.get("configurations", {}), name if name else "3d_fullres")
        spacing = [float(v) for v in chosen.get("spacing", ())]
        straight = plans.get("transpose_forward", [0, 1, 2]) == [0, 1, 2]
        if len(spacing) == 3 and straight:
            facts["voxel_size"], facts["units"] = tuple(spacing), "mm"
        schemes = list(chosen.get("normalization_schemes", ()))
        if schemes and set(schemes) == {"ZScoreNormalization"}:
            nonzero = any(chosen.get("use_mask_for_norm", ()))
            facts["normalization"] = Normalization("zscore", nonzero=nonzero)
        elif schemes:
            notes.append(
                f"nnU-Net normalised with {', '.join(sorted(set(schemes)))}, which has no "
                "counterpart here; say what comes closest with normalization=."
            )
        labels = {int(v): str(k) for k, v in dataset.get("labels", {}).items()}
        if labels and sorted(labels) == list(range(len(labels))):
            made = default_classes(len(labels))
            facts["classes"] = tuple(replace(c, name=labels[i]) for i, c in enumerate(made))
        channels = dataset.get("channel_names") or {}
        facts["channel_names"] = tuple(str(channels[k]) for k in sorted(channels, key=int))
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        notes.append(f"Plans of nnU-Net are there, but were not understood ({error}).")
    return {k: v for k, v in facts.items() if v}, tuple(notes)


def _configuration(configurations: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A configuration with what it inherits."""
    found: dict[str, Any] = {}
    for _ in range(5):
        here = configurations.get(name, {})
        found = {**here, **found}
        name = here.get("inherits_from", "")
    return found


def _beside(path: Path, name: str) -> dict[str, Any]:
    for folder in (path.parent, path.parent.parent):
        file = folder / name
        try:
            if file.is_file() and file.stat().st_size <= _LARGEST:
                content = json.loads(file.read_text("utf-8"))
                return content if isinstance(content, dict) else {}
        except (OSError, ValueError, RecursionError):
            return {}
    return {}
