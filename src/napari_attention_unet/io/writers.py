"""One result array and its place in the world, as OME-TIFF and NIfTI."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import tifffile

from napari_attention_unet.models.card import ClassInfo
from napari_attention_unet.units import is_length, unit_ratio
from napari_attention_unet.volume import Affine, Vec3, Volume, scale_translate

from .anatomy import WORLD_RAS, index_to_file

#: Beyond this a TIFF file needs 64-bit offsets.
_BIG_TIFF_BYTES = 2**32 - 2**25
_RAS_AXIS = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}


@dataclass(frozen=True)
class Output:
    """One result: an array for each time point, and where it lies.

    Attributes
    ----------
    name : str
        Name of the file, without ending.
    arrays : tuple of arrays, shape (z, y, x) or (class, z, y, x)
        One a time point.
    scale, translate : tuple of float
        Sample ``j`` has its centre at voxel ``translate + scale * j`` of `volume`.
    volume : Volume
        The volume that was run, at the first time point; its geometry is used.
    classes : tuple of ClassInfo
        Of the values, if they are labels; of the first axis, if there are four; else empty.
    is_labels : bool
        Whether the values are labels.
    time_step : float
        Time between time points, in ``volume.time_unit``.
    """

    name: str
    arrays: tuple[Any, ...]
    scale: Vec3
    translate: Vec3
    volume: Volume
    classes: tuple[ClassInfo, ...] = ()
    is_labels: bool = False
    time_step: float = 1.0

    @property
    def has_time(self) -> bool:
        """Whether there is a time axis."""
        return len(self.arrays) > 1

    @property
    def has_channels(self) -> bool:
        """Whether there is an axis of classes."""
        return bool(self.arrays[0].ndim == 4)

    @property
    def plain_name(self) -> str:
        """The name in ASCII, for headers that can hold nothing else."""
        return self.name.replace("·", "-").encode("ascii", "replace").decode()

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type that all three formats can hold."""
        if self.is_labels:
            highest = max(int(np.max(array)) for array in self.arrays)
            return np.dtype(np.min_scalar_type(highest))
        kept = (np.dtype(np.float32), np.dtype(np.float64))
        return self.arrays[0].dtype if self.arrays[0].dtype in kept else kept[0]

    @property
    def axes(self) -> str:
        """Axes of the whole, e.g. ``"TZYX"``."""
        return "T" * self.has_time + "C" * self.has_channels + "ZYX"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape along `axes`."""
        return (len(self.arrays),) * self.has_time + tuple(self.arrays[0].shape)

    @property
    def placement(self) -> Affine:
        """(4, 4) map of its samples to voxels of `volume`."""
        return scale_translate(self.scale, self.translate)

    def sizes(self) -> tuple[list[float], list[float]]:
        """Scale and translate in the world along z, y, x; rotations are left out."""
        volume = self.volume
        plain = scale_translate(volume.spacing, volume.translate) @ self.placement
        return np.diag(plain)[:3].tolist(), plain[:3, 3].tolist()


def write_tiff(path: Path, output: Output) -> None:
    """Write OME-TIFF: axes, voxel size, units, position, classes. It cannot hold a rotation."""
    dtype = output.dtype
    (dz, dy, dx), (z, y, x) = output.sizes()
    unit = {"inch": "in"}.get(output.volume.units, output.volume.units)
    planes = int(np.prod(output.shape[:-2]))
    depth = output.shape[-3]
    positions = [z + dz * (plane % depth) for plane in range(planes)]
    metadata: dict[str, Any] = {
        "axes": output.axes,
        "Name": output.name,
        **{f"PhysicalSize{axis}": size for axis, size in zip("ZYX", (dz, dy, dx), strict=True)},
        **{f"PhysicalSize{axis}Unit": unit for axis in "ZYX"},
        "Plane": {
            "PositionZ": positions,
            "PositionY": [y] * planes,
            "PositionX": [x] * planes,
            **{f"Position{axis}Unit": [unit] * planes for axis in "ZYX"},
        },
    }
    if output.has_time:
        metadata["TimeIncrement"] = output.time_step
        metadata["TimeIncrementUnit"] = output.volume.time_unit or "s"
    if output.has_channels:
        metadata["Channel"] = {"Name": [c.name for c in output.classes]}
    metadata["UUID"] = _identity(output)

    def slices() -> Iterator[Any]:
        for array in output.arrays:
            for plane in array.reshape(-1, *array.shape[-2:]):
                yield np.ascontiguousarray(plane, dtype=dtype)

    tifffile.imwrite(
        path,
        slices(),
        shape=output.shape,
        dtype=dtype,
        ome=True,
        bigtiff=int(np.prod(output.shape)) * dtype.itemsize > _BIG_TIFF_BYTES,
        photometric="minisblack",
        compression="zlib",
        metadata=metadata,
    )


def _identity(output: Output) -> str:
    """A UUID of the content, so that equal results are equal files."""
    digest = hashlib.blake2b(repr((output.name, output.sizes(), output.shape)).encode())
    for array in output.arrays:
        for plane in array.reshape(-1, *array.shape[-2:]):
            digest.update(np.ascontiguousarray(plane, dtype=output.dtype).data)
    return f"urn:uuid:{uuid.UUID(bytes=digest.digest()[:16], version=5)}"


@dataclass(frozen=True, eq=False)
class Stored:
    """An output in a file's storage order.

    Attributes
    ----------
    data : array, shape (a, b, c, time, channel)
        Spatial axes in the file's order.
    affine : (4, 4) array
        Map of the index (a, b, c) to RAS+, in `unit`.
    space, unit : str
        What the world is, as in `Storage`, and its unit of length.
    """

    data: npt.NDArray[Any]
    affine: Affine
    space: str
    unit: str


def stored(output: Output, units: tuple[str, ...]) -> Stored:
    """An output as anatomical formats store it.

    It is in the source file's storage order and world, so it overlays its source exactly. Of a
    volume that comes from no anatomical file x is fastest, and its world (z, y, x) becomes the
    RAS+ coordinates (-x, -y, -z), or what its orientation says.

    Parameters
    ----------
    output : Output
        The result.
    units : tuple of str
        Units of length that the format knows; others become mm.
    """
    volume, storage = output.volume, output.volume.storage
    if storage is not None and storage.affine is not None:
        axes, flipped = storage.axes, storage.flipped
        whole = scale_translate(volume.part.step, volume.part.origin)
        to_ras = storage.affine @ index_to_file(axes, flipped, storage.shape) @ whole
        space = storage.space
    else:
        axes, flipped, space = (2, 1, 0), (False, False, False), ""
        to_ras = _world_to_ras(volume.orientation) @ volume.index_to_world
    grid = output.arrays[0].shape[-3:]
    shape = [0, 0, 0]
    for ours, axis in enumerate(axes):
        shape[axis] = grid[ours]
    affine = to_ras @ output.placement @ np.linalg.inv(index_to_file(axes, flipped, tuple(shape)))
    unit = volume.units if volume.units in units else "mm"
    if is_length(volume.units):
        affine = np.diag([*[unit_ratio(volume.units, unit)] * 3, 1.0]) @ affine
    data = np.stack([np.asarray(array, output.dtype) for array in output.arrays])
    if not output.has_channels:
        data = data[:, None]
    data = np.flip(data, tuple(2 + ours for ours in range(3) if flipped[ours]))
    data = data.transpose(*(2 + axes.index(axis) for axis in range(3)), 0, 1)
    return Stored(data, affine, space, unit)


def write_nifti(path: Path, output: Output) -> None:
    """Write NIfTI; see `stored` for how it lies."""
    kept = stored(output, ("µm", "mm", "m"))
    data = kept.data
    if not output.has_channels:
        data = data[..., 0] if output.has_time else data[..., 0, 0]
    image: Any = nib.Nifti1Image(data, kept.affine)  # type: ignore[no-untyped-call]
    space = "aligned" if kept.space in ("", "unknown") else kept.space
    _describe_nifti(image, output, kept.affine, space, kept.unit)
    nib.save(image, path)


def _describe_nifti(image: Any, output: Output, affine: Affine, space: str, unit: str) -> None:
    """Fill in the header: both transforms, units, time step and what the values are."""
    header = image.header
    image.set_sform(affine, space)
    columns = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    orthogonal = np.allclose(columns.T @ columns, np.eye(3), atol=1e-5)
    image.set_qform(affine, space if orthogonal else "unknown")
    lengths = {"µm": "micron", "mm": "mm", "m": "meter"}
    known = is_length(output.volume.units)
    times = {"s": "sec", "ms": "msec", "µs": "usec"}
    time = times.get(output.volume.time_unit, "unknown") if output.has_time else "unknown"
    header.set_xyzt_units(lengths[unit] if known else "unknown", time)
    if output.has_time:
        header["pixdim"][4] = output.time_step
        header["toffset"] = output.volume.time or 0.0
    if output.is_labels:
        header.set_intent("label", name=output.plain_name[:15])
    elif output.has_channels:
        header.set_intent("vector", name=output.plain_name[:15])
    header["descrip"] = b"napari-attention-unet"


def _world_to_ras(orientation: str | None) -> Affine:
    if orientation is None:
        return WORLD_RAS
    matrix = np.diag([0.0, 0.0, 0.0, 1.0])
    for axis, letter in enumerate(orientation):
        row, sign = _RAS_AXIS[letter]
        matrix[row, axis] = sign
    return matrix
