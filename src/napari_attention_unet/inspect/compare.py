"""Two predictions of one volume, side by side: masks, gates and measures."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from napari_attention_unet.errors import InputError
from napari_attention_unet.prediction import GateMap, Prediction

from .difference import class_changes, difference_labels
from .sampling import neighbours
from .similarity import rank_correlation, structural_similarity
from .table import Column, measures_table

#: Grids whose scale and translate differ by less than this many voxels are equal.
_SAME_PLACE = 1e-3
_SAMPLES = "over the samples of the coarser grid"
#: What the columns of `Comparison.gates` are.
PAIR_COLUMNS: tuple[Column, ...] = (
    Column("first", "Gate of first", "", "The gate's module in the first network."),
    Column("second", "Gate of second", "", "The gate that it is compared with."),
    Column("by", "Paired by", "", "Equal names, or equal grids."),
    Column("mean_difference", "Mean difference", "", f"Second minus first, mean {_SAMPLES}."),
    Column("mean_abs_difference", "Mean size", "", f"Mean size of the difference {_SAMPLES}."),
    Column("max_abs_difference", "Largest", "", f"Largest difference {_SAMPLES}."),
    Column("rank_correlation", "Rank correlation", "", "Spearman's, of the two maps, -1..1."),
    Column("ssim", "SSIM", "", "Structural similarity of the two maps, 1 for equal ones."),
)


@dataclass(frozen=True, eq=False)
class GatePair:
    """Two gates that are compared.

    Attributes
    ----------
    first, second : str
        Their names.
    by : str
        Why they are a pair: ``"name"`` or ``"grid"``.
    difference : GateMap
        Second minus first, -1..1, on the coarser of their grids.
    """

    first: str
    second: str
    by: str
    difference: GateMap


@dataclass(frozen=True, eq=False)
class Comparison:
    """What differs between two predictions.

    Attributes
    ----------
    first, second : Prediction
        The labels of the second one's mask are those of the first one's classes.
    difference : array, shape (z, y, x), uint8
        From the first mask to the second; see `difference.DIFFERENCE`.
    classes : DataFrame
        See `difference.class_changes`; before is the first, after the second.
    pairs : tuple of GatePair
        In the order of the first one's gates.
    gates : DataFrame
        A row a pair: ``first``, ``second``, ``by``, ``mean_difference``, ``mean_abs_difference``,
        ``max_abs_difference``, ``rank_correlation`` and ``ssim``.
    measures : DataFrame
        A row for each pair and class: the measures of `table.measures_table`, each with the
        suffixes ``_1`` and ``_2``.
    unpaired : tuple of str
        Gates of either that the other has none for.
    """

    first: Prediction
    second: Prediction
    difference: npt.NDArray[np.uint8] = field(repr=False)
    classes: pd.DataFrame = field(repr=False)
    pairs: tuple[GatePair, ...]
    gates: pd.DataFrame = field(repr=False)
    measures: pd.DataFrame = field(repr=False)
    unpaired: tuple[str, ...] = ()


def compare(first: Prediction, second: Prediction) -> Comparison:
    """Compare two predictions of one volume, of two models or of two ways to run one.

    Gates are paired by equal names, what is left by equal grids. Classes are matched by their
    names; where the names differ, by their order.

    Parameters
    ----------
    first, second : Prediction
        Of one volume, so that their masks have one shape and place.

    Raises
    ------
    InputError
        If the masks do not lie on one grid, or the numbers of classes differ.
    """
    _check_same_grid(first, second)
    second = replace(second, mask=_as_classes_of(first, second), classes=first.classes)
    before, after = np.asarray(first.mask), np.asarray(second.mask)
    pairs = _pairs(first, second)
    paired = {pair.first for pair in pairs}, {pair.second for pair in pairs}
    return Comparison(
        first=first,
        second=second,
        difference=difference_labels(before, after),
        classes=class_changes(before, after, first.classes, first.volume),
        pairs=pairs,
        gates=pd.DataFrame(
            [_row(first, second, pair) for pair in pairs], columns=[c.name for c in PAIR_COLUMNS]
        ),
        measures=_measures(first, second, pairs),
        unpaired=tuple(
            gate.name
            for prediction, taken in zip((first, second), paired, strict=True)
            for gate in prediction.gates
            if gate.name not in taken
        ),
    )


def resampled(gate: GateMap, target: GateMap) -> npt.NDArray[np.float32]:
    """A gate's coefficients at the samples of another gate, linear between its own.

    Returns
    -------
    array, shape of ``target.coefficients``, float32
    """
    values = np.asarray(gate.coefficients, np.float32)
    for axis, size in enumerate(target.coefficients.shape):
        centres = target.translate[axis] + target.scale[axis] * np.arange(size)
        lower, upper, share = neighbours(gate, axis, centres)
        weight = share.reshape([-1 if k == axis else 1 for k in range(3)])
        low, high = values.take(lower, axis), values.take(upper, axis)
        values = low + weight * (high - low)
    return values


def _check_same_grid(first: Prediction, second: Prediction) -> None:
    shapes = [tuple(p.mask.shape) for p in (first, second)]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"The masks have the shapes {shapes[0]} and {shapes[1]}; two predictions of one volume "
            "can be compared."
        )
    one, other = first.volume.index_to_world, second.volume.index_to_world
    if not np.allclose(one, other, rtol=1e-4, atol=1e-4 * min(first.volume.spacing)):
        raise InputError(
            "The two masks lie at different places or have different voxel sizes "
            f"({_sizes(first)} and {_sizes(second)}); two predictions of one volume can be "
            "compared."
        )


def _sizes(prediction: Prediction) -> str:
    volume = prediction.volume
    return " x ".join(f"{size:g}" for size in volume.spacing) + f" {volume.units}"


def _as_classes_of(first: Prediction, second: Prediction) -> npt.NDArray[Any]:
    """The second mask with the labels of the first one's classes."""
    ours, theirs = ([info.name for info in p.classes] for p in (first, second))
    if len(ours) != len(theirs):
        raise InputError(
            f"The first has the classes {', '.join(ours)}, the second {', '.join(theirs)}; "
            "predictions with as many classes can be compared."
        )
    mask = np.asarray(second.mask)
    if ours == theirs or set(ours) != set(theirs):
        return mask
    return np.array([ours.index(name) for name in theirs], mask.dtype)[mask]


