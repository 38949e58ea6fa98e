"""Predictions as napari layers: the mask, and every gate on its own grid over the image.

Layers are made as layer-data tuples, so neither napari nor Qt is imported here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from napari_attention_unet.models import ClassInfo
from napari_attention_unet.prediction import GateMap, Prediction
from napari_attention_unet.volume import Vec3

from .layer_volume import SOURCE_KEY, time_points, true_oblique_affine, volume_from_layers
from .napari_reader import LayerData
from .placement import LayerAxes, layer_axes, layer_shape, placed

__all__ = [
    "CONTRAST_MODES",
    "GATE_COLORMAP",
    "RESULT_KEY",
    "ContrastMode",
    "class_looks",
    "contrast_limits",
    "layers_from_prediction",
    "time_points",
    "true_oblique_affine",
    "volume_from_layers",
]

#: Key of a result layer's metadata under which its provenance lies.
RESULT_KEY = "attention_unet"

ContrastMode = Literal["0-1", "1-99 %"]
CONTRAST_MODES: tuple[ContrastMode, ...] = ("0-1", "1-99 %")

#: Control colours of the gates' colormap, from no attention to full: those of inferno's upper part.
_HEAT = np.array(
    [
        [0.26, 0.04, 0.41],
        [0.58, 0.15, 0.40],
        [0.87, 0.32, 0.23],
        [0.99, 0.65, 0.04],
        [0.99, 1.00, 0.64],
    ]
)
_MOST_OPAQUE = 0.6  # the image stays readable where the coefficient is high, too


def _heat(steps: int = 64) -> npt.NDArray[np.float64]:
    t = np.linspace(0, 1, steps)
    controls = np.linspace(0, 1, len(_HEAT))
    channels = [np.interp(t, controls, _HEAT[:, i]) for i in range(3)]
    return np.stack([*channels, _MOST_OPAQUE * t], axis=1)


#: Colormap of gate layers, as napari takes it. Its opacity rises with the coefficient, so the image
#: beneath stays readable where the network did not look.
GATE_COLORMAP: dict[str, Any] = {"name": "attention", "colors": _heat()}


def contrast_limits(
    coefficients: npt.ArrayLike, kind: str, mode: ContrastMode = "0-1"
) -> tuple[float, float]:
    """Range of coefficients that the colours of a gate layer span.

    Parameters
    ----------
    coefficients : array
        The gate's coefficients.
    kind : str
        As in `GateMap`.
    mode : {"0-1", "1-99 %"}
        The range that the kind of gate can have (0..1 for a sigmoid; 0..maximum for a spatial
        softmax, whose coefficients sum to 1 over the volume; what is found for a candidate), or
        the 1st to the 99th percentile.
    """
    values = np.asarray(coefficients)
    if mode == "1-99 %":
        low, high = (float(p) for p in np.percentile(values, (1, 99)))
    elif kind in ("sigmoid", "squeeze-excitation"):
        low, high = 0.0, 1.0
    else:
        low = 0.0 if kind == "softmax" else float(values.min())
        high = float(values.max())
    if high <= low:  # constant: napari needs a range
        high = low + max(abs(low), 1.0) * 1e-3
    return low, high


def class_looks(classes: Sequence[ClassInfo]) -> dict[str, Any]:
    """Colours and names of a mask's labels, as arguments of a Labels layer; background first."""
    colors: dict[int | None, str] = {None: "#808080", 0: "transparent"}
    colors |= {index: info.color for index, info in enumerate(classes) if index > 0}
    names = [info.name for info in classes]
    return {"colormap": colors, "features": {"index": list(range(len(names))), "class": names}}


def layers_from_prediction(
    prediction: Prediction | Sequence[Prediction],
    source: Any,
    *,
    outputs: Sequence[str] = ("mask", "gates"),
    show: str | None = None,
    contrast: ContrastMode = "0-1",
    leading: Literal["time", "channel"] = "time",
    model: str | None = None,
) -> list[LayerData]:
    """Napari layers of a prediction, each lying where it belongs over its source.

    Parameters
    ----------
    prediction : Prediction or sequence of Prediction
        Several are time points of one series, equally spaced, in order.
    source : napari layer
        The layer that was run, or the first of them. The results take over its whole transform,
        units and axis labels; time and channel axes are kept, so that the results of one time
        point are seen at that time point alone, at every channel.
    outputs : sequence of str
        Any of ``"mask"``, ``"probabilities"``, ``"gates"``.
    show : str, optional
        Name of the gate that is visible at first; none is without.
    contrast : {"0-1", "1-99 %"}
        As in `contrast_limits`.
    leading : {"time", "channel"}
        As it was given to `volume_from_layers`.
    model : str, optional
        Name of the model, with which the layers' names begin; the provenance's if not given.

    Returns
    -------
    list of (data, keyword arguments, layer type)
        A Labels layer, an Image layer a class, an Image layer a gate. The metadata of each has
        the provenance under ``"attention_unet"`` with ``"role"`` (``"mask"``,
        ``"probabilities"`` or ``"gate"``), ``"source"`` (the source layer's name) and, of a gate,
        ``"gate"``, ``"kind"``, ``"scale"``, ``"translate"`` and ``"forced"``.

    Raises
    ------
    InputError
        If `source` is no volume.
    ValueError
        If the predictions are not equally spaced time points of one region.
    """
    series = [prediction] if isinstance(prediction, Prediction) else list(prediction)
    place = _Place(series, source, layer_axes(source, leading))
    start = model or str(series[0].provenance.get("model") or "model")
    made: list[LayerData] = []
    if "mask" in outputs:
        made.append(_mask_layer(series, place, start))
    if "probabilities" in outputs and all(p.probabilities is not None for p in series):
        classes = range(1, len(series[0].classes))
        made += [_class_layer(series, index, place, start) for index in classes]
    if "gates" in outputs:
        made += [
            _gate_layer(series, gate, place, start, contrast, gate.name == show)
            for gate in series[0].gates
        ]
    for _, arguments, _ in made:
        about = {**series[0].provenance, "source": source.name, **arguments["metadata"]}
        arguments["metadata"] = {RESULT_KEY: about}
        if SOURCE_KEY in source.metadata:  # results are saved in the world of the source's file
            arguments["metadata"][SOURCE_KEY] = source.metadata[SOURCE_KEY]
    return made


