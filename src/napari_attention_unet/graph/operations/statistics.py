"""Operations with statistics of the whole volume.

An executor first measures every range of the input, merges what it got, and then makes ranges of
the output with the statistics: however the volume is cut, they are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from .base import Operation, Range, Shape, Window
from .kernels import Activation
from .normalization import scale_and_shift

_SPACE = (0, 2, 3, 4)


class Summary(Protocol):
    """What was measured of some planes."""

    def merged(self, other: Self) -> Self:
        """Of both together."""
        ...


@dataclass(frozen=True, eq=False)
class Statistical(Operation):
    """An operation that needs statistics of its whole input, and then a range for a range."""

    @property
    def local(self) -> bool:
        """Its statistics need all."""
        return False

    def reads(
        self, axis: int, start: int, stop: int, sizes: Sequence[int], size: int
    ) -> list[Range]:
        """All, for the statistics."""
        return [(0, sizes[0])]

    def measure(self, piece: Tensor) -> Any:
        """`Summary` of a range of input planes."""
        raise NotImplementedError

    def apply(self, piece: Tensor, summary: Any) -> Tensor:
        """A range of output planes of the same range of input planes."""
        raise NotImplementedError

    def run(self, pieces: Sequence[Any], window: Window) -> Tensor:
        """Measure and apply to the whole at once."""
        return self.apply(pieces[0], self.measure(pieces[0]))

    def work(self, shape: Shape, inputs: Sequence[Shape]) -> float:
        """The traffic of measuring twice and applying."""
        return 3 * super().work(shape, inputs)


def _wide(device: torch.device) -> torch.dtype:
    """In which sums are kept: MPS has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


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
class GroupNormalization(Statistical):
    """Group or instance normalisation: with statistics of the whole volume.

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

    def measure(self, piece: Tensor) -> Moments:
        """Statistics of a range of input planes."""
        if piece.device.type == "cpu":  # ten times faster there than the general operator
            mean, variance = torch.batch_norm_update_stats(piece, None, None, 0.0)
        else:
            variance, mean = torch.var_mean(piece.float(), _SPACE, correction=0)
        wide = _wide(piece.device)
        mean, variance = mean.to(wide), variance.to(wide)
        # channels of a group are merged as ranges of planes are
        means = mean.view(self.groups, -1)
        mean = means.mean(1)
        variance = variance.view(self.groups, -1).mean(1)
        variance = variance + (means - mean.unsqueeze(1)).square().mean(1)
        count = piece.numel() // self.groups
        return Moments(count, mean, variance * count)

    def apply(self, piece: Tensor, summary: Moments) -> Tensor:
        """Normalise, scale, shift, activate."""
        channels = piece.shape[1]
        inverse = (summary.squares / summary.count + self.epsilon).rsqrt()
        each = channels // self.groups
        scale = inverse.repeat_interleave(each)
        if self.weight is not None:
            scale = scale * self.weight
        shift = -summary.mean.repeat_interleave(each) * scale
        if self.bias is not None:
            shift = shift + self.bias
        return scale_and_shift(piece, scale.float(), shift.float(), self.activation).to(self.dtype)


@dataclass(frozen=True)
class Total:
    """Number of voxels, and sum or maximum over them per channel."""

    count: int
    value: Tensor
    largest: bool

    def merged(self, other: Total) -> Total:
        """Over both."""
        join = torch.maximum if self.largest else torch.add
        return Total(self.count + other.count, join(self.value, other.value), self.largest)


@dataclass(frozen=True, eq=False)
class GlobalPooling(Statistical):
    """Mean or maximum over all voxels, per channel.

    Attributes
    ----------
    largest : bool
        The maximum; otherwise the mean.
    shape : tuple of int
        Of the result, which has no voxels: (1, channel) or (1, channel, 1, 1, 1).
    """

    largest: bool
    shape: Shape

    def measure(self, piece: Tensor) -> Total:
        """Sum or maximum over a range of input planes."""
        count = piece.shape[2] * piece.shape[3] * piece.shape[4]
        if self.largest:
            return Total(count, piece.amax((2, 3, 4)), True)
        return Total(count, piece.sum((2, 3, 4), dtype=_wide(piece.device)), False)

    def apply(self, piece: Tensor, summary: Total) -> Tensor:
        """The result, of which there is but one."""
        value = summary.value if self.largest else summary.value / summary.count
        return value.to(self.dtype).view(self.shape)


@dataclass(frozen=True)
class Exponentials:
    """Largest value, and sum of exponentials of the differences from it, per channel."""

    largest: Tensor
    total: Tensor

    def merged(self, other: Exponentials) -> Exponentials:
        """Over both."""
        largest = torch.maximum(self.largest, other.largest)
        total = self.total * (self.largest - largest).exp()
        return Exponentials(largest, total + other.total * (other.largest - largest).exp())


@dataclass(frozen=True, eq=False)
class SpatialSoftmax(Statistical):
    """Softmax over all voxels, per channel."""

    def measure(self, piece: Tensor) -> Exponentials:
        """Of a range of input planes."""
        largest = piece.float().amax((2, 3, 4), keepdim=True)
        away = (piece.float() - largest).exp_()
        wide = _wide(piece.device)
        return Exponentials(largest.to(wide), away.sum((2, 3, 4), keepdim=True, dtype=wide))

    def apply(self, piece: Tensor, summary: Exponentials) -> Tensor:
        """Exponentials over their sum."""
        away = (piece.float() - summary.largest.float()).exp_()
        return away.div_(summary.total.float()).to(self.dtype)
