"""A run as a Python script that makes it again without the panel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from napari_attention_unet.io.layer_volume import SOURCE_KEY, volume_from_layers
from napari_attention_unet.io.placement import layer_axes, layer_shape
from napari_attention_unet.settings import Settings
from napari_attention_unet.volume import Volume

from .request import Request

_WIDTH = 92


def script_of(
    request: Request,
    layers: Sequence[Any],
    level: int,
    leading: Literal["time", "channel"],
    stated: Mapping[str, Any],
    code: str = "",
) -> str:
    """The script of a run.

    Parameters
    ----------
    request : Request
        What is run.
    layers : sequence of napari layers
        From which its volumes were made, one a channel.
    level : int
        Of a multiscale layer.
    leading : {"time", "channel"}
        As in `volume_from_layers`.
    stated : mapping
        Keywords with which the model was loaded.
    code : str
        What runs of the checkpoint with the person's yes; empty if nothing does.
    """
    loading = _call("model = nau.load_model", [repr(request.model)], stated)
    if code:
        loading.insert(0, f"# {code} runs: you said yes on this computer; elsewhere add trust=True")
    times = [volume.part.time_index for volume in request.volumes]
    several = len(times) > 1
    reading = _reading(request, layers, level, leading, "time_point" if several else str(times[0]))
    running = _call("nau.predict", ["model", "volume"], _differing(request.settings))
    if several:
        running[0] = f"predictions.append({running[0]}"
        running[-1] += ")"
        body = [*reading, *running]
        points = f"range({times[0]}, {times[-1] + 1})"
        reading = ["predictions = []", f"for time_point in {points}:", *_indented(body)]
        running = []
    else:
        running[0] = f"prediction = {running[0]}"
    text = "\n".join([*loading, "", *reading, *running, ""])
    return "\n".join([*_imports(text), "", text])


def _imports(text: str) -> list[str]:
    """What the script uses."""
    lines = ["import numpy as np", ""] if "np." in text else []
    lines.append("import napari_attention_unet as nau")
    if "io." in text:
        lines.append("from napari_attention_unet import io")
    named = [n for n in ("ClassInfo", "Normalization") if f"{n}(" in text]
    if named:
        lines.append(f"from napari_attention_unet.models.card import {', '.join(named)}")
    return lines


def _reading(
    request: Request,
    layers: Sequence[Any],
    level: int,
    leading: Literal["time", "channel"],
    time: str,
) -> list[str]:
    """How the volume is read, and which part of it is taken."""
    first, chosen = layers[0], request.volumes[0]
    whole = volume_from_layers(
        layers, time_index=chosen.part.time_index, level=level, leading=leading
    )
    sources = [layer.metadata.get(SOURCE_KEY) for layer in layers]
    if whole.storage is None or any(source is None for source in sources):
        lines = _from_array(first, whole, level, time if whole.time is not None else "")
    elif level:
        lines = [f"image = io.open_image({_path(sources[0])!r})"]
        volume = f"image.levels[{level}][{time}]"
        lines += _call("volume = nau.Volume", [volume], _geometry(whole))
        lines += _channels(sources, time, level)
    else:
        lines = [f"volume = io.read({_path(sources[0])!r})[{time}]"]
        lines += _channels(sources, time, level)
        if _moved(first, whole, leading):
            lines += _call("volume = volume.replace", [], {"affine": None} | _geometry(whole))
    low = np.rint(np.subtract(chosen.part.origin, whole.part.origin) / chosen.part.step)
    box = [(int(a), int(a) + n) for a, n in zip(low, chosen.shape, strict=True)]
    if box != [(0, n) for n in whole.shape]:
        lines.append(f"volume = volume.crop({tuple(box)})  # voxels along z, y, x")
    return lines


def _from_array(layer: Any, whole: Volume, level: int, time: str) -> list[str]:
    """What stands in for an image that was read from no file, or by another reader."""
    path = getattr(getattr(layer, "source", None), "path", None)
    where = f"was opened by another reader from {path}" if path else "was not read from a file"
    part = " at " * bool(level or time) + " and ".join(
        [f"level {level}"] * bool(level) + [f"time point {time}"] * bool(time)
    )
    shape = f"({whole.channels}, {', '.join(map(str, whole.shape))})"
    return [
        f"# The layer {layer.name!r} {where}:",
        f"# put its array{part} here, (channel, z, y, x) = {shape}",
        "array = None",
        *_call("volume = nau.Volume", ["array"], _geometry(whole)),
    ]


def _channels(sources: Sequence[Any], time: str, level: int) -> list[str]:
    """Which channels of the files are taken."""
    paths = [_path(source) for source in sources]
    picked = [source["channel"] for source in sources]
    if len(set(paths)) == 1:
        if picked == list(range(sources[0]["channels"])):
            return []
        return [f"volume = volume.replace(data=volume.data[{picked}])"]
    parts = [f"volume.data[[{picked[0]}]]"]
    for path, channel in zip(paths[1:], picked[1:], strict=True):
        data = f"io.open_image({path!r}).levels[{level}][{time}]"
        parts.append(f"{data}[[{channel}]]")
    lines = [f"    {part}," for part in parts]
    return [
        "channels = [",
        *lines,
        "]",
        "volume = volume.replace(data=np.concatenate(channels))",
    ]


def _path(source: Mapping[str, Any]) -> str:
    return str(Path(source["storage"].path).absolute())


def _moved(layer: Any, whole: Volume, leading: Literal["time", "channel"]) -> bool:
    """Whether the layer no longer lies as its file says."""
    source = layer.metadata[SOURCE_KEY]
    same = np.allclose(whole.index_to_world, source["affine"], rtol=1e-9, atol=1e-9)
    axes = layer_axes(layer, leading)
    shape = [layer_shape(layer)[axis] for axis in axes.spatial]
    return not same or whole.units != source["units"] or shape != list(whole.shape)


def _geometry(volume: Volume) -> dict[str, Any]:
    """Where it lies, as keywords."""
    made: dict[str, Any] = {
        "spacing": volume.spacing,
        "translate": volume.translate,
        "units": volume.units,
    }
    if volume.orientation is not None:
        made["orientation"] = volume.orientation
    if volume.affine is not None:
        made["affine"] = np.asarray(volume.affine)
    return made


def _differing(settings: Settings) -> dict[str, Any]:
    """Settings that are not the defaults."""
    plain = Settings()
    names = [name for name in Settings.__dataclass_fields__ if name != "out"]
    pairs = {name: getattr(settings, name) for name in names}
    return {name: value for name, value in pairs.items() if value != getattr(plain, name)}


def _call(start: str, arguments: Sequence[str], keywords: Mapping[str, Any]) -> list[str]:
    """A call in one line, or with an argument a line where it is long."""
    words = [*arguments, *(f"{name}={_text(value)}" for name, value in keywords.items())]
    line = f"{start}({', '.join(words)})"
    if len(line) <= _WIDTH:
        return [line]
    return [f"{start}(", *(f"    {word}," for word in words), ")"]


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"np.array({value.tolist()!r})"
    return repr(value)


def _indented(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" if line else "" for line in lines]
