"""An image file as the readers understand it, before it becomes volumes or layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_attention_unet.errors import InputError
from napari_attention_unet.units import NO_UNIT
from napari_attention_unet.volume import Affine, Part, Storage, Vec3, Volume

#: Images larger than this are read lazily where their format allows it.
LAZY_ABOVE_BYTES = 256 * 2**20


@dataclass(frozen=True)
class FileImage:
    """What one image file holds.

    Attributes
    ----------
    levels : tuple of arrays, shape (time, channel, z, y, x) or (time, channel, z, y, x, 3 or 4)
        The image at full resolution, then its coarser copies if the file has any; numpy or dask.
        The last axis is there for colour images alone.
    axes : str
        Which of ``"TCZYX"`` the file has, e.g. ``"ZYX"``; the others are of length 1.
    name : str
        Short name, from the file's.
    storage : Storage
        How the file stored it.
    spacing, translate, units, orientation, affine, channel_names
        As in `Volume`.
    time_step, time_start : float
        Time of point ``t`` is ``time_start + t * time_step``.
    time_unit : str
        Empty where the file says nothing.
    is_labels : bool
        Whether the file says that its values are labels.
    """

    levels: tuple[Any, ...]
    axes: str
    name: str
    storage: Storage
    spacing: Vec3 = (1.0, 1.0, 1.0)
    translate: Vec3 = (0.0, 0.0, 0.0)
    units: str = NO_UNIT
    orientation: str | None = None
    affine: Affine | None = None
    channel_names: tuple[str, ...] = ()
    time_step: float = 1.0
    time_start: float = 0.0
    time_unit: str = ""
    is_labels: bool = False

    @property
    def data(self) -> Any:
        """The image at full resolution."""
        return self.levels[0]

    @property
    def is_rgb(self) -> bool:
        """Whether it is a colour picture."""
        return bool(self.data.ndim == 6)

    def volumes(self) -> tuple[Volume, ...]:
        """One volume a time point.

        Raises
        ------
        InputError
            If it is a colour picture, or has no depth.
        """
        if self.is_rgb:
            raise InputError(
                f"'{self.storage.path}' is a colour (RGB) picture; a volume of grey values is "
                "needed. Split its colours into channels and save those."
            )
        if "Z" not in self.axes:
            found = "one plane" if "T" not in self.axes else "a time series of single planes"
            raise InputError(
                f"'{self.storage.path}' holds {found}, with no z axis; a volume is needed. If its "
                "planes are slices, say so in the file (ImageJ: Image > Properties, slices)."
            )
        times = self.data.shape[0]
        return tuple(
            Volume(
                self.data[t],
                spacing=self.spacing,
                translate=self.translate,
                units=self.units,
                orientation=self.orientation,
                affine=self.affine,
                name=self.name,
                channel_names=self.channel_names,
                time=self.time_start + t * self.time_step if "T" in self.axes else None,
                time_unit=self.time_unit,
                storage=self.storage,
                part=Part(time_index=t),
            )
            for t in range(times)
        )


def stem(path: str | Path) -> str:
    """The file's name without its endings: ``"a/b.nii.gz"`` and ``"a/b.ome.tif"`` give ``"b"``."""
    name = Path(path).name
    lower = name.lower()
    for suffix in (".nii.gz", ".ome.tiff", ".ome.tif"):
        if lower.endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return Path(name).stem


@contextmanager
def one_sentence(path: str | Path, kind: str) -> Iterator[None]:
    """Turn whatever a reading library raises about a bad file into one clear sentence.

    Parameters
    ----------
    path : str or Path
        The file.
    kind : str
        What the file should be, e.g. ``"a TIFF image"``.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise InputError(f"There is no file '{path}'. Check its path.") from error
    except PermissionError as error:
        raise InputError(f"'{path}' may not be read. Check its permissions.") from error
    except Exception as error:  # the libraries raise anything at all on damaged files
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(
            f"'{path}' cannot be read as {kind}: it is damaged, cut short or of another format "
            f"({reason}). Open it in the program that wrote it and save it again."
        ) from error


def native(array: Any, path: str | Path) -> Any:
    """The array in the machine's byte order; refuses what is not real numbers.

    Raises
    ------
    InputError
        If the values are complex or no numbers.
    """
    dtype = array.dtype
    if dtype.kind not in "biuf":
        raise InputError(
            f"The values in '{path}' are of type {dtype}; real numbers are needed. Save their "
            "magnitude or one component."
        )
    if dtype.kind == "f" and dtype.itemsize > 8:
        return array.astype(np.float64)
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))
