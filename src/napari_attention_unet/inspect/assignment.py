"""Which voxels each sample of a gate serves, and statistics over voxels by that assignment.

A gate's map is coarser than the mask, and every voxel takes the coefficient of the nearest sample.
Statistics over voxels are computed from the number of voxels that each sample serves, so nothing
is up-sampled, and memory grows with the gate's own grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_attention_unet.prediction import GateMap

from .sampling import nearest_samples

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
#: Range of voxels along z, y and x.
Slices = tuple[slice, ...]
#: Voxels whose coordinates are held at a time.
_SLAB_VOXELS = 2**21


@dataclass(frozen=True)
class Served:
    """The voxels of a region by the samples of one gate that serve them.

    Attributes
    ----------
    samples : int64 array, shape (n,)
        Flat indices into the gate's grid, ascending: those that serve any voxel of the region.
    counts : int64 array, shape (n,)
        Number of the region's voxels that each of them serves.
    alpha : float32 array, shape (n,)
        Their coefficients.
    centroid : float64 array, shape (3,)
        Of the region's voxels, weighted by their coefficients, in voxels (z, y, x); nan where the
        coefficients add up to nothing.
    """

    samples: Counts
    counts: Counts
    alpha: npt.NDArray[np.float32]
    centroid: Floats

    @property
    def voxels(self) -> int:
        """Number of the region's voxels."""
        return int(self.counts.sum())

    def mean(self, values: npt.NDArray[Any] | None = None) -> float:
        """Mean over the region's voxels of the coefficients, or of another value of each sample."""
        values = self.alpha if values is None else values
        return weighted_mean(values, self.counts)

    def percentiles(self, percent: Sequence[float]) -> list[float]:
        """Percentiles of the coefficients over the region's voxels, linear between ranks."""
        if not self.voxels:
            return [float("nan")] * len(percent)
        order = np.argsort(self.alpha)
        values, ends = self.alpha[order].astype(np.float64), np.cumsum(self.counts[order])
        rank = np.asarray(percent, np.float64) / 100 * (ends[-1] - 1)
        lower = np.floor(rank)
        first, second = (
            values[np.searchsorted(ends, np.minimum(r, ends[-1] - 1), "right")]
            for r in (lower, lower + 1)
        )
        found: list[float] = (first + (rank - lower) * (second - first)).tolist()
        return found


class Assignment:
    """The nearest sample of a gate for every voxel.

    Parameters
    ----------
    gate : GateMap
    shape : tuple of int
        Of the mask, (z, y, x).
    """

    def __init__(self, gate: GateMap, shape: tuple[int, ...]) -> None:
        self.alpha = np.ascontiguousarray(gate.coefficients, np.float32).ravel()
        self._owners = [nearest_samples(gate, axis, np.arange(shape[axis])) for axis in range(3)]
        self._grid = gate.coefficients.shape
        _, rows, columns = self._grid
        self._offsets = [
            owner * step
            for owner, step in zip(self._owners, (rows * columns, columns, 1), strict=True)
        ]

    def everything(self) -> Counts:
        """Number of voxels that each sample serves, shape (samples,)."""
        z, y, x = (
            np.bincount(owner, minlength=size)
            for owner, size in zip(self._owners, self._grid, strict=True)
        )
        return np.ravel(z[:, None, None] * y[:, None] * x)

    def samples(self, voxels: Sequence[Counts]) -> Counts:
        """Flat index of the sample that serves each voxel (z, y, x)."""
        z, y, x = (offset[v] for offset, v in zip(self._offsets, voxels, strict=True))
        return np.asarray(z + y + x)


