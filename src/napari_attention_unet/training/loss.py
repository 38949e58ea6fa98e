"""Cross-entropy plus soft Dice, with targets that may name the brain but not its tissue."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .augment import UNKNOWN_TISSUE

CLASSES = 4


def segmentation_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy plus mean soft Dice loss.

    Where the target is `UNKNOWN_TISSUE`, the probabilities of the three tissues are summed: any
    tissue is right. The Dice loss is taken over each tissue where tissues are known, and over
    the whole brain everywhere (Milletari et al. 2016, arXiv:1606.04797, with squared sums
    replaced by plain ones).

    Parameters
    ----------
    logits : Tensor, shape (batch, 4, z, y, x)
        Background, grey matter, white matter, CSF.
    target : Tensor, shape (batch, z, y, x), int64
        0..3, or `UNKNOWN_TISSUE`.

    Returns
    -------
    Tensor, scalar
        0 and more.
    """
    log = F.log_softmax(logits.float(), 1)
    log_brain = torch.logsumexp(log[:, 1:], 1)
    unknown = target == UNKNOWN_TISSUE
    known = log.gather(1, target.clamp(max=CLASSES - 1)[:, None])[:, 0]
    cross_entropy = -torch.where(unknown, log_brain, known).mean()

    probability = log.exp()
    dice = [_dice(log_brain.exp(), target > 0)]
    if not bool(unknown.any()):
        dice += [_dice(probability[:, k], target == k) for k in range(1, CLASSES)]
    return cross_entropy + 1 - torch.stack(dice).mean()


def _dice(probability: Tensor, truth: Tensor) -> Tensor:
    """Soft Dice of a whole batch; near 1 where both are empty."""
    overlap = (probability * truth).sum()
    return (2 * overlap + 100.0) / (probability.sum() + truth.sum() + 100.0)
