"""Parts of an image that a person points at in the viewer: a drawn box, the visible slab."""

from __future__ import annotations

from math import floor
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_attention_unet.errors import InputError
from napari_attention_unet.io.placement import LayerAxes, index_to_world, layer_shape
from napari_attention_unet.volume import Box


def box_of_shape(shapes: Any, image: Any, axes: LayerAxes) -> Box:
    """The box that a shape encloses in an image.

    Parameters
    ----------
    shapes : napari Shapes layer
        Its selected shape counts, or the last one drawn. Along an axis in which the shape is flat
        (the one that was sliced while drawing), the box takes the whole image.
    image : napari Image layer
        Whose voxels are meant.
    axes : LayerAxes
        Of the image.

    Returns
    -------
    three pairs of int
        Half-open ranges of voxels along z, y, x, every voxel that the shape touches.

    Raises
    ------
    InputError
        If nothing was drawn, or the shape lies beside the image.
    """
    if len(shapes.data) == 0:
        raise InputError(f"Draw a rectangle in the Shapes layer '{shapes.name}' first.")
    chosen = next(iter(shapes.selected_data)) if len(shapes.selected_data) == 1 else -1
    corners = np.asarray(shapes.data[chosen], dtype=np.float64)
    ranges = _index_range(_world_points(shapes, corners), image, axes)
    shape = layer_shape(image)
    box = []
    for axis, pair in zip(axes.spatial, ranges, strict=True):
        if pair is None or pair[1] - pair[0] < 1:
            box.append((0, shape[axis]))
            continue
        low, high = max(0, floor(pair[0] + 0.5)), min(shape[axis], floor(pair[1] + 0.5) + 1)
        if low >= high:
            raise InputError(
                f"The shape in '{shapes.name}' lies beside the image '{image.name}': draw it over "
                "the image."
            )
        box.append((low, high))
    return box[0], box[1], box[2]


def visible_slab(viewer: Any, image: Any, axes: LayerAxes, slices: int) -> Box:
    """What the canvas shows of an image in 2D, and some slices in front of it and behind.

    Parameters
    ----------
    viewer : napari viewer
        Showing the image in 2D.
    image : napari Image layer
        Whose voxels are meant.
    axes : LayerAxes
        Of the image.
    slices : int
        Thickness through the plane, about the current slice, in voxels.

    Returns
    -------
    three pairs of int
        Half-open ranges of voxels along z, y, x.

    Raises
    ------
    InputError
        If the viewer shows 3D, or the image is out of sight.
    """
    if viewer.dims.ndisplay != 2:
        raise InputError("The visible slab needs the 2D view; switch to it, or run the whole.")
    n = len(layer_shape(image))
    shown = {axis - (viewer.dims.ndim - n) for axis in viewer.dims.displayed}
    factor = (
        np.asarray(image.downsample_factors[image.data_level]) if image.multiscale else np.ones(n)
    )
    corners = np.asarray(image.corner_pixels, dtype=np.float64) * factor
    here = np.asarray(image.world_to_data(viewer.dims.point[-n:]), dtype=np.float64)
    shape = layer_shape(image)
    box = []
    for axis in axes.spatial:
        if axis in shown:
            low, high = floor(corners[0, axis]), floor(corners[1, axis]) + 1
        else:
            low = floor(here[axis] + 0.5) - slices // 2
            high = low + slices
        low, high = max(0, low), min(shape[axis], high)
        if low >= high:
            raise InputError(f"Nothing of '{image.name}' is in sight; move it into view.")
        box.append((low, high))
    return box[0], box[1], box[2]


def _world_points(layer: Any, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    matrix = index_to_world(layer)
    return points @ matrix[:-1, :-1].T + matrix[:-1, -1]


def _index_range(
    world: npt.NDArray[np.float64], image: Any, axes: LayerAxes
) -> list[tuple[float, float] | None]:
    """Range of image indices of world points per spatial axis; None where the points have none.

    A layer with fewer axes than another shares the last ones with it, as in napari.
    """
    matrix = index_to_world(image)
    n, given = len(matrix) - 1, world.shape[1]
    missing = max(0, n - given)
    full = np.zeros((len(world), n))
    full[:, missing:] = world[:, max(0, given - n) :]
    back = np.linalg.inv(matrix)
    index = full @ back[:-1, :-1].T + back[:-1, -1]
    return [
        None if axis < missing else (float(index[:, axis].min()), float(index[:, axis].max()))
        for axis in axes.spatial
    ]
