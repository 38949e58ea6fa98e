"""The product of features and coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .base import Operation, Window


@dataclass(frozen=True, eq=False)
class Gating(Operation):
    """Features, multiplied by one coefficient a voxel.

    In reduced precision the coefficients are multiplied in as they are, in float32, and the product
    alone is rounded; on a CPU that is also more than twice as fast.
    """

    def run(self, pieces: Sequence[Any], window: Window) -> Tensor:
        """Multiply."""
        first, second = (piece.float() if piece.shape[1] == 1 else piece for piece in pieces)
        return torch.mul(first, second).to(self.dtype)

    def run_into(self, pieces: Sequence[Any], window: Window, out: Tensor) -> None:
        """Multiply, and round into place."""
        first, second = (piece.float() if piece.shape[1] == 1 else piece for piece in pieces)
        if out.dtype == torch.float32:
            torch.mul(first, second, out=out)
        else:
            out.copy_(torch.mul(first, second))