def _pairs(first: Prediction, second: Prediction) -> tuple[GatePair, ...]:
    left = {gate.name: gate for gate in second.gates}
    chosen: dict[str, tuple[GateMap, str]] = {}
    for gate in first.gates:
        if gate.name in left:
            chosen[gate.name] = left.pop(gate.name), "name"
    for gate in first.gates:
        match = next((other for other in left.values() if _same_grid(gate, other)), None)
        if gate.name not in chosen and match is not None:
            chosen[gate.name] = left.pop(match.name), "grid"
    made = []
    for gate in first.gates:
        if gate.name in chosen:
            other, by = chosen[gate.name]
            made.append(GatePair(gate.name, other.name, by, _difference(gate, other)))
    return tuple(made)


def _same_grid(one: GateMap, other: GateMap) -> bool:
    return one.coefficients.shape == other.coefficients.shape and np.allclose(
        (one.scale, one.translate), (other.scale, other.translate), atol=_SAME_PLACE
    )


def _common(one: GateMap, other: GateMap) -> tuple[GateMap, Any, Any]:
    """The coarser grid, and both maps on it."""
    target = min((one, other), key=lambda gate: gate.coefficients.size)
    maps = [
        np.asarray(gate.coefficients, np.float32)
        if _same_grid(gate, target)
        else resampled(gate, target)
        for gate in (one, other)
    ]
    return target, maps[0], maps[1]


def _difference(one: GateMap, other: GateMap) -> GateMap:
    target, first, second = _common(one, other)
    return replace(target, name=one.name, coefficients=second - first, kind="difference")


def _row(first: Prediction, second: Prediction, pair: GatePair) -> dict[str, Any]:
    change = pair.difference.coefficients
    _, one, other = _common(first.gate(pair.first), second.gate(pair.second))
    return {
        "first": pair.first,
        "second": pair.second,
        "by": pair.by,
        "mean_difference": float(change.mean(dtype=np.float64)),
        "mean_abs_difference": float(np.abs(change).mean(dtype=np.float64)),
        "max_abs_difference": float(np.abs(change).max()),
        "rank_correlation": rank_correlation(one, other),
        "ssim": structural_similarity(one, other),
    }


def _measures(first: Prediction, second: Prediction, pairs: tuple[GatePair, ...]) -> pd.DataFrame:
    """The measures of both, next to each other, in the rows of the first."""
    keys, left_out = ["gate", "region"], ["label", "kind", "grid"]
    one, other = (measures_table(p).drop(columns=left_out) for p in (first, second))
    names = {pair.second: pair.first for pair in pairs}
    other = other[other["gate"].isin(names)]
    other = other.assign(gate=other["gate"].map(names).astype(one["gate"].dtype))
    made = one.merge(other, on=keys, suffixes=("_1", "_2"))
    numbers = [name for name in one.columns if name not in keys]
    made = made[[*keys, *(f"{name}_{i}" for name in numbers for i in (1, 2))]]
    made.attrs.update(one.attrs)
    return made
