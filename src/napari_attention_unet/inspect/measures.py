"""How each gate's coefficients lie to the predicted mask.

A gate's map is coarser than the mask. Every mask voxel takes the coefficient of
the nearest gate sample; all figures below are over mask voxels under that
assignment. They are computed on the gate's own grid from the number of
foreground and background voxels that each sample serves, so nothing is up-sampled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_attention_unet.prediction import GateMap, Prediction

#: Below this at the 99th percentile a sigmoid gate is dead, above 1 minus this at the 1st
#: percentile it is saturated.
DEAD = 0.05
#: A gate whose 1st to 99th percentile spans less than this is constant (for a spatial softmax,
#: relative to its mean).
CONSTANT = 0.01


@dataclass(frozen=True)
class GateMeasures:
    """Statistics of one gate against the predicted foreground.

    Attributes
    ----------
    name, kind : str
        Of the gate.
    minimum, maximum, mean : float
        Over the gate's samples.
    low, high : float
        1st and 99th percentile over the gate's samples.
    inside, outside : float
        Mean coefficient over foreground and over background voxels; nan where there are none.
    auc : float
        Probability that a foreground voxel has a higher coefficient than a background voxel, ties
        counting half (area under the ROC curve, Mann-Whitney); nan where either is missing.
    flag : str
        ``"dead"``, ``"saturated"``, ``"constant"`` or empty.
    """

    name: str
    kind: str
    minimum: float
    maximum: float
    mean: float
    low: float
    high: float
    inside: float
    outside: float
    auc: float
    flag: str


def gate_measures(prediction: Prediction) -> list[GateMeasures]:
    """Measure every gate of a prediction against its mask's foreground (label > 0).

    Returns
    -------
    list of GateMeasures
        In the order of ``prediction.gates``.
    """
    foreground = prediction.mask > 0
    return [_measure(gate, foreground) for gate in prediction.gates]


def most_telling(measures: list[GateMeasures]) -> str | None:
    """Name of the gate that ranks the foreground best; never a flagged one.

    Without any foreground (no AUC) it is the unflagged gate with the widest range.

    Returns
    -------
    str or None
        None when every gate is flagged, or there is none.
    """
    usable = [m for m in measures if not m.flag]
    if not usable:
        return None
    ranked = [m for m in usable if not np.isnan(m.auc)]
    if ranked:
        return max(ranked, key=lambda m: m.auc).name
    return max(usable, key=lambda m: m.high - m.low).name


def _measure(gate: GateMap, foreground: npt.NDArray[np.bool_]) -> GateMeasures:
    alpha = np.asarray(gate.coefficients, dtype=np.float32)
    low, high = (float(v) for v in np.percentile(alpha, (1, 99)))
    mean = float(alpha.mean(dtype=np.float64))
    positive, served = _voxels_served(gate, foreground)
    negative = served - positive
    weights = [w.astype(np.float64) for w in (positive, negative)]
    inside, outside = (
        float((alpha * w).sum() / w.sum()) if w.sum() else float("nan") for w in weights
    )
    return GateMeasures(
        name=gate.name,
        kind=gate.kind,
        minimum=float(alpha.min()),
        maximum=float(alpha.max()),
        mean=mean,
        low=low,
        high=high,
        inside=inside,
        outside=outside,
        auc=_auc(alpha.ravel(), positive.ravel(), negative.ravel()),
        flag=_flag(gate.kind, low, high, mean),
    )


def _flag(kind: str, low: float, high: float, mean: float) -> str:
    if kind == "softmax":  # values are about 1/N: only their spread means anything
        return "constant" if high - low < CONSTANT * mean else ""
    if high < DEAD:
        return "dead"
    if low > 1 - DEAD:
        return "saturated"
    return "constant" if high - low < CONSTANT else ""


def _voxels_served(
    gate: GateMap, foreground: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Foreground voxels and all voxels whose nearest sample each gate sample is."""
    positive: npt.NDArray[Any] = foreground
    served = np.ones((1, 1, 1), np.int64)
    for axis, samples in enumerate(gate.coefficients.shape):
        voxels = foreground.shape[axis]
        nearest = np.rint((np.arange(voxels) - gate.translate[axis]) / gate.scale[axis])
        owner = np.clip(nearest, 0, samples - 1).astype(np.int64)
        owners, first, count = np.unique(owner, return_index=True, return_counts=True)
        shape = [*positive.shape]
        shape[axis] = samples
        spread = np.zeros(shape, np.int64)
        where = [slice(None)] * 3
        where[axis] = owners  # type: ignore[call-overload]
        spread[tuple(where)] = np.add.reduceat(positive, first, axis=axis, dtype=np.int64)
        positive = spread
        line = np.zeros(samples, np.int64)
        line[owners] = count
        served = served * line.reshape([-1 if a == axis else 1 for a in range(3)])
    return positive, served


def _auc(
    alpha: npt.NDArray[np.float32],
    positive: npt.NDArray[np.int64],
    negative: npt.NDArray[np.int64],
) -> float:
    """Weighted Mann-Whitney statistic over samples that stand for several voxels each."""
    if not positive.sum() or not negative.sum():
        return float("nan")
    order = np.argsort(alpha)
    values = alpha[order]
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
    above = np.add.reduceat(positive[order], starts).astype(np.float64)
    below = np.add.reduceat(negative[order], starts).astype(np.float64)
    wins = above @ (np.cumsum(below) - below / 2)
    return float(wins / (above.sum() * below.sum()))
