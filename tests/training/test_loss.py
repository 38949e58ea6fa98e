"""The loss, with tissues known and not."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from napari_attention_unet.training.augment import UNKNOWN_TISSUE
from napari_attention_unet.training.loss import segmentation_loss


def logits_of(labels: torch.Tensor) -> torch.Tensor:
    """Logits that are sure of these labels."""
    return 30 * F.one_hot(labels, 4).permute(0, 4, 1, 2, 3).float()


@pytest.fixture
def labels():
    return torch.randint(0, 4, (1, 12, 12, 12), generator=torch.Generator().manual_seed(0))


def test_right_is_nothing_and_wrong_is_much(labels):
    assert segmentation_loss(logits_of(labels), labels) < 1e-3
    assert segmentation_loss(logits_of((labels + 1) % 4), labels) > 20


def test_cross_entropy_part_is_the_usual_one(labels):
    logits = torch.randn(1, 4, 12, 12, 12, generator=torch.Generator().manual_seed(1))
    probability = logits.softmax(1)
    dice = []
    for p, t in [
        (probability[:, 1:].sum(1), labels > 0),
        *[(probability[:, k], labels == k) for k in (1, 2, 3)],
    ]:
        dice.append((2 * (p * t).sum() + 100) / (p.sum() + t.sum() + 100))
    expected = F.cross_entropy(logits, labels) + 1 - sum(dice) / 4
    torch.testing.assert_close(segmentation_loss(logits, labels), expected)


@pytest.mark.parametrize("tissue", [1, 2, 3])
def test_any_tissue_is_right_where_it_is_not_known(tissue):
    target = torch.zeros(1, 12, 12, 12, dtype=torch.int64)
    target[:, 3:9, 3:9, 3:9] = UNKNOWN_TISSUE
    labels = torch.where(target == UNKNOWN_TISSUE, tissue, 0)
    assert segmentation_loss(logits_of(labels), target) < 1e-3
    assert segmentation_loss(logits_of(torch.zeros_like(labels)), target) > 1


def test_unknown_tissue_gives_no_say_between_tissues():
    target = torch.full((1, 8, 8, 8), UNKNOWN_TISSUE)
    logits = torch.zeros(1, 4, 8, 8, 8, requires_grad=True)
    segmentation_loss(logits, target).backward()
    slope = logits.grad[0].flatten(1).sum(1)
    assert slope[0] > 0
    assert slope[1:].lt(0).all()
    torch.testing.assert_close(slope[1:], slope[1].expand(3))
