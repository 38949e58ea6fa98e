"""What the files of a MONAI bundle say of a network's input and output.

Only literal values are read; expressions and references of MONAI's configurations are left alone.
Facts of MONAI: arrays are in the order of nibabel's axes, (x, y, z) of a head in RAS, so a card's
orientation and voxel size name the network's own axes in that order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from napari_attention_unet.volume import Shape3

from .card import Normalization, default_classes

_TEXTS = {"description": "description", "version": "version", "data_source": "training_data"}


def metadata_facts(metadata: Any) -> tuple[dict[str, Any], Shape3 | None]:
    """Fields of the model card out of ``metadata.json``, and the extent that the network takes.

    Parameters
    ----------
    metadata : object
        As read from JSON.
    """
    if not isinstance(metadata, Mapping):
        return {}, None
    facts: dict[str, Any] = {
        ours: str(metadata[theirs]) for theirs, ours in _TEXTS.items() if metadata.get(theirs)
    }
    if metadata.get("name"):
        facts["name"] = str(metadata["name"])
    form = metadata.get("network_data_format")
    form = form if isinstance(form, Mapping) else {}
    taken = _only(form.get("inputs"))
    if _whole(taken.get("num_channels")):
        facts["in_channels"] = int(taken["num_channels"])
    if names := _numbered(taken.get("channel_def")):
        facts["channel_names"] = names
    named = _numbered(_only(form.get("outputs")).get("channel_def"))
    if len(named) > 1:
        made = default_classes(len(named))
        facts["classes"] = tuple(replace(c, name=n) for c, n in zip(made, named, strict=True))
    extent = taken.get("spatial_shape")
    if isinstance(extent, Sequence) and len(extent) == 3 and all(map(_whole, extent)):
        z, y, x = (int(n) for n in extent)
        return facts, (z, y, x)
    return facts, None


def preprocessing_facts(config: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Fields of the model card out of the transforms before the network, and what has no field.

    Parameters
    ----------
    config : object
        The configuration for inference, as read from JSON or YAML.
    """
    found = config.get("preprocessing") if isinstance(config, Mapping) else None
    steps = found.get("transforms") if isinstance(found, Mapping) else found
    facts: dict[str, Any] = {}
    notes: list[str] = []
    for step in steps if isinstance(steps, Sequence) and not isinstance(steps, str) else ():
        if not isinstance(step, Mapping) or step.get("_disabled_") is True:
            continue
        name = str(step.get("_target_", "")).rpartition(".")[2].removesuffix("d")
        taken = _READ[name](step) if name in _READ else None
        if taken:
            facts |= taken
        elif name in _READ:
            notes.append(f"The bundle's {name} could not be told in a model card; see its files.")
    return facts, tuple(notes)


def _orientation(step: Mapping[str, Any]) -> dict[str, Any] | None:
    codes = step.get("axcodes")
    letters = isinstance(codes, str) and sorted(_AXIS.get(c, "") for c in codes) == ["x", "y", "z"]
    return {"orientation": codes} if letters else None


def _spacing(step: Mapping[str, Any]) -> dict[str, Any] | None:
    sizes = step.get("pixdim")
    if isinstance(sizes, int | float) and not isinstance(sizes, bool):
        sizes = [sizes] * 3
    if not isinstance(sizes, list) or len(sizes) != 3 or not all(map(_positive, sizes)):
        return None
    return {"voxel_size": tuple(float(v) for v in sizes), "units": "mm"}


def _range(step: Mapping[str, Any]) -> dict[str, Any] | None:
    low, high = step.get("a_min"), step.get("a_max")
    b_min, b_max = step.get("b_min", 0), step.get("b_max", 1)
    if not all(map(_number, (low, high, b_min, b_max))) or b_min == b_max or low == high:
        return None
    clip = step.get("clip") is True
    if clip and (b_min, b_max) != (0, 1):
        return None
    # the intensities that would become 0 and 1
    slope = (float(high) - float(low)) / (float(b_max) - float(b_min))  # type: ignore[arg-type]
    zero = float(low) - slope * float(b_min)  # type: ignore[arg-type]
    kind = "window" if clip else "linear"
    return {"normalization": Normalization(kind, zero, zero + slope)}


def _normalize(step: Mapping[str, Any]) -> dict[str, Any] | None:
    if step.get("subtrahend") is not None or step.get("divisor") is not None:
        return None
    return {"normalization": Normalization("zscore", nonzero=step.get("nonzero") is True)}


def _minmax(step: Mapping[str, Any]) -> dict[str, Any] | None:
    plain = (step.get("minv", 0), step.get("maxv", 1)) == (0, 1) and step.get("factor") is None
    return {"normalization": Normalization("minmax")} if plain else None


def _percentiles(step: Mapping[str, Any]) -> dict[str, Any] | None:
    low, high = step.get("lower"), step.get("upper")
    unit = (step.get("b_min"), step.get("b_max")) == (0, 1) and step.get("clip") is True
    if not (unit and _number(low) and _number(high)):
        return None
    return {"normalization": Normalization("percentile", float(low), float(high))}  # type: ignore[arg-type]


_AXIS = {"L": "x", "R": "x", "A": "y", "P": "y", "S": "z", "I": "z"}
_READ = {
    "Orientation": _orientation,
    "Spacing": _spacing,
    "ScaleIntensityRange": _range,
    "NormalizeIntensity": _normalize,
    "ScaleIntensity": _minmax,
    "ScaleIntensityRangePercentiles": _percentiles,
}


def _only(values: Any) -> Mapping[str, Any]:
    """The one entry of a mapping; an empty one where there are none or several."""
    if isinstance(values, Mapping) and len(values) == 1:
        (value,) = values.values()
        if isinstance(value, Mapping):
            return value
    return {}


def _numbered(names: Any) -> tuple[str, ...]:
    if not isinstance(names, Mapping) or not all(str(k).isdigit() for k in names):
        return ()
    ordered = sorted(names, key=lambda k: int(str(k)))
    whole = [int(str(k)) for k in ordered] == list(range(len(ordered)))
    return tuple(str(names[k]) for k in ordered) if whole else ()


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _positive(value: Any) -> bool:
    return _number(value) and value > 0


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
