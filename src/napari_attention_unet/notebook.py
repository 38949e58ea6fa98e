"""A prediction in a notebook: as a picture with its numbers, and as an xarray dataset."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_attention_unet.errors import InputError
from napari_attention_unet.prediction import GateMap, Prediction

if TYPE_CHECKING:
    import xarray

_INCH, _DPI = 1.7, 110


def html(prediction: Prediction) -> str:
    """The slice with most of the mask, the same of each gate, and a table of the gates.

    Parameters
    ----------
    prediction : Prediction
        Of any size; one slice of each map is read.

    Returns
    -------
    str
        HTML with the picture in it.
    """
    volume = prediction.volume
    size = " × ".join(str(n) for n in prediction.mask.shape)
    spacing = " × ".join(f"{s:g}" for s in volume.spacing)
    model = escape(str(prediction.provenance.get("model", "")))
    rows = "".join(_row(gate) for gate in prediction.gates)
    table = (
        "<table><tr><th>gate</th><th>grid</th><th>size z, y, x</th><th>min</th><th>mean</th>"
        f"<th>max</th></tr>{rows}</table>"
    )
    return (
        f"<p><b>{model}</b> on {escape(volume.name)}: {size} voxels of {spacing} "
        f"{escape(volume.units)}</p>"
        '<img alt="mask and gates in one slice" '
        f'src="data:image/png;base64,{_picture(prediction)}">'
        + (table if rows else "<p>This network has no attention gates.</p>")
    )


def to_xarray(prediction: Prediction) -> xarray.Dataset:
    """Mask, maps and their world coordinates.

    Each gate is on its own grid, with axes of its own (``z_att4``, ``y_att4``, ``x_att4``);
    coordinates are along the volume's axes, a rotation is left out.

    Parameters
    ----------
    prediction : Prediction
        What to convert; arrays are shared, not copied.

    Raises
    ------
    InputError
        If xarray is not installed.
    """
    try:
        import xarray
    except ImportError as error:
        raise InputError("to_xarray needs xarray: pip install xarray.") from error
    units = {"units": prediction.volume.units}
    names = [info.name for info in prediction.classes]
    coordinates: dict[str, Any] = {
        axis: (axis, places, units)
        for axis, places in zip("zyx", _places(prediction, None), strict=True)
    }
    variables: dict[str, Any] = {"mask": (tuple("zyx"), prediction.mask, {"classes": names})}
    for name in ("probabilities", "logits"):
        values = getattr(prediction, name)
        if values is not None:
            variables[name] = (("class", *"zyx"), values)
            if len(names) == values.shape[0]:
                coordinates["class"] = names
    for gate in prediction.gates:
        axes = tuple(f"{axis}_{gate.name}" for axis in "zyx")
        for axis, places in zip(axes, _places(prediction, gate), strict=True):
            coordinates[axis] = (axis, places, units)
        about = {"kind": gate.kind, "scale": gate.scale, "translate": gate.translate}
        variables[gate.name] = (axes, gate.coefficients, about)
    return xarray.Dataset(variables, coordinates, {"model": prediction.provenance.get("model", "")})


def _places(prediction: Prediction, gate: GateMap | None) -> list[Any]:
    """World coordinates of the samples along z, y and x."""
    volume = prediction.volume
    scale, translate = ((1.0,) * 3, (0.0,) * 3) if gate is None else (gate.scale, gate.translate)
    shape = prediction.mask.shape if gate is None else gate.coefficients.shape
    return [
        start + size * (shift + step * np.arange(n))
        for start, size, shift, step, n in zip(
            volume.translate, volume.spacing, translate, scale, shape, strict=True
        )
    ]


def _row(gate: GateMap) -> str:
    values = np.asarray(gate.coefficients)
    numbers = (values.min(), values.mean(dtype=np.float64), values.max())
    size = ", ".join(str(n) for n in values.shape)
    cells = [escape(gate.name), gate.label, size, *(f"{number:.3f}" for number in numbers)]
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _picture(prediction: Prediction) -> str:
    """PNG in base64: the mask's fullest slice, and where that lies in each gate."""
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

    mask = np.asarray(prediction.mask)
    z = int((mask > 0).sum(axis=(1, 2)).argmax()) if mask.any() else mask.shape[0] // 2
    count = 1 + len(prediction.gates)
    _, dy, dx = prediction.volume.spacing
    figure = Figure(figsize=(_INCH * count, _INCH * 1.2), layout="constrained", dpi=_DPI)
    axes = figure.subplots(1, count, squeeze=False)[0]
    colors = [info.color for info in prediction.classes]
    edges = (-0.5, mask.shape[2] - 0.5, mask.shape[1] - 0.5, -0.5)
    common: dict[str, Any] = {"interpolation": "nearest", "aspect": dy / dx}
    axes[0].imshow(
        mask[z], cmap=ListedColormap(colors), vmin=0, vmax=max(1, len(colors) - 1), **common
    )
    axes[0].set_title(f"mask, z = {z}", fontsize=7)
    for axis, gate in zip(axes[1:], prediction.gates, strict=True):
        depth, height, width = gate.coefficients.shape
        j = round((z - gate.translate[0]) / gate.scale[0])
        plane = np.asarray(gate.coefficients[min(max(j, 0), depth - 1)], np.float32)
        (_, ty, tx), (_, sy, sx) = gate.translate, gate.scale
        extent = (
            tx - sx / 2, tx + sx * (width - 0.5), ty + sy * (height - 0.5), ty - sy / 2
        )  # fmt: skip
        top = None if gate.kind == "softmax" else 1.0
        axis.imshow(plane, cmap="inferno", vmin=0.0, vmax=top, extent=extent, **common)
        axis.set_xlim(*edges[:2])
        axis.set_ylim(*edges[2:])
        axis.set_title(f"{gate.name} {gate.label}", fontsize=7)
    for axis in axes:
        axis.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode()
