"""Sliding windows as nnU-Net predicts, written for the comparison after its published algorithm.

Isensee et al. 2021 (doi:10.1038/s41592-020-01008-z), nnU-Net v2's defaults: windows of the training
patch that overlap by half, weighted by a Gaussian of an eighth of the patch, and, if wished, the
mean over all mirrorings. Sums are kept in float32; nnU-Net keeps them in float16, which a CPU does
not add fast.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, product
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from napari_attention_unet.volume import Shape3

STEP, SIGMA = 0.5, 1 / 8


def starts(size: int, patch: int) -> list[int]:
    """First voxels of the windows along an axis of `size` >= `patch` voxels, evenly spread."""
    count = int(np.ceil((size - patch) / (patch * STEP))) + 1
    stride = (size - patch) / (count - 1) if count > 1 else 0.0
    return [round(stride * index) for index in range(count)]


def weights(patch: Shape3) -> Tensor:
    """Gaussian around the middle voxel, 1 at most and never 0, shape (z, y, x)."""
    point = np.zeros(patch)
    point[tuple(n // 2 for n in patch)] = 1
    blurred = gaussian_filter(point, [n * SIGMA for n in patch], mode="constant")
    blurred /= blurred.max()
    blurred[blurred == 0] = blurred[blurred > 0].min()
    return torch.from_numpy(blurred.astype(np.float32))


def predict(
    network: Callable[[Tensor], Tensor], x: Tensor, patch: Shape3, mirror: bool = False
) -> Tensor:
    """Logits of a volume.

    Parameters
    ----------
    network : callable
        Logits of a window.
    x : Tensor, shape (1, channel, z, y, x)
    patch : tuple of int
        Size of the windows; a smaller volume is padded with zeros on both sides.
    mirror : bool
        Whether to run each window in all eight mirrorings.

    Returns
    -------
    Tensor, shape (1, class, z, y, x), float32
    """
    size = x.shape[2:]
    missing = [max(0, p - n) for p, n in zip(patch, size, strict=True)]
    before = [m // 2 for m in missing]
    pads = [n for m, b in zip(missing, before, strict=True) for n in (m - b, b)]
    x = F.pad(x, pads[::-1])  # last axis first
    weight = weights(patch)
    total, summed = torch.empty(0), torch.zeros(x.shape[2:])
    lines = [starts(n, p) for n, p in zip(x.shape[2:], patch, strict=True)]
    for corner in product(*lines):
        box = tuple(slice(c, c + p) for c, p in zip(corner, patch, strict=True))
        at: Any = (..., *box)
        found = _mirrored(network, x[at], mirror).float()
        if not total.numel():
            total = torch.zeros(1, found.shape[1], *x.shape[2:])
        total[at] += found * weight
        summed[box] += weight
    total /= summed
    kept: Any = (..., *(slice(b, b + n) for b, n in zip(before, size, strict=True)))
    return total[kept]


def _mirrored(network: Callable[[Tensor], Tensor], x: Tensor, mirror: bool) -> Tensor:
    result = network(x)
    if not mirror:
        return result
    turns: list[tuple[int, ...]] = [c for n in (1, 2, 3) for c in combinations((2, 3, 4), n)]
    for axes in turns:
        result = result + network(x.flip(axes)).flip(axes)
    return result / (len(turns) + 1)
