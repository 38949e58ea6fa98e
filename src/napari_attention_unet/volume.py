"""The volume: an image with its axes and its geometry.

Axis order is always ``(channel, z, y, x)``. World coordinates are ``(z, y, x)``
in `Volume.units`. Where anatomy is known, the axes, of the array and of the
world alike, grow towards the directions that `Volume.orientation` names, one
letter an axis in the order z, y, x:
``I``/``S`` inferior/superior, ``P``/``A`` posterior/anterior, ``L``/``R`` the
patient's left/right. Readers bring anatomical volumes to ``"IPL"``, which shows
a head upright in the axial, coronal and sagittal views, the patient's left on
the right of the screen (radiological convention).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import InputError

Vec3 = tuple[float, float, float]
Shape3 = tuple[int, int, int]
Affine = npt.NDArray[np.float64]
#: Half-open range of voxels along z, y and x.
Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

#: Pairs of opposite anatomical directions.
OPPOSITE = {"I": "S", "S": "I", "P": "A", "A": "P", "L": "R", "R": "L"}
_AXIS_OF = {"I": 0, "S": 0, "P": 1, "A": 1, "L": 2, "R": 2}
#: For each view: the axis that is sliced, the one that runs down the screen, and the one that runs
#: to the right. Of an ``"IPL"`` volume these show the head upright, the patient's left on the right
#: in axial and coronal views, the face to the left in the sagittal one.
VIEW_ORDERS: dict[str, tuple[int, int, int]] = {
    "axial": (0, 1, 2),
    "coronal": (1, 0, 2),
    "sagittal": (2, 0, 1),
}


@dataclass(frozen=True, eq=False)
class Storage:
    """How a file stored the volume, kept so that results are saved alike.

    Attributes
    ----------
    path : str
        The file.
    format : str
        ``"nifti"``, ``"tiff"``, ...
    axes : tuple of int
        For z, y and x of `Volume.data`: the file's spatial axis that it came from.
    flipped : tuple of bool
        For z, y and x: whether the file's axis was reversed.
    affine : (4, 4) float64 array or None
        The file's own map of its voxel indices to its world (for NIfTI: RAS+ mm),
        exactly as stored, oblique rotation included.
    shape : tuple of int
        The file's spatial shape, in the file's axis order.
    space : str
        What the file says its world is (for NIfTI ``"scanner"``, ``"mni"``, ...); empty if nothing.
    """

    path: str
    format: str
    axes: tuple[int, int, int] = (0, 1, 2)
    flipped: tuple[bool, bool, bool] = (False, False, False)
    affine: Affine | None = None
    shape: tuple[int, ...] = ()
    space: str = ""


@dataclass(frozen=True)
class Part:
    """Which part of its source, a layer or a file, a volume is.

    Attributes
    ----------
    origin, step : tuple of float
        Per axis (z, y, x), voxel ``j`` of the volume has its centre at voxel
        ``origin + step * j`` of the whole source.
    time_index : int
        The time point of the source.
    """

    origin: Vec3 = (0.0, 0.0, 0.0)
    step: Vec3 = (1.0, 1.0, 1.0)
    time_index: int = 0


@dataclass(frozen=True, eq=False)
class Volume:
    """An image of one time point, with its axes and its geometry.

    Attributes
    ----------
    data : array, shape (channel, z, y, x)
        numpy, dask or zarr; any real dtype and byte order. Read lazily.
    spacing : tuple of float
        Voxel size along z, y, x in `units`; positive.
    translate : tuple of float
        World position (z, y, x) of the centre of voxel (0, 0, 0), in `units`.
    units : str
        ``"mm"``, ``"µm"``, ... or ``"pixel"`` where the source says nothing.
    orientation : str or None
        Directions towards which z, y, x grow, e.g. ``"IPL"``; None if not anatomical.
    affine : (4, 4) float64 array or None
        Exact map of voxel index (z, y, x) of `data` to world (z, y, x), rotation
        included; None where `spacing` and `translate` say everything.
    name : str
        Short name for layers and folders.
    channel_names : tuple of str
        One a channel, or empty.
    time : float or None
        Time of this time point in `time_unit`, None for a single volume.
    time_unit : str
        Unit of `time`, e.g. ``"s"``; empty where the source says nothing.
    storage : Storage or None
        How the file stored it, where it came from a file.
    part : Part
        Which part of its source this is: all of it, unless it was cropped or is coarser.
    """

    data: Any = field(repr=False)
    spacing: Vec3 = (1.0, 1.0, 1.0)
    translate: Vec3 = (0.0, 0.0, 0.0)
    units: str = "pixel"
    orientation: str | None = None
    affine: Affine | None = None
    name: str = "volume"
    channel_names: tuple[str, ...] = ()
    time: float | None = None
    time_unit: str = ""
    storage: Storage | None = field(default=None, repr=False)
    part: Part = Part()

    def __post_init__(self) -> None:
        if len(self.data.shape) != 4:
            raise InputError(
                f"A volume has the axes (channel, z, y, x); this array has the shape "
                f"{tuple(self.data.shape)}. Add or remove axes so that there are four."
            )
        if not all(np.isfinite(s) and s > 0 for s in self.spacing):
            raise InputError(
                f"The voxel size (z, y, x) is {self.spacing}; each must be a positive number."
            )

    @classmethod
    def from_array(cls, array: Any, spacing: Vec3 | None = None, **fields: Any) -> Volume:
        """Make a volume of a bare array.

        Parameters
        ----------
        array : array, shape (z, y, x) or (channel, z, y, x)
            numpy, dask or zarr.
        spacing : tuple of float, optional
            Voxel size along z, y, x; 1 where not given.
        **fields
            Any other attribute of `Volume`.

        Raises
        ------
        InputError
            If the array has neither three nor four axes.
        """
        shape = getattr(array, "shape", None)
        if shape is None:
            array = np.asarray(array)
            shape = array.shape
        if len(shape) == 3:
            if not hasattr(array, "reshape"):  # zarr: cannot gain an axis lazily by itself
                import dask.array as da

                array = da.from_array(array)  # type: ignore[no-untyped-call]
            array = array[None]
        elif len(shape) != 4:
            raise InputError(
                f"Expected an array (z, y, x) or (channel, z, y, x); got {len(shape)} axes, "
                f"shape {tuple(shape)}."
            )
        return cls(array, spacing=spacing or (1.0, 1.0, 1.0), **fields)

    @property
    def shape(self) -> Shape3:
        """Spatial shape (z, y, x)."""
        z, y, x = self.data.shape[1:]
        return int(z), int(y), int(x)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.data.shape[0])

    @property
    def index_to_world(self) -> Affine:
        """(4, 4) map of voxel index (z, y, x) to world (z, y, x), exact."""
        if self.affine is not None:
            return np.array(self.affine, dtype=np.float64)
        return scale_translate(self.spacing, self.translate)

    def replace(self, **fields: Any) -> Volume:
        """A copy with some attributes changed."""
        return replace(self, **fields)

    def crop(self, box: Box) -> Volume:
        """The volume inside a box, at the same place in the world.

        Parameters
        ----------
        box : three pairs of int
            Half-open range of voxels along z, y, x; what lies outside the volume is cut off.

        Raises
        ------
        InputError
            If nothing of the volume is inside the box.
        """
        kept = [
            (max(0, int(low)), min(size, int(high)))
            for (low, high), size in zip(box, self.shape, strict=True)
        ]
        if any(low >= high for low, high in kept):
            raise InputError(
                f"The region {tuple(map(tuple, box))} (ranges of voxels along z, y, x) has "
                f"nothing of the volume, whose shape is {self.shape}. Move it or make it larger."
            )
        low = np.array([low for low, _ in kept], dtype=np.float64)
        matrix = self.index_to_world @ scale_translate(np.ones(3), low)
        return replace(
            self,
            data=self.data[(slice(None), *(slice(low, high) for low, high in kept))],
            translate=as_vec3(matrix[:3, 3]),
            affine=None if self.affine is None else matrix,
            part=replace(self.part, origin=as_vec3(self.part.origin + low * self.part.step)),
        )

    def without_data(self) -> Volume:
        """The same geometry with an array of zeros that takes no memory."""
        empty = np.broadcast_to(np.zeros((), np.uint8), tuple(self.data.shape))
        return replace(self, data=empty)


def scale_translate(scale: npt.ArrayLike, translate: npt.ArrayLike) -> Affine:
    """(n + 1, n + 1) matrix of ``x -> translate + scale * x``; both have length n."""
    scale = np.asarray(scale, dtype=np.float64)
    matrix = np.diag([*scale, 1.0])
    matrix[:-1, -1] = translate
    return matrix


def as_vec3(values: npt.ArrayLike) -> Vec3:
    """Three Python floats."""
    z, y, x = np.asarray(values, dtype=np.float64).tolist()
    return z, y, x


def edge_letters(orientation: str, order: tuple[int, int, int]) -> dict[str, str]:
    """Anatomical directions at the four edges of a 2D view.

    Parameters
    ----------
    orientation : str
        Directions towards which z, y, x grow, e.g. ``"IPL"``.
    order : tuple of int
        Sliced axis, axis that runs down, axis that runs to the right; see `VIEW_ORDERS`.

    Returns
    -------
    dict
        A letter each for ``"top"``, ``"bottom"``, ``"left"`` and ``"right"``.
    """
    down, right = orientation[order[1]], orientation[order[2]]
    return {"top": OPPOSITE[down], "bottom": down, "left": OPPOSITE[right], "right": right}


def axes_between(
    orientation: str, target: str
) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """How to turn an array of one orientation into another.

    Parameters
    ----------
    orientation, target : str
        Three letters each, the directions towards which z, y, x grow.

    Returns
    -------
    axes : tuple of int
        ``array.transpose(axes)`` puts the axes into the target's order.
    flipped : tuple of bool
        Which axes of the transposed array have to be reversed.

    Raises
    ------
    InputError
        If either is not three letters naming three different body axes.
    """
    for word in (orientation, target):
        if len(word) != 3 or sorted(_AXIS_OF.get(c, -1) for c in word) != [0, 1, 2]:
            raise InputError(
                f"'{word}' is not an orientation: three letters are needed, one each of "
                "I/S, P/A and L/R, such as 'IPL'."
            )
    where = {_AXIS_OF[c]: i for i, c in enumerate(orientation)}
    a, b, c = (where[_AXIS_OF[t]] for t in target)
    flips = tuple(orientation[i] != t for i, t in zip((a, b, c), target, strict=True))
    return (a, b, c), (flips[0], flips[1], flips[2])
