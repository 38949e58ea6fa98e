"""Pictures made of several gates, or of gates and probabilities, on the image grid.

Gates are brought to the image grid slab by slab, linear between their samples, in float32. So that
they can be set side by side, the coefficients of a softmax over space are divided by their largest,
and those of a candidate that leaves 0..1 are brought to it by their smallest and largest.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from napari_attention_unet.errors import InputError
from napari_attention_unet.graph.lower import finished
from napari_attention_unet.prediction import GateMap, Prediction, Step

from .overlays import Overlay
from .probe import probability_names
from .sampling import resample, slabs

Slab = npt.NDArray[np.float32]
Way = Literal["product", "consensus", "disagreement", "deviation"]
#: Values of the labels of a conflict.
LOOKED_AT_ONLY, SEGMENTED_ONLY = 1, 2


def _product(maps: list[Slab]) -> Slab:
    return np.asarray(np.prod(maps, axis=0, dtype=np.float32))


def _mean(maps: list[Slab]) -> Slab:
    return np.asarray(np.mean(maps, axis=0, dtype=np.float32))


def _range(maps: list[Slab]) -> Slab:
    return np.asarray(np.max(maps, axis=0) - np.min(maps, axis=0))


def _deviation(maps: list[Slab]) -> Slab:
    return np.asarray(np.std(maps, axis=0, dtype=np.float32))


@dataclass(frozen=True)
class _Combination:
    combine: Callable[[list[Slab]], Slab]
    meaning: str


WAYS: dict[str, _Combination] = {
    "product": _Combination(_product, "Coefficients multiplied: bright where every gate is open."),
    "consensus": _Combination(_mean, "Mean of the coefficients."),
    "disagreement": _Combination(
        _range, "Largest minus smallest coefficient: bright where gates disagree."
    ),
    "deviation": _Combination(_deviation, "Standard deviation of the coefficients."),
}


def combined_steps(
    prediction: Prediction, way: Way, gates: Sequence[str] | None = None
) -> Generator[Step, None, Overlay]:
    """Combine gates voxel by voxel on the image grid.

    Parameters
    ----------
    prediction : Prediction
    way : {"product", "consensus", "disagreement", "deviation"}
        The product, the mean, largest minus smallest, or the standard deviation over gates.
    gates : sequence of str, optional
        Names; all gates if omitted.

    Yields
    ------
    Step

    Returns
    -------
    Overlay
        An image in 0..1.

    Raises
    ------
    InputError
        If the way is not known or there is no gate.
    """
    if way not in WAYS:
        raise InputError(f"Unknown way to combine gates '{way}'; known: {', '.join(WAYS)}.")
    chosen = _chosen(prediction, gates)
    shape = prediction.mask.shape
    data = np.empty(shape, np.float32)
    for start, stop in slabs(shape):
        maps = [each.slab(shape, start, stop) for each in chosen]
        data[start:stop] = WAYS[way].combine(maps)
        yield Step(stop, shape[0], f"Combining gates: {way}")
    names = ", ".join(each.gate.name for each in chosen)
    return Overlay(
        f"{way} of gates",
        "image",
        data,
        meaning=f"{WAYS[way].meaning} Of {names}.",
        limits=(0.0, 1.0 if way in ("product", "consensus") else max(float(data.max()), 1e-6)),
    )


def combined(prediction: Prediction, way: Way, gates: Sequence[str] | None = None) -> Overlay:
    """`combined_steps`, run out."""
    return finished(combined_steps(prediction, way, gates))


def conflict_steps(
    prediction: Prediction,
    gates: Sequence[str] | None = None,
    class_name: str | None = None,
    coefficient: float = 0.5,
    probability: float = 0.5,
) -> Generator[Step, None, Overlay]:
    """Label where attention and answer part: looked at but not segmented, and the reverse.

    Parameters
    ----------
    prediction : Prediction
        With probabilities.
    gates : sequence of str, optional
        Whose mean is meant; all gates if omitted.
    class_name : str, optional
        The class whose probability is meant. If omitted, 1 - that of the background, or the largest
        of the others where the background has none.
    coefficient, probability : float
        From where on each counts as high.

    Yields
    ------
    Step

    Returns
    -------
    Overlay
        Labels: 1 for a high coefficient and a low probability, 2 for the reverse.

    Raises
    ------
    InputError
        If the prediction has no probabilities, no gate, or no such class.
    """
    chosen = _chosen(prediction, gates)
    channels = _channels(prediction, class_name)
    shape = prediction.mask.shape
    labels = np.empty(shape, np.uint8)
    assert prediction.probabilities is not None
    for start, stop in slabs(shape):
        maps = [each.slab(shape, start, stop) for each in chosen]
        open_ = _mean(maps) >= coefficient
        slab = np.asarray(prediction.probabilities[:, start:stop])
        likely = _probability(slab, channels, len(prediction.classes)) >= probability
        labels[start:stop] = np.where(open_ & ~likely, LOOKED_AT_ONLY, 0)
        labels[start:stop][likely & ~open_] = SEGMENTED_ONLY
        yield Step(stop, shape[0], "Comparing gates with probabilities")
    what = class_name or "foreground"
    names = ", ".join(each.gate.name for each in chosen)
    return Overlay(
        f"conflict of gates and {what}",
        "labels",
        labels,
        meaning=f"Where the mean coefficient of {names} is {coefficient:g} or more but the "
        f"probability of {what} is below {probability:g}, and the reverse.",
        labels={
            LOOKED_AT_ONLY: f"open, but {what} improbable",
            SEGMENTED_ONLY: f"{what} probable, but closed",
        },
    )


def conflict(
    prediction: Prediction,
    gates: Sequence[str] | None = None,
    class_name: str | None = None,
    coefficient: float = 0.5,
    probability: float = 0.5,
) -> Overlay:
    """`conflict_steps`, run out."""
    return finished(conflict_steps(prediction, gates, class_name, coefficient, probability))


@dataclass(frozen=True)
class _Strength:
    """A gate whose coefficients are brought to 0..1, whatever its kind."""

    gate: GateMap
    offset: np.float32
    factor: np.float32

    def slab(self, shape: tuple[int, ...], start: int, stop: int) -> Slab:
        """Some planes of it on the image grid."""
        values = resample(self.gate, shape, start, stop)
        return (values - self.offset) * self.factor


def _strength(gate: GateMap) -> _Strength:
    low, high = float(gate.coefficients.min()), float(gate.coefficients.max())
    offset, span = 0.0, 1.0
    if gate.kind == "softmax":
        span = high
    elif low < 0 or high > 1:
        offset, span = low, high - low
    return _Strength(gate, np.float32(offset), np.float32(1 / span if span > 0 else 1))


def _chosen(prediction: Prediction, gates: Sequence[str] | None) -> list[_Strength]:
    chosen = [prediction.gate(name) for name in gates] if gates else list(prediction.gates)
    if not chosen:
        raise InputError("This network has no gates, so there is nothing to combine.")
    return [_strength(gate) for gate in chosen]


def _channels(prediction: Prediction, class_name: str | None) -> list[int] | None:
    """Channels of the class; None for every class but the background."""
    names = probability_names(prediction)
    if not names:
        raise InputError(
            "This result has no probabilities. Run again with probabilities among the outputs."
        )
    if class_name is None:
        return None
    if class_name not in names:
        raise InputError(f"There is no class '{class_name}'; there are {', '.join(names)}.")
    return [names.index(class_name)]


def _probability(slab: Slab, channels: list[int] | None, classes: int) -> Slab:
    if channels is not None:
        return np.asarray(slab[channels[0]])
    if slab.shape[0] == classes:
        return 1 - np.asarray(slab[0])
    return np.asarray(slab.max(0))  # the background has no channel
