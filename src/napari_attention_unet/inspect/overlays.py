"""Pictures made of one gate's map: where it passes a coefficient, what it ignores, its surface.

Nothing here changes a map. `combined` has what is made of several gates.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from napari_attention_unet.errors import InputError
from napari_attention_unet.graph.lower import finished
from napari_attention_unet.prediction import GateMap, Prediction, Step
from napari_attention_unet.volume import Vec3, as_vec3

from .sampling import plane_at, resample, slabs

Kind = Literal["image", "labels", "shapes", "surface"]
ABOVE = 1


@dataclass(frozen=True)
class Overlay:
    """A picture to lay over the image.

    Attributes
    ----------
    name : str
        For a layer.
    kind : {"image", "labels", "shapes", "surface"}
        What `data` is.
    data : array, list of arrays, or pair of arrays
        ``"image"``: float32, shape (z, y, x). ``"labels"``: uint8, shape (z, y, x). ``"shapes"``:
        a list of lines, each of shape (n, 3). ``"surface"``: vertices of shape (n, 3), and faces
        of shape (m, 3) with the numbers of their vertices.
    scale, translate : tuple of float
        Sample ``j``, or coordinate ``j`` of a vertex, lies at voxel ``translate + scale * j`` of
        the caller's array.
    meaning : str
        A sentence for the person at the screen.
    limits : tuple of float or None
        Range of values that colours should span, of an image.
    labels : dict
        What the values of labels stand for, without 0.
    """

    name: str
    kind: Kind
    data: Any = field(repr=False)
    scale: Vec3 = (1.0, 1.0, 1.0)
    translate: Vec3 = (0.0, 0.0, 0.0)
    meaning: str = ""
    limits: tuple[float, float] | None = None
    labels: dict[int, str] = field(default_factory=dict)


def ignored(prediction: Prediction, gate: str) -> Overlay:
    """What a gate closes: 1 - alpha, on the gate's own grid.

    Raises
    ------
    InputError
        If the gate is a softmax over space, whose coefficients have no 1 to be subtracted from.
    """
    found = prediction.gate(gate)
    if found.kind == "softmax":
        raise InputError(
            f"The coefficients of '{gate}' are a softmax over space: they add up to 1 over the "
            "volume, and 1 - alpha says nothing. Look at the map itself."
        )
    return Overlay(
        f"{gate} ignored",
        "image",
        1 - np.asarray(found.coefficients, np.float32),
        found.scale,
        found.translate,
        f"1 - alpha of {gate}: bright where the gate lets nothing pass.",
        (0.0, 1.0),
    )


def maximum_projection(prediction: Prediction, gate: str, axis: int = 0) -> Overlay:
    """The largest coefficient along an axis, as one thick slice through the whole volume.

    Parameters
    ----------
    prediction, gate
    axis : int
        0, 1 or 2 for z, y or x.
    """
    found = prediction.gate(gate)
    count = found.coefficients.shape[axis]
    data = np.asarray(found.coefficients, np.float32).max(axis, keepdims=True)
    scale, translate = np.array(found.scale), np.array(found.translate)
    translate[axis] += scale[axis] * (count - 1) / 2
    scale[axis] *= count
    return Overlay(
        f"{gate} maximum along {'zyx'[axis]}",
        "image",
        data,
        as_vec3(scale),
        as_vec3(translate),
        f"The largest coefficient of {gate} along {'zyx'[axis]}.",
        (float(data.min()), float(data.max())),
    )


def region_steps(
    prediction: Prediction, gate: str, coefficient: float
) -> Generator[Step, None, Overlay]:
    """Label the voxels where a gate reaches a coefficient, on the image grid.

    The map is interpolated linearly between its samples, so the outline (napari's Labels layer
    draws it with ``contour = 1``) is the iso-contour to within a voxel, whatever the gate's grid.

    Yields
    ------
    Step

    Returns
    -------
    Overlay
        Labels: 1 where the coefficient is reached.
    """
    found = prediction.gate(gate)
    shape = prediction.mask.shape
    labels = np.empty(shape, np.uint8)
    for start, stop in slabs(shape):
        labels[start:stop] = resample(found, shape, start, stop) >= coefficient
        yield Step(stop, shape[0], f"Outlining {gate}")
    words = f"{gate} ≥ {coefficient:g}"
    return Overlay(
        words,
        "labels",
        labels,
        meaning=f"Where the coefficient of {gate}, linear between its samples, is "
        f"{coefficient:g} or more.",
        labels={ABOVE: words},
    )


def region(prediction: Prediction, gate: str, coefficient: float) -> Overlay:
    """`region_steps`, run out."""
    return finished(region_steps(prediction, gate, coefficient))


def contours(
    prediction: Prediction, gate: str, coefficient: float, planes: Sequence[int] | None = None
) -> Overlay:
    """Lines along which a gate takes a coefficient, exact by linear interpolation.

    Parameters
    ----------
    prediction, gate
    coefficient : float
    planes : sequence of int, optional
        Planes z of the image; all of them if omitted.

    Returns
    -------
    Overlay
        Shapes: lines (z, y, x) in voxels of the image, closed ones ending where they begin. They
        end at the gate's outermost samples.

    Raises
    ------
    InputError
        If the gate's map has fewer than two samples along y or x.
    """
    from skimage.measure import find_contours

    found = prediction.gate(gate)
    if min(found.coefficients.shape[1:]) < 2:
        raise InputError(_too_small(found))
    wanted = range(prediction.mask.shape[0]) if planes is None else planes
    lines = []
    for z in wanted:
        (plane,) = plane_at(found, [z])
        for line in find_contours(plane, coefficient):  # type: ignore[no-untyped-call]
            placed = np.empty((len(line), 3))
            placed[:, 0] = z
            placed[:, 1:] = np.array(found.translate[1:]) + np.array(found.scale[1:]) * line
            lines.append(placed)
    return Overlay(
        f"{gate} = {coefficient:g}",
        "shapes",
        lines,
        meaning=f"Where the coefficient of {gate}, linear between its samples, is {coefficient:g}.",
    )


def isosurface(prediction: Prediction, gate: str, coefficient: float) -> Overlay:
    """The surface on which a gate takes a coefficient (marching cubes, Lewiner et al. 2003).

    Returns
    -------
    Overlay
        A surface: vertices (z, y, x) in voxels of the image, and faces. It is open where the
        gate's map ends.

    Raises
    ------
    InputError
        If the gate never takes the coefficient, or its map has fewer than two samples along an
        axis.
    """
    from skimage.measure import marching_cubes

    found = prediction.gate(gate)
    if min(found.coefficients.shape) < 2:
        raise InputError(_too_small(found))
    alpha = np.asarray(found.coefficients, np.float32)
    low, high = float(alpha.min()), float(alpha.max())
    if not low < coefficient < high:
        raise InputError(
            f"'{gate}' has no surface at {coefficient:g}: its coefficients run from {low:.4g} to "
            f"{high:.4g}. Choose a value between."
        )
    vertices, faces, *_ = marching_cubes(  # type: ignore[no-untyped-call]
        alpha, coefficient, allow_degenerate=False
    )
    placed: npt.NDArray[np.float64] = np.array(found.translate) + np.array(found.scale) * vertices
    return Overlay(
        f"{gate} surface at {coefficient:g}",
        "surface",
        (placed, faces),
        meaning=f"The surface on which the coefficient of {gate} is {coefficient:g}.",
    )


def _too_small(gate: GateMap) -> str:
    return (
        f"The map of '{gate.name}' has the shape {gate.coefficients.shape} (z, y, x); at least two "
        "samples an axis are needed to draw between them. Choose a finer gate."
    )