def serve(
    assignments: Sequence[Assignment], labels: npt.NDArray[Any], label: int, box: Slices | None
) -> tuple[list[Served], Floats]:
    """Share out the voxels of one label among the samples of each gate.

    Parameters
    ----------
    assignments : sequence of Assignment
        One a gate.
    labels : array, shape (z, y, x)
        Label map.
    label : int
        The region is ``labels == label``.
    box : three slices, or None
        Where the label occurs; None for a label that does not.

    Returns
    -------
    list of Served
        One a gate.
    centroid : float64 array, shape (3,)
        Of the region, in voxels; nan where it is empty.
    """
    pieces: list[list[tuple[Counts, Counts]]] = [[] for _ in assignments]
    moments = np.zeros((len(assignments), 4))
    plain = np.zeros(4)
    for voxels in _coordinates(labels, label, box):
        plain += [len(voxels[0]), *(v.sum(dtype=np.float64) for v in voxels)]
        for gate, assignment in enumerate(assignments):
            samples = assignment.samples(voxels)
            weights = assignment.alpha[samples].astype(np.float64)
            moments[gate] += [weights.sum(), *(weights @ v for v in voxels)]
            first = int(samples.min())
            counts = np.bincount(samples - first)
            hit = np.flatnonzero(counts)
            pieces[gate].append((hit + first, counts[hit]))
    served = [
        _served(assignment, piece, moment)
        for assignment, piece, moment in zip(assignments, pieces, moments, strict=True)
    ]
    return served, _ratio(plain)


def _coordinates(
    labels: npt.NDArray[Any], label: int, box: Slices | None
) -> Iterator[tuple[Counts, Counts, Counts]]:
    """Voxels (z, y, x) of the label, some planes at a time."""
    if box is None:
        return
    planes, rows, columns = (range(n)[part] for n, part in zip(labels.shape, box, strict=True))
    step = max(1, _SLAB_VOXELS // max(1, len(rows) * len(columns)))
    for start in range(planes.start, planes.stop, step):
        stop = min(start + step, planes.stop)
        z, y, x = np.nonzero(np.asarray(labels[start:stop, box[1], box[2]]) == label)
        if len(z):
            yield z + start, y + rows.start, x + columns.start


def _served(assignment: Assignment, pieces: list[tuple[Counts, Counts]], moments: Floats) -> Served:
    none = np.zeros(0, np.int64)
    samples = np.concatenate([none, *(each for each, _ in pieces)])
    counts = np.concatenate([none, *(each for _, each in pieces)])
    # Neighbouring slabs may share a plane of samples.
    samples, where = np.unique(samples, return_inverse=True)
    counts = np.bincount(where, weights=counts, minlength=len(samples)).astype(np.int64)
    return Served(samples, counts, assignment.alpha[samples], _ratio(moments))


def _ratio(moments: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Floats = moments[1:] / moments[0]
    return np.where(np.isfinite(ratio), ratio, np.nan)


def weighted_mean(values: npt.NDArray[Any], counts: npt.NDArray[Any]) -> float:
    """Mean of values that stand for several voxels each; nan where there are none."""
    total = counts.sum(dtype=np.float64)
    return float(np.asarray(values, np.float64) @ counts / total) if total else float("nan")


class Ranking:
    """How well a gate's coefficients alone tell voxels apart.

    Parameters
    ----------
    alpha : float32 array, shape (samples,)
        Coefficients of the gate's samples.
    """

    def __init__(self, alpha: npt.NDArray[np.float32]) -> None:
        values, rank = np.unique(alpha, return_inverse=True)
        self._rank = rank
        self._distinct = len(values)

    def below(self, negative: Counts) -> Floats:
        """For each sample, the share of the negative voxels with a lower coefficient.

        Ties count half. Shape (samples,); nan where there are no negative voxels.
        """
        count = np.bincount(self._rank, weights=negative, minlength=self._distinct)
        total = count.sum()
        if not total:
            return np.full(len(self._rank), np.nan)
        share: Floats = (np.cumsum(count) - count / 2) / total
        return share[self._rank]


def auc(positive: Served, below: Floats) -> float:
    """Area under the ROC curve: how often a voxel of the region outranks a negative one.

    The Mann-Whitney statistic over samples that stand for several voxels each.

    Parameters
    ----------
    positive : Served
        The region.
    below : float64 array, shape (samples,)
        From `Ranking.below`.

    Returns
    -------
    float
        In 0..1, 0.5 for chance; nan where either side has no voxel.
    """
    return positive.mean(below[positive.samples])
