"""How each gate's coefficients lie to the predicted mask.

These are the few figures that every run shows; `table` has all of them, by class or object. What
concerns voxels goes by the nearest sample (`assignment`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_attention_unet.prediction import GateMap, Prediction

from .assignment import Assignment, Ranking, Served, auc, serve, weighted_mean

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
    assignments = [Assignment(gate, foreground.shape) for gate in prediction.gates]
    box = tuple(slice(0, size) for size in foreground.shape)
    served, _ = serve(assignments, foreground, True, box)
    return [
        _measure(gate, assignment, inside)
        for gate, assignment, inside in zip(prediction.gates, assignments, served, strict=True)
    ]


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


def _measure(gate: GateMap, assignment: Assignment, inside: Served) -> GateMeasures:
    alpha = assignment.alpha
    outside = assignment.everything()
    outside[inside.samples] -= inside.counts
    low, high = (float(v) for v in np.percentile(alpha, (1, 99)))
    mean = float(alpha.mean(dtype=np.float64))
    return GateMeasures(
        name=gate.name,
        kind=gate.kind,
        minimum=float(alpha.min()),
        maximum=float(alpha.max()),
        mean=mean,
        low=low,
        high=high,
        inside=inside.mean(),
        outside=weighted_mean(alpha, outside),
        auc=auc(inside, Ranking(alpha).below(outside)),
        flag=flag(gate.kind, low, high, mean),
    )


def flag(kind: str, low: float, high: float, mean: float) -> str:
    """What is wrong with a gate whose 1st and 99th percentile and mean are these.

    Returns
    -------
    str
        ``"dead"``, ``"saturated"``, ``"constant"``, or empty where nothing is.
    """
    if kind == "softmax":  # values are about 1/N: only their spread means anything
        return "constant" if high - low < CONSTANT * mean else ""
    if high < DEAD:
        return "dead"
    if low > 1 - DEAD:
        return "saturated"
    return "constant" if high - low < CONSTANT else ""


def flag_words(measures: GateMeasures) -> str:
    """What a flag means, in one sentence; empty without a flag."""
    if measures.flag == "dead":
        return f"Closed everywhere: 99 % of it is below {DEAD:g}."
    if measures.flag == "saturated":
        return f"Open everywhere: 99 % of it is above {1 - DEAD:g}."
    if measures.flag == "constant":
        of = " of its mean" if measures.kind == "softmax" else ""
        return f"The same everywhere: it varies by less than {CONSTANT:g}{of}."
    return ""
