"""Anatomical files: any storage order brought to the nearest upright axes, the exact affine kept.

Their worlds are RAS+ (NIfTI: x grows to the patient's right, y to anterior, z to superior) or LPS+
(DICOM, ITK). Ours, in the order z, y, x, grows to inferior, posterior and left (``"IPL"``), so
``(z, y, x) = (-S, -A, -R)``: slices shown in this order have the head upright.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from napari_attention_unet.volume import Affine, Shape3, Storage, as_vec3

#: World (z, y, x) to RAS+ and back: it is its own inverse.
WORLD_RAS: Affine = np.array(
    [[0, 0, -1, 0], [0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64
)
#: LPS+ to RAS+ and back.
LPS_RAS: Affine = np.diag([-1.0, -1.0, 1.0, 1.0])
#: An affine counts as aligned with the axes if no voxel lies further off than this many voxels.
_ALIGNED_WITHIN = 1e-3


def upright(
    stored: Any, to_ras: Affine, path: str, file_format: str, space: str = ""
) -> dict[str, Any]:
    """Turn an anatomical image to the axes nearest to I, P, L.

    Parameters
    ----------
    stored : array, shape (time, channel, a, b, c) or (time, channel, a, b, c, 3 or 4)
        The image with its spatial axes in the file's order; numpy or dask.
    to_ras : (4, 4) array
        Map of the file's voxel index to RAS+.
    path, file_format, space : str
        As in `Storage`.

    Returns
    -------
    dict
        The fields `levels`, `storage`, `spacing`, `translate` and `affine` of a `FileImage`.
    """
    storage = Storage(path, file_format, affine=to_ras, shape=stored.shape[2:5], space=space)
    return _turned(stored, WORLD_RAS @ to_ras, storage)


def reversed_axes(stored: Any, to_world: Affine, path: str, file_format: str) -> dict[str, Any]:
    """`upright` for what is not anatomical; `to_world` gives the (x, y, z) of the file's world."""
    storage = Storage(path, file_format, shape=stored.shape[2:5])
    swap = np.eye(4)[[2, 1, 0, 3]]
    return _turned(stored, swap @ to_world, storage)


def _turned(stored: Any, to_world: Affine, storage: Storage) -> dict[str, Any]:
    """Bring the axes nearest to z, y, x of the world into that order and direction."""
    nearest: npt.NDArray[np.float64] = nib.io_orientation(to_world)  # type: ignore[no-untyped-call]
    file_axis = {int(world): axis for axis, (world, _) in enumerate(nearest)}
    axes = (file_axis[0], file_axis[1], file_axis[2])
    z, y, x = (bool(nearest[axis, 1] < 0) for axis in axes)
    data = stored.transpose(0, 1, *(2 + axis for axis in axes), *range(5, stored.ndim))
    data = data[(slice(None), slice(None), *(slice(None, None, -1 if f else 1) for f in (z, y, x)))]
    if isinstance(data, np.ndarray):
        data = np.ascontiguousarray(data)
    exact = to_world @ index_to_file(axes, (z, y, x), storage.shape)
    return {
        "levels": (data,),
        "storage": replace(storage, axes=axes, flipped=(z, y, x)),
        "spacing": as_vec3(np.linalg.norm(exact[:3, :3], axis=0)),
        "translate": as_vec3(exact[:3, 3]),
        "affine": None if _is_aligned(exact, data.shape[2:5]) else exact,
    }


def index_to_file(axes: Shape3, flipped: tuple[bool, bool, bool], shape: tuple[int, ...]) -> Affine:
    """(4, 4) map of voxel index (z, y, x) to the file's voxel index.

    Parameters
    ----------
    axes, flipped, shape
        As in `Storage`.
    """
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1.0
    for ours, (axis, flip) in enumerate(zip(axes, flipped, strict=True)):
        matrix[axis, ours] = -1.0 if flip else 1.0
        matrix[axis, 3] = shape[axis] - 1.0 if flip else 0.0
    return matrix


def is_regular(affine: Affine) -> bool:
    """Whether a (4, 4) affine is finite and spans a volume."""
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    usable = np.isfinite(affine).all() and np.all(sizes > 0)
    return bool(usable and abs(np.linalg.det(affine[:3, :3])) > 1e-6 * np.prod(sizes))


def _is_aligned(affine: Affine, shape: tuple[int, ...]) -> bool:
    """Whether scale and translate alone place every voxel."""
    linear = affine[:3, :3]
    off = np.abs(linear - np.diag(np.diag(linear))) @ shape
    return bool(np.all(off <= _ALIGNED_WITHIN * np.linalg.norm(linear, axis=0)))
