"""How one mask differs from another: voxels gained and lost, volumes and overlap of each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from napari_attention_unet.models.card import ClassInfo
from napari_attention_unet.units import is_length
from napari_attention_unet.volume import Volume

#: Labels of a difference; 0 is background before and after.
UNCHANGED, GAINED, LOST, OTHER_CLASS = 1, 2, 3, 4
#: What they are called.
DIFFERENCE = {
    UNCHANGED: "unchanged",
    GAINED: "gained",
    LOST: "lost",
    OTHER_CLASS: "of another class",
}
#: The class of rows over all classes but the background.
FOREGROUND = "foreground"


def difference_labels(before: npt.NDArray[Any], after: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """What became of the foreground, voxel by voxel.

    Parameters
    ----------
    before, after : array, shape (z, y, x), integer
        Masks; 0 is the background.

    Returns
    -------
    array, shape (z, y, x), uint8
        See `DIFFERENCE`; 0 where both are background.
    """
    labels = np.zeros(before.shape, np.uint8)
    labels[(before == after) & (after > 0)] = UNCHANGED
    labels[(before == 0) & (after > 0)] = GAINED
    labels[(before > 0) & (after == 0)] = LOST
    labels[(before > 0) & (after > 0) & (before != after)] = OTHER_CLASS
    return labels


def dice(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> float:
    """Dice coefficient 2|A∩B| / (|A|+|B|), 0..1; nan where both are empty (Dice 1945)."""
    size = int(np.count_nonzero(one)) + int(np.count_nonzero(other))
    return 2 * int(np.count_nonzero(one & other)) / size if size else float("nan")


def class_changes(
    before: npt.NDArray[Any],
    after: npt.NDArray[Any],
    classes: Sequence[ClassInfo],
    volume: Volume,
) -> pd.DataFrame:
    """Volume of each class before and after, and how the two overlap.

    Parameters
    ----------
    before, after : array, shape (z, y, x), integer
        Masks whose values index `classes`.
    classes : sequence of ClassInfo
        The background first.
    volume : Volume
        Its geometry gives a voxel's size.

    Returns
    -------
    DataFrame
        A row for all the foreground, then one a class. ``class``; ``before``, ``after`` and
        ``change``, in the unit that ``attrs["unit"]`` names; ``change_percent``, of before (nan
        where that is 0); ``gained`` and ``lost``, in voxels; ``dice`` of the two (nan where there
        is none of the class in either).
    """
    voxel = voxel_volume(volume)
    rows = [_change(FOREGROUND, before > 0, after > 0, voxel)]
    rows += [
        _change(info.name, before == value, after == value, voxel)
        for value, info in enumerate(classes)
        if value > 0
    ]
    table = pd.DataFrame(rows)
    table.attrs["volume"] = table.attrs["unit"] = volume_unit(volume)
    return table


def _change(
    name: str, before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_], voxel: float
) -> dict[str, Any]:
    old, new = int(np.count_nonzero(before)), int(np.count_nonzero(after))
    both = int(np.count_nonzero(before & after))
    return {
        "class": name,
        "before": old * voxel,
        "after": new * voxel,
        "change": (new - old) * voxel,
        "change_percent": 100 * (new - old) / old if old else float("nan"),
        "gained": new - both,
        "lost": old - both,
        "dice": 2 * both / (old + new) if old + new else float("nan"),
    }


def voxel_volume(volume: Volume) -> float:
    """Volume of one voxel, in `volume_unit`."""
    if volume.affine is None:
        return float(np.prod(volume.spacing))
    return float(abs(np.linalg.det(volume.affine[:3, :3])))


def volume_unit(volume: Volume) -> str:
    """e.g. ``"mm³"``, or ``"voxels"`` where the volume states no length."""
    return f"{volume.units}³" if is_length(volume.units) else "voxels"
