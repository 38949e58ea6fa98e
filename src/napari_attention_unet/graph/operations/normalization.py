"""Normalisation with stored statistics: ``scale * x + shift``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .base import Operation, Window
from .kernels import Activation


@dataclass(frozen=True, eq=False)
class ScaleShift(Operation):
    """Batch normalisation that follows no convolution: ``scale * x + shift`` per channel.

    It computes in float32 also in reduced precision, where a large mean would swallow differences.
    """

    scale: Tensor
    shift: Tensor
    activation: Activation | None

    def run(self, pieces: Sequence[Any], window: Window) -> Tensor:
        """Scale, shift, activate."""
        return scale_and_shift(pieces[0], self.scale, self.shift, self.activation).to(self.dtype)


def scale_and_shift(
    x: Tensor, scale: Tensor, shift: Tensor, activation: Activation | None
) -> Tensor:
    """``scale * x + shift`` per channel in float32, activated."""
    y = torch.addcmul(shift.view(1, -1, 1, 1, 1), x.float(), scale.view(1, -1, 1, 1, 1))
    return y if activation is None else activation(y)
