"""How alike two maps on one grid are."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

#: Side of the window of SSIM, in samples, where the map is large enough.
_WINDOW = 7
#: Share of the samples that counts as the top of a map.
TOP = 0.1


def structural_similarity(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """Mean SSIM of two maps (Wang et al. 2004), -1..1, 1 for equal ones.

    The range of both together is taken as the data range, so that maps with little contrast are
    compared by what contrast they have.

    Returns
    -------
    float
        nan where the grid has less than three samples along an axis.
    """
    from skimage.metrics import structural_similarity as ssim

    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    side = min(_WINDOW, *one.shape)
    side -= 1 - side % 2
    if side < 3:
        return float("nan")
    low, high = min(one.min(), other.min()), max(one.max(), other.max())
    if low == high:
        return 1.0
    found = ssim(one, other, win_size=side, data_range=high - low)  # type: ignore[no-untyped-call]
    return float(found)


def rank_correlation(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """Spearman's rank correlation of two maps, -1..1, over samples where neither is NaN.

    Returns
    -------
    float
        nan where either is constant.
    """
    from scipy.stats import spearmanr

    one, other = _together(one, other)
    if one.size < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(spearmanr(one, other).statistic)


def top_overlap(one: npt.NDArray[Any], other: npt.NDArray[Any], share: float = TOP) -> float:
    """Dice of the samples where each map is highest, 0..1; maps without a relation give `share`.

    Parameters
    ----------
    one, other : array
        On one grid; samples where either is NaN are left out.
    share : float
        Of the samples that is compared. Samples that are equal at the limit all count, those at a
        map's minimum never do.

    Returns
    -------
    float
        nan where either is constant.
    """
    one, other = _together(one, other)
    if not one.size or np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    tops = [(m >= np.quantile(m, 1 - share)) & (m > m.min()) for m in (one, other)]
    both = int(np.count_nonzero(tops[0] & tops[1]))
    return 2 * both / int(sum(np.count_nonzero(top) for top in tops))


def _together(
    one: npt.NDArray[Any], other: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    one, other = np.asarray(one, np.float64).ravel(), np.asarray(other, np.float64).ravel()
    known = ~(np.isnan(one) | np.isnan(other))
    return one[known], other[known]
