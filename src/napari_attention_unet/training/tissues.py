"""Grey matter, white matter and CSF of a T1 head whose brain mask is known.

A Gaussian mixture of three classes, a smooth multiplicative bias field estimated with it
(Wells et al. 1996, IEEE Trans. Med. Imaging 15:429), and a mean-field Markov prior that asks
neighbours to agree. It makes the silver labels of the training heads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage as ndi

from napari_attention_unet.volume import Vec3

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.uint8]

#: Values of the label maps.
BACKGROUND, GREY, WHITE, CSF = 0, 1, 2, 3


def segment(
    image: Array,
    mask: Mask,
    spacing: Vec3,
    *,
    field_mm: float = 30.0,
    agreement: float = 1.5,
    iterations: int = 25,
) -> tuple[Labels, Array]:
    """Label the tissues inside a brain mask.

    Parameters
    ----------
    image : array, shape (z, y, x), float32
        T1-weighted intensities.
    mask : array, shape (z, y, x), bool
        Brain, its ventricles included.
    spacing : tuple of float
        Voxel size along z, y, x in mm.
    field_mm : float
        Standard deviation of the Gaussian that keeps the bias field smooth, in mm.
    agreement : float
        Weight of the neighbours' mean membership in the log posterior.
    iterations : int
        Rounds of expectation and maximisation.

    Returns
    -------
    labels : array, shape (z, y, x), uint8
        0 outside the mask, else `GREY`, `WHITE` or `CSF`.
    field : array, shape (z, y, x), float32
        Bias field; ``image / field`` is flat. 1 on average.
    """
    inside = np.maximum(image[mask], 0) / np.median(image[mask])
    log = np.log(np.maximum(inside, 0.1))
    # The first guess of the field takes the whole brain for one class.
    field = _smooth(_spread(log, mask), mask.astype(np.float32), spacing, field_mm)
    flat = inside / np.exp(field[mask])
    means = np.percentile(flat, [4, 40, 85])  # CSF, grey, white: dark to bright in T1
    variance = float(np.var(flat)) / 6
    priors = np.array([0.1, 0.5, 0.4])
    membership = np.zeros((3, *image.shape), np.float32)
    for _ in range(iterations):
        energy = np.stack(
            [
                np.log(p) - 0.5 * (flat - m) ** 2 / variance
                for m, p in zip(means, priors, strict=True)
            ]
        )
        for k in range(3):
            energy[k] += agreement * ndi.uniform_filter(membership[k], 3)[mask]
        posterior = np.exp(energy - energy.max(0))
        posterior /= posterior.sum(0)
        membership[:, mask] = posterior
        total = posterior.sum(1)
        means = (posterior * flat).sum(1) / total
        variance = float((posterior * (flat - means[:, None]) ** 2).sum() / total.sum())
        priors = total / total.sum()
        # CSF is too varied in T1 to say anything about the field.
        tissue = posterior[1] + posterior[2]
        residual = sum(posterior[k] * (log - np.log(means[k])) for k in (1, 2))
        field = _smooth(_spread(residual, mask), _spread(tissue, mask), spacing, field_mm)
        flat = inside / np.exp(field[mask])
    labels = np.zeros(image.shape, np.uint8)
    labels[mask] = np.array([CSF, GREY, WHITE], np.uint8)[membership[:, mask].argmax(0)]
    return labels, np.exp(field)


def _spread(values: npt.NDArray[Any], mask: Mask) -> Array:
    """Values of the voxels of a mask, as a volume that is 0 elsewhere."""
    volume = np.zeros(mask.shape, np.float32)
    volume[mask] = values
    return volume


def _smooth(values: Array, weights: Array, spacing: Vec3, sigma_mm: float) -> Array:
    """Gaussian-weighted mean of ``values / weights``, worked out on a grid four times coarser."""
    step = 4
    sigma = [sigma_mm / s / step for s in spacing]
    means = []
    for volume in (values, weights):
        coarse = ndi.uniform_filter(volume, step, mode="constant")[::step, ::step, ::step]
        means.append(ndi.gaussian_filter(coarse, sigma, mode="constant"))
    field = means[0] / (means[1] + 1e-4)
    fine = ndi.zoom(field, step, order=1, mode="nearest", grid_mode=True)
    z, y, x = values.shape
    smooth: Array = fine[:z, :y, :x].astype(np.float32)
    return smooth
