"""A prediction against reference labels: overlap, distances of surfaces, attention at errors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_attention_unet.errors import InputError
from napari_attention_unet.prediction import Prediction
from napari_attention_unet.volume import Vec3

from .assignment import Assignment, serve
from .difference import FOREGROUND, dice
from .probe import class_name
from .table import Column, units_of

if TYPE_CHECKING:
    from pandas import DataFrame

Mask = npt.NDArray[np.bool_]

_LABEL = Column("label", "Label", "", "Value in the mask; 0 stands for the foreground as a whole.")
_REGION = Column("region", "Region", "", "Class, or foreground (every class but background).")
CLASS_COLUMNS: tuple[Column, ...] = (
    _LABEL,
    _REGION,
    Column("voxels", "Predicted", "voxels", "Number of voxels that the prediction has."),
    Column("reference_voxels", "Reference", "voxels", "Number of voxels that the reference has."),
    Column("dice", "Dice", "", "2 TP / (2 TP + FP + FN)."),
    Column("precision", "Precision", "", "TP / (TP + FP)."),
    Column("recall", "Recall", "", "TP / (TP + FN)."),
    Column(
        "surface_distance",
        "Average surface distance",
        "{length}",
        "Mean distance from the surface voxels of each to the nearest surface voxel of the other, "
        "over both together. Infinite where one of the two is empty.",
    ),
    Column(
        "surface_distance_95",
        "95 % surface distance",
        "{length}",
        "The larger of the two 95th percentiles of those distances, from prediction to reference "
        "and back (95 % Hausdorff distance). Infinite where one of the two is empty.",
    ),
)
GATE_COLUMNS: tuple[Column, ...] = (
    Column("gate", "Gate", "", "The gate's module in the network."),
    _LABEL,
    _REGION,
    *(
        column
        for name, words in (
            ("tp", "true positives (in both)"),
            ("fp", "false positives (predicted alone)"),
            ("fn", "false negatives (in the reference alone)"),
            ("tn", "true negatives (in neither)"),
        )
        for column in (
            Column(f"{name}_voxels", f"{name.upper()}", "voxels", f"Number of {words}."),
            Column(
                f"{name}_mean",
                f"Mean over {name.upper()}",
                "",
                f"Mean coefficient over the {words}, each voxel taking the nearest sample.",
            ),
        )
    ),
)


@dataclass(frozen=True)
class ReferenceComparison:
    """A prediction against reference labels.

    Attributes
    ----------
    classes : DataFrame
        A row a class, and one for the foreground where there are several; columns as in
        `CLASS_COLUMNS`.
    gates : DataFrame
        A row for each gate and row of `classes`; columns as in `GATE_COLUMNS`. Both have
        their units in ``attrs``, as from `measures_table`.
    """

    classes: DataFrame
    gates: DataFrame


def compare_with_reference(prediction: Prediction, reference: npt.ArrayLike) -> ReferenceComparison:
    """Compare a prediction with reference labels.

    Where neither has a class, its measures are nan; where one of the two has none, Dice is 0 and
    the distances are infinite.

    Parameters
    ----------
    prediction : Prediction
    reference : array, shape (z, y, x)
        Labels on the grid of the volume that was run, with the values of the mask; whole numbers
        in any dtype.

    Raises
    ------
    InputError
        If the reference has another shape, or values that are no labels.
    """
    from pandas import DataFrame

    mask = np.asarray(prediction.mask)
    truth = _labels(reference, mask.shape)
    highest = max(len(prediction.classes) - 1, int(mask.max(initial=0)), int(truth.max(initial=0)))
    spacing = prediction.volume.spacing
    assignments = [Assignment(gate, mask.shape) for gate in prediction.gates]
    classes: list[dict[str, Any]] = []
    gates: list[list[dict[str, Any]]] = [[] for _ in assignments]
    for label in [*range(1, highest + 1), *([0] if highest > 1 else [])]:
        found, wanted = (m == label if label else m > 0 for m in (mask, truth))
        names = {"label": label, "region": class_name(prediction, label) if label else FOREGROUND}
        classes.append(names | overlap(found, wanted) | surface_distances(found, wanted, spacing))
        for rows, means in zip(gates, _attention(assignments, found, wanted), strict=True):
            rows.append(names | means)
    tables = (
        DataFrame(classes, columns=[c.name for c in CLASS_COLUMNS]),
        DataFrame(
            [
                {"gate": gate.name} | row
                for gate, rows in zip(prediction.gates, gates, strict=True)
                for row in rows
            ],
            columns=[c.name for c in GATE_COLUMNS],
        ),
    )
    for table in tables:
        table.attrs |= units_of(prediction.volume)
    return ReferenceComparison(*tables)


def overlap(found: Mask, wanted: Mask) -> dict[str, float]:
    """Voxels, Dice, precision and recall of two masks; nan where there is nothing to divide by."""
    both = int(np.count_nonzero(found & wanted))
    one, other = int(np.count_nonzero(found)), int(np.count_nonzero(wanted))

    def share(part: int, whole: int) -> float:
        return part / whole if whole else float("nan")

    return {
        "voxels": one,
        "reference_voxels": other,
        "dice": dice(found, wanted),
        "precision": share(both, one),
        "recall": share(both, other),
    }


def surface_distances(found: Mask, wanted: Mask, spacing: Vec3) -> dict[str, float]:
    """Average symmetric and 95 % Hausdorff distance of two masks.

    A surface voxel is one of the mask that shares a face with a voxel outside it or with the end
    of the volume. Distances are exact and Euclidean, from centre to centre.

    Parameters
    ----------
    found, wanted : bool arrays, shape (z, y, x)
    spacing : tuple of float
        Voxel size.

    Returns
    -------
    dict
        ``surface_distance`` and ``surface_distance_95`` in the unit of `spacing`; nan where both
        masks are empty, infinite where one is.
    """
    names = ("surface_distance", "surface_distance_95")
    there = [bool(found.any()), bool(wanted.any())]
    if not all(there):
        return dict.fromkeys(names, float("inf") if any(there) else float("nan"))
    (box,) = ndimage.find_objects((found | wanted).view(np.uint8))
    surfaces = [m[box] & ~ndimage.binary_erosion(m[box]) for m in (found, wanted)]
    directed = [
        ndimage.distance_transform_edt(~to, sampling=spacing)[start]
        for start, to in (surfaces, surfaces[::-1])
    ]
    average = float(np.concatenate(directed).mean())
    worst = max(float(np.percentile(distances, 95)) for distances in directed)
    return dict(zip(names, (average, worst), strict=True))


def _attention(
    assignments: list[Assignment], found: Mask, wanted: Mask
) -> Iterator[dict[str, float]]:
    """Mean coefficient over each kind of agreement and error, a dictionary a gate."""
    kinds = {"tp": 3, "fp": 1, "fn": 2, "tn": 0}
    code = found.astype(np.uint8) + 2 * wanted.astype(np.uint8)
    whole = tuple(slice(0, n) for n in code.shape)
    served = {name: serve(assignments, code, kind, whole)[0] for name, kind in kinds.items()}
    for gate in range(len(assignments)):
        row: dict[str, float] = {}
        for name, each in served.items():
            row |= {f"{name}_voxels": each[gate].voxels, f"{name}_mean": each[gate].mean()}
        yield row


def _labels(reference: npt.ArrayLike, shape: tuple[int, ...]) -> npt.NDArray[np.integer[Any]]:
    labels = np.asarray(reference)
    if labels.shape != shape:
        raise InputError(
            f"The reference has the shape {labels.shape}, the volume {shape} (z, y, x). Choose "
            "labels on the grid of the volume, or resample them to it (nearest)."
        )
    with np.errstate(invalid="ignore"):  # nan is told apart below
        whole = labels.astype(np.int64) if labels.dtype.kind in "biuf" else None
    if whole is None or (labels.dtype.kind == "f" and not np.array_equal(whole, labels)):
        raise InputError(
            f"The reference has values of type {labels.dtype} that are no labels; a label map has "
            "whole numbers, 0 for background."
        )
    if whole.min(initial=0) < 0:
        raise InputError(
            f"The reference has negative values (down to {whole.min()}); a label map has whole "
            "numbers from 0."
        )
    return whole
