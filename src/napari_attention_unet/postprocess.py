"""From the network's output to probabilities and labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor


def activate(output: Tensor, activation: str) -> Tensor:
    """Probabilities of the network's output.

    Parameters
    ----------
    output : Tensor, shape (class, z, y, x)
        Of the network.
    activation : str
        ``"softmax"``, ``"sigmoid"`` or ``"none"`` (it is a probability already).
    """
    if activation == "softmax":
        return output.softmax(0)
    return output.sigmoid() if activation == "sigmoid" else output


def label(output: Tensor, activation: str, threshold: float | None, classes: int) -> Tensor:
    """Class of each voxel.

    Without a threshold, the class of the largest output; where classes do not compete (sigmoid, or
    a single channel), 0.5 is the threshold. With one, the most probable of the classes that reach
    it, the background where none does.

    Parameters
    ----------
    output : Tensor, shape (channel, z, y, x)
        Of the network.
    activation : str
        See `activate`.
    threshold : float or None
        Probability that makes a voxel belong to a class.
    classes : int
        Classes of the mask, the background included; one more than the channels where the
        background has none.

    Returns
    -------
    Tensor, shape (z, y, x), int64
    """
    channels = output.shape[0]
    if threshold is None:
        if channels > 1 and activation != "sigmoid":
            return _first_largest(output)
        threshold = 0.5
    first = 0 if classes > channels else 1
    best, index = activate(output, activation)[first:].max(0)
    return torch.where(best >= threshold, index + 1, 0)


def _first_largest(output: Tensor) -> Tensor:
    """`output.argmax(0)`, several times faster for a few channels of many voxels."""
    best = output[0]
    found = torch.zeros(output.shape[1:], dtype=torch.int64)
    for channel in range(1, output.shape[0]):
        found[output[channel] > best] = channel
        best = torch.maximum(best, output[channel])
    return found


def largest_component(mask: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.integer[Any]]:
    """The mask without the foreground that is not connected to its largest piece.

    All classes but the background count as one foreground; voxels are connected by their faces.
    """
    pieces, count = ndimage.label(mask > 0)
    if count < 2:
        return mask
    sizes = np.bincount(pieces.ravel())
    return np.where(pieces == 1 + int(sizes[1:].argmax()), mask, 0).astype(mask.dtype)
