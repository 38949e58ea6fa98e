"""What a prediction says at a point, and along a line.

By default a point takes the nearest sample of each gate: that number is one which the network
computed, it is the one drawn there, and the one by which `measures` counts the voxel. Linear
interpolation between samples is for smooth profiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from napari_attention_unet.errors import InputError
from napari_attention_unet.prediction import Prediction
from napari_attention_unet.volume import Vec3, as_vec3

from .sampling import Interpolation, coefficients_at

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Reading:
    """What a prediction says at one point.

    Attributes
    ----------
    voxel : tuple of float
        The point (z, y, x), in voxels of the caller's array.
    world : tuple of float
        The point (z, y, x), in `units`.
    units : str
        Of `world`, e.g. ``"mm"``.
    coefficients : dict
        Coefficient by name of the gate, in the order of ``prediction.gates``.
    label : int
        Of the mask, at the nearest voxel.
    class_name : str
        What `label` stands for.
    probabilities : dict or None
        By name of the class, at the nearest voxel; None if the prediction has none.
    """

    voxel: Vec3
    world: Vec3
    units: str
    coefficients: dict[str, float]
    label: int
    class_name: str
    probabilities: dict[str, float] | None


class Probe:
    """Reads a prediction at points and along lines; no call copies or resamples a map.

    Parameters
    ----------
    prediction : Prediction
    interpolation : {"nearest", "linear"}
        How coefficients between samples are read: the nearest one, or trilinear between the eight
        around the point. Mask and probabilities are always those of the nearest voxel.

    Examples
    --------
    >>> probe = Probe(prediction)  # doctest: +SKIP
    >>> probe.at((40, 52, 45)).coefficients  # doctest: +SKIP
    {'att4': 0.31, 'att3': 0.52, 'att2': 0.77, 'att1': 0.93}
    """

    def __init__(self, prediction: Prediction, interpolation: Interpolation = "nearest") -> None:
        self.prediction = prediction
        self.interpolation = interpolation
        self._shape = prediction.mask.shape
        self._to_world = prediction.volume.index_to_world

    def at(self, voxel: Sequence[float]) -> Reading | None:
        """Read one point.

        Parameters
        ----------
        voxel : three floats
            The point (z, y, x) in voxels; whole numbers are centres of voxels.

        Returns
        -------
        Reading or None
            None outside the volume, which ends half a voxel beyond the outermost centres.
        """
        point = as_vec3(voxel)
        nearest = self._nearest_voxel(point)
        if nearest is None:
            return None
        found = self.prediction
        label = int(found.mask[nearest])
        probabilities = None
        if found.probabilities is not None:
            values = found.probabilities[(slice(None), *nearest)]
            names = probability_names(found)
            probabilities = dict(zip(names, map(float, values), strict=True))
        world = self._to_world[:3, :3] @ np.array(point) + self._to_world[:3, 3]
        return Reading(
            voxel=point,
            world=as_vec3(world),
            units=found.volume.units,
            coefficients={
                gate.name: float(coefficients_at(gate, point, self.interpolation)[0])
                for gate in found.gates
            },
            label=label,
            class_name=class_name(found, label),
            probabilities=probabilities,
        )

    def profile(self, voxel: Sequence[float], axis: int = 0) -> DataFrame:
        """Read every voxel on the line through a point along an axis.

        Parameters
        ----------
        voxel : three floats
            The point (z, y, x) in voxels.
        axis : int
            0, 1 or 2 for z, y or x.

        Returns
        -------
        DataFrame
            As from `along`; distances are counted from the first voxel of the axis.

        Raises
        ------
        InputError
            If the point is outside the volume.
        """
        point = as_vec3(voxel)
        if self._nearest_voxel(point) is None:
            raise InputError(
                f"The point {point} (voxels z, y, x) is outside the volume, whose shape is "
                f"{self._shape}."
            )
        points = np.tile(np.array(point), (self._shape[axis], 1))
        points[:, axis] = np.arange(self._shape[axis])
        return self._read(points)

    def along(self, vertices: npt.ArrayLike) -> DataFrame:
        """Read points on a drawn line, at most one voxel apart.

        Parameters
        ----------
        vertices : array, shape (n, 3)
            Corners (z, y, x) of the line, in voxels.

        Returns
        -------
        DataFrame
            A row a point, in order: ``distance`` along the line in world units, ``z``, ``y``,
            ``x`` in voxels, ``label``, for each gate ``alpha <name>``, for each class
            ``p <name>`` where there are probabilities. ``attrs`` has ``units`` of the distance,
            ``gates`` and ``classes``, each name with its column. Parts of the line outside the
            volume are left out.

        Raises
        ------
        InputError
            If the line has less than two corners, or nothing of it is inside the volume.
        """
        corners = np.asarray(vertices, np.float64)
        if corners.ndim != 2 or corners.shape[1] != 3 or len(corners) < 2:
            raise InputError(
                "A line needs two corners or more, each with z, y and x; this array has the shape "
                f"{corners.shape}."
            )
        pieces = [corners[:1]]
        for start, stop in pairwise(corners):
            steps = max(1, int(np.ceil(np.linalg.norm(stop - start))))
            pieces.append(start + (stop - start) * (np.arange(1, steps + 1) / steps)[:, None])
        return self._read(np.concatenate(pieces))

    def _nearest_voxel(self, point: Vec3) -> tuple[int, int, int] | None:
        z, y, x = (int(np.floor(p + 0.5)) for p in point)
        inside = all(0 <= i < n for i, n in zip((z, y, x), self._shape, strict=True))
        return (z, y, x) if inside else None

    def _read(self, points: npt.NDArray[np.float64]) -> DataFrame:
        from pandas import DataFrame

        found = self.prediction
        world = points @ self._to_world[:3, :3].T
        lengths = np.linalg.norm(np.diff(world, axis=0), axis=1)
        distance = np.concatenate([[0.0], np.cumsum(lengths)])
        nearest = np.floor(points + 0.5).astype(np.int64)
        inside = np.all((nearest >= 0) & (nearest < self._shape), axis=1)
        if not inside.any():
            raise InputError(
                f"The line has nothing inside the volume, whose shape is {self._shape} (z, y, x)."
            )
        points, nearest = points[inside], nearest[inside]
        z, y, x = nearest.T
        columns = {
            "distance": distance[inside],
            **dict(zip("zyx", points.T, strict=True)),
            "label": found.mask[z, y, x],
        }
        gates = {gate.name: f"alpha {gate.name}" for gate in found.gates}
        for gate in found.gates:
            columns[gates[gate.name]] = coefficients_at(gate, points, self.interpolation)
        classes = {}
        if found.probabilities is not None:
            classes = {name: f"p {name}" for name in probability_names(found)}
            for channel, column in enumerate(classes.values()):
                columns[column] = found.probabilities[channel, z, y, x]
        table = DataFrame(columns)
        table.attrs |= {"units": found.volume.units, "gates": gates, "classes": classes}
        return table


def class_name(prediction: Prediction, label: int) -> str:
    """What a value of the mask stands for."""
    if 0 <= label < len(prediction.classes):
        return prediction.classes[label].name
    return f"label {label}"


def probability_names(prediction: Prediction) -> list[str]:
    """Class of each channel of the probabilities; a single channel has none for the background."""
    if prediction.probabilities is None:
        return []
    channels = prediction.probabilities.shape[0]
    return [info.name for info in prediction.classes[-channels:]]