_WHOLE: tuple[Vec3, Vec3] = ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
_OVERLAY: dict[str, Any] = {
    "colormap": GATE_COLORMAP,
    "blending": "translucent_no_depth",
    "interpolation2d": "linear",
    "interpolation3d": "linear",
}


def _mask_layer(series: list[Prediction], place: _Place, start: str) -> LayerData:
    data, arguments = place([p.mask for p in series], *_WHOLE)
    if data.dtype == bool:
        data = data.astype(np.uint8)
    arguments |= class_looks(series[0].classes)
    arguments |= {
        "name": f"{start} · mask",
        "metadata": {"role": "mask"},
        "opacity": 0.5,
        "blending": "translucent_no_depth",
    }
    return data, arguments, "labels"


def _class_layer(series: list[Prediction], index: int, place: _Place, start: str) -> LayerData:
    maps = [p.probabilities[index] for p in series if p.probabilities is not None]
    data, arguments = place(maps, *_WHOLE)
    name = series[0].classes[index].name
    arguments |= _OVERLAY
    arguments |= {
        "name": f"{start} · {name}",
        "metadata": {"role": "probabilities", "class": name},
        "contrast_limits": (0.0, 1.0),
        "visible": False,
    }
    return data, arguments, "image"


def _gate_layer(
    series: list[Prediction],
    gate: GateMap,
    place: _Place,
    start: str,
    contrast: ContrastMode,
    visible: bool,
) -> LayerData:
    maps = [p.gate(gate.name).coefficients for p in series]
    data, arguments = place(maps, gate.scale, gate.translate)
    if data.dtype == np.float16:
        data = data.astype(np.float32)  # not every OpenGL takes half floats
    arguments |= _OVERLAY
    arguments |= {
        "name": f"{start} · {gate.name} · {gate.label}",
        "metadata": {
            "role": "gate",
            "gate": gate.name,
            "kind": gate.kind,
            "scale": list(gate.scale),
            "translate": list(gate.translate),
            "forced": gate.forced,
        },
        "contrast_limits": contrast_limits(data, gate.kind, contrast),
        "visible": visible,
    }
    return data, arguments, "image"


class _Place:
    """Puts arrays of a prediction's (z, y, x) onto all axes of the source layer."""

    def __init__(self, series: list[Prediction], source: Any, axes: LayerAxes) -> None:
        parts = [p.volume.part for p in series]
        times = [part.time_index for part in parts]
        steps = set(np.diff(times).tolist()) or {1}
        same_part = all((p.origin, p.step) == (parts[0].origin, parts[0].step) for p in parts)
        if len(steps) != 1 or 0 in steps or not same_part:
            raise ValueError(f"not equally spaced time points of one region: {parts}")
        if axes.time is None and len(series) > 1:
            raise ValueError(
                f"layer '{source.name}' has no time axis for {len(series)} predictions"
            )
        self._source, self._axes, self._part = source, axes, parts[0]
        ndim = len(source.scale)
        self._origin, self._step = np.zeros(ndim), np.ones(ndim)
        if axes.time is not None:
            self._origin[axes.time], self._step[axes.time] = times[0], steps.pop()
        if axes.channel is not None:  # one sample as long as all channels, so each of them shows it
            channels = layer_shape(source)[axes.channel]
            self._origin[axes.channel], self._step[axes.channel] = (channels - 1) / 2, channels

    def __call__(
        self, arrays: list[Any], scale: Vec3, translate: Vec3
    ) -> tuple[Any, dict[str, Any]]:
        """The array on the layer's axes, and the keyword arguments that place it."""
        axes, part = self._axes, self._part
        spatial = list(axes.spatial)
        origin, step = self._origin.copy(), self._step.copy()
        origin[spatial] = np.add(part.origin, np.multiply(part.step, translate))
        step[spatial] = np.multiply(part.step, scale)
        data = arrays[0][None] if len(arrays) == 1 else np.stack(arrays)
        if axes.time is None:
            data = data[0]
        present = sorted([*spatial, *([] if axes.time is None else [axes.time])])
        stacked = [*([] if axes.time is None else [axes.time]), *spatial]
        data = data.transpose([stacked.index(axis) for axis in present])
        if axes.channel is not None:
            data = np.expand_dims(data, axes.channel)
        return data, placed(self._source, origin, step)
