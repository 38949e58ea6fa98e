"""Normalisation, with stored statistics and with those of the volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .base import Operation, Range, Shape, Window
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
        return _scale_and_shift(pieces[0], self.scale, self.shift, self.activation).to(self.dtype)


def _scale_and_shift(
    x: Tensor, scale: Tensor, shift: Tensor, activation: Activation | None
) -> Tensor:
    y = torch.addcmul(shift.view(1, -1, 1, 1, 1), x.float(), scale.view(1, -1, 1, 1, 1))
    return y if activation is None else activation(y)


@dataclass(frozen=True)
class Moments:
    """Number, mean and sum of squared differences from the mean, per group.

    In float64, except on MPS, which has none.
    """

    count: int
    mean: Tensor
    squares: Tensor

    def merged(self, other: Moments) -> Moments:
        """Of both samples together (Chan, Golub & LeVeque 1983)."""
        count = self.count + other.count
        away = other.mean - self.mean
        return Moments(
            count,
            self.mean + away * (other.count / count),
            self.squares + other.squares + away**2 * (self.count * other.count / count),
        )


@dataclass(frozen=True, eq=False)
class GroupNormalization(Operation):
    """Group or instance normalisation: with statistics of the whole volume.

    An executor first measures every range of the input, merges what it got, and then runs ranges
    with the statistics.

    Attributes
    ----------
    groups : int
        Groups of channels that share statistics; as many as channels for instance normalisation.
    weight, bias : Tensor or None
        Per channel, float32.
    epsilon : float
        Added to the variance.
    activation : Activation or None
        That follows.
    """

    groups: int
    weight: Tensor | None
    bias: Tensor | None
    epsilon: float
    activation: Activation | None

    @property
    def local(self) -> bool:
        """Its statistics need all."""
        return False

    def measure(self, piece: Tensor) -> Moments:
        """Statistics of a range of input planes."""
        # wide reductions of float32 values: no wide copy of the piece
        wide = torch.float32 if piece.device.type == "mps" else torch.float64
        grouped = piece.float().view(self.groups, -1, *piece.shape[2:])
        axes = (1, 2, 3, 4)
        count = grouped.numel() // self.groups
        mean = grouped.mean(axes, dtype=wide)
        centred = grouped - mean.float().view(-1, 1, 1, 1, 1)
        rest = centred.sum(axes, dtype=wide)
        # what rounding the mean to float32 left
        squares = centred.square_().sum(axes, dtype=wide) - rest**2 / count
        return Moments(count, mean, squares)

    def normalise(self, piece: Tensor, moments: Moments) -> Tensor:
        """A range of output planes of the same range of input planes."""
        channels = piece.shape[1]
        inverse = (moments.squares / moments.count + self.epsilon).rsqrt()
        each = channels // self.groups
        scale = inverse.repeat_interleave(each)
        if self.weight is not None:
            scale = scale * self.weight
        shift = -moments.mean.repeat_interleave(each) * scale
        if self.bias is not None:
            shift = shift + self.bias
        return _scale_and_shift(piece, scale.float(), shift.float(), self.activation).to(self.dtype)

    def reads(
        self, axis: int, start: int, stop: int, sizes: Sequence[int], size: int
    ) -> list[Range]:
        """All, for the statistics."""
        return [(0, sizes[0])]

    def run(self, pieces: Sequence[Any], window: Window) -> Tensor:
        """Measure and normalise the whole at once."""
        return self.normalise(pieces[0], self.measure(pieces[0]))

    def work(self, shape: Shape, inputs: Sequence[Shape]) -> float:
        """The traffic of measuring twice and normalising."""
        return 3 * super().work(shape, inputs)
