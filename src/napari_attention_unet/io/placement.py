"""Where an array lies in a napari layer: its axes and its whole transform.

Layers are used by their public attributes alone, so neither napari nor Qt is imported here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from napari_attention_unet.errors import InputError
from napari_attention_unet.units import NO_UNIT
from napari_attention_unet.volume import Affine, as_vec3

Array = npt.NDArray[np.float64]
_TIME_LABELS = ("t", "time")
_CHANNEL_LABELS = ("c", "ch", "channel", "channels")


@dataclass(frozen=True)
class LayerAxes:
    """What the axes of a layer's data are.

    Attributes
    ----------
    spatial : tuple of int
        The axes taken as z, y, x.
    time, channel : int or None
        The axes of time and channels, None where there is none.
    """

    spatial: tuple[int, int, int]
    time: int | None = None
    channel: int | None = None


def layer_axes(layer: Any, leading: Literal["time", "channel"] = "time") -> LayerAxes:
    """Tell a layer's axes apart, by their labels where it has any.

    Parameters
    ----------
    layer : napari Image or Labels layer
        Or anything with the same attributes.
    leading : {"time", "channel"}
        What an unlabelled axis before z, y, x is. Of two unlabelled ones the first is time, the
        second channels.

    Raises
    ------
    InputError
        If the layer is no volume.
    """
    name = layer.name
    if not hasattr(layer, "level_shapes"):
        raise InputError(f"Layer '{name}' is no image; choose an image layer.")
    if getattr(layer, "rgb", False):
        raise InputError(
            f"Layer '{name}' is a colour (RGB) image; a volume of grey values is needed. Split its "
            "colours (Layers > Convert) and choose one of them."
        )
    labels = [str(label).lower() for label in layer.axis_labels]
    time = next((i for i, label in enumerate(labels) if label in _TIME_LABELS), None)
    channel = next((i for i, label in enumerate(labels) if label in _CHANNEL_LABELS), None)
    rest = [axis for axis in range(len(labels)) if axis not in (time, channel)]
    roles = {"time": time, "channel": channel}
    order = ("time", "channel") if len(rest) > 4 or leading == "time" else ("channel", "time")
    for role in order:
        if len(rest) > 3 and roles[role] is None:
            roles[role] = rest.pop(0)
    if len(rest) != 3:
        found = f"{len(rest)} spatial axes" if len(rest) != 2 else "two spatial axes (2D)"
        raise InputError(
            f"Layer '{name}' has {found}, shape {layer_shape(layer)}; a volume with z, y and x is "
            "needed. Choose a 3D layer, or name its axes (axis labels)."
        )
    z, y, x = rest
    return LayerAxes((z, y, x), roles["time"], roles["channel"])


def layer_like(data: Any, arguments: Mapping[str, Any]) -> Any:
    """An object with the public attributes of the layer that napari would make.

    Parameters
    ----------
    data : array, or list of arrays where it is multiscale
        Of the layer.
    arguments : mapping
        Keyword arguments as readers give them, or attributes as writers get them.
    """
    multiscale = bool(arguments.get("multiscale"))
    first = data[0] if multiscale else data
    ndim = len(first.shape) - bool(arguments.get("rgb"))
    defaults = {
        "rgb": False,
        "scale": np.ones(ndim),
        "translate": np.zeros(ndim),
        "rotate": np.eye(ndim),
        "shear": np.zeros(ndim * (ndim - 1) // 2),
        "affine": np.eye(ndim + 1),
        "units": (NO_UNIT,) * ndim,
        "axis_labels": tuple(f"axis {k - ndim}" for k in range(ndim)),
        "name": "layer",
        "metadata": {},
    }
    given = {key: arguments[key] for key in defaults if arguments.get(key) is not None}
    return SimpleNamespace(
        **(defaults | given), data=data, multiscale=multiscale, level_shapes=[first.shape]
    )


def layer_shape(layer: Any) -> tuple[int, ...]:
    """Shape of the layer's data, of the finest level where it has several."""
    data = layer.data[0] if layer.multiscale else layer.data
    return tuple(int(size) for size in data.shape)


def linear_parts(layer: Any) -> tuple[Array, Array, Array]:
    """The layer's own transform ``world' = translate + R Sh (scale * index)`` in three parts.

    Returns
    -------
    turn : (n, n) array
        R @ Sh, rotation and shear.
    scale, translate : (n,) arrays
    """
    scale = np.asarray(layer.scale, dtype=np.float64)
    translate = np.asarray(layer.translate, dtype=np.float64)
    rotate = np.asarray(layer.rotate, dtype=np.float64)
    shear = np.asarray(layer.shear, dtype=np.float64)
    n = len(scale)
    if shear.ndim == 1:  # napari: the strictly upper triangle, row by row
        upper = np.eye(n)
        upper[np.triu_indices(n, 1)] = shear
        shear = upper
    if np.array_equal(shear, np.eye(n)) and np.array_equal(rotate, np.diag(np.diag(rotate))):
        # napari then keeps the signs of a mirrored axis in the scale (and maybe in R as well).
        return np.eye(n), scale, translate
    return rotate @ shear, scale, translate


def index_to_world(layer: Any) -> Affine:
    """(n + 1, n + 1) map of the layer's data indices to world, its affine included."""
    turn, scale, translate = linear_parts(layer)
    own = np.eye(len(scale) + 1)
    own[:-1, :-1] = turn * scale
    own[:-1, -1] = translate
    return np.asarray(layer.affine, dtype=np.float64) @ own


def placed(layer: Any, origin: Array, step: Array) -> dict[str, Any]:
    """How to make a layer whose sample ``j`` lies at index ``origin + step * j`` of another.

    Parameters
    ----------
    layer : napari layer
        The other layer.
    origin, step : (n,) arrays
        In data indices of `layer`, one an axis.

    Returns
    -------
    dict
        Keyword arguments: scale, translate, affine, units and axis labels, with rotate and shear
        where there are any.
    """
    turn, scale, translate = linear_parts(layer)
    arguments = {
        "scale": scale * step,
        "translate": translate + turn @ (scale * origin),
        "affine": np.array(layer.affine, dtype=np.float64),
        "units": tuple(layer.units),
        "axis_labels": tuple(layer.axis_labels),
    }
    if not np.array_equal(turn, np.eye(len(scale))):
        arguments |= {"rotate": np.array(layer.rotate), "shear": np.array(layer.shear)}
    return arguments


def spatial_part(matrix: Affine, axes: LayerAxes, time_index: int) -> Affine:
    """(4, 4) map of (z, y, x) indices to world (z, y, x) at one time point of a layer's matrix."""
    spatial = list(axes.spatial)
    start = np.zeros(len(matrix))
    start[-1] = 1.0
    if axes.time is not None:
        start[axes.time] = time_index
    part = np.eye(4)
    part[:3, :3] = matrix[np.ix_(spatial, spatial)]
    part[:3, 3] = (matrix @ start)[spatial]
    return part


def is_plain(matrix: Affine) -> bool:
    """Whether positive scales and a translate alone say all that a (4, 4) matrix does."""
    linear = matrix[:3, :3]
    diagonal = np.diag(linear)
    off = np.abs(linear - np.diag(diagonal)).max()
    return bool(np.all(diagonal > 0) and off <= 1e-8 * diagonal.max())


def voxel_size(matrix: Affine) -> tuple[float, float, float]:
    """Lengths in world of one step along z, y and x."""
    return as_vec3(np.linalg.norm(matrix[:3, :3], axis=0))
