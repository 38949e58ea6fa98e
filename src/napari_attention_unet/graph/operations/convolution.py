"""Convolution, transposed convolution and pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Operation, Range, Shape, Window
from .kernels import Activation, Geometry, Kernel


@dataclass(frozen=True, eq=False)
class Weighted(Operation):
    """What both convolutions have: weights, with what was folded into them, and a kernel.

    Attributes
    ----------
    kept : torch.dtype
        Of the output, where it is not the one in which this computes.
    weights : tuple of Tensor
        As `kernel` takes them, batch normalisation folded in.
    bias : Tensor or None
        In the dtype in which this computes, batch normalisation folded in.
    geometry : Geometry
        Kernel size, stride, padding and dilation along z, y, x.
    activation : Activation or None
        That follows in the same operation.
    kernel : callable
        As `choose` found it.
    """

    kept: torch.dtype
    weights: tuple[Tensor, ...]
    bias: Tensor | None
    geometry: Geometry
    activation: Activation | None
    kernel: Kernel

    @property
    def result(self) -> torch.dtype:
        """As `kept` says."""
        return self.kept


class Convolution(Weighted):
    """Convolution: each output sample gathers what the kernel covers.

    With several inputs, the sum of their convolutions: that of their concatenation, which is thus
    never made.
    """

    @property
    def aligned(self) -> bool:
        """Whether the kernel is but one plane thick and keeps the planes."""
        return self.geometry.flat

    def reads(
        self, axis: int, start: int, stop: int, sizes: Sequence[int], size: int
    ) -> list[Range]:
        """What the kernels cover, without the padding."""
        return [self.geometry.covered(axis, start, stop, n) for n in sizes]

    def spans(self, start: int, stop: int, depths: Sequence[int], depth: int) -> list[Range]:
        """What the kernels cover, with the padding."""
        return [self.geometry.window(0, start, stop)] * len(self.inputs)

    def run(self, pieces: Sequence[Any], window: Window) -> Tensor:
        """Zeros are put at the true ends of the volume alone."""
        return self._run(pieces, window, None).to(self.kept)

    def run_into(self, pieces: Sequence[Any], window: Window, out: Tensor) -> None:
        """The same, in place."""
        if out.dtype == self.dtype:
            self._run(pieces, window, out)
        else:
            out.copy_(self._run(pieces, window, None))

    def _run(self, pieces: Sequence[Any], window: Window, out: Tensor | None) -> Tensor:
        g = self.geometry
        low, high = g.window(0, window.start, window.stop)
        before, after = max(0, -low), max(0, high - window.depths[0])
        inputs: list[Tensor] = [self.cast(piece) for piece in pieces]
        whole = [x.shape[2] == high - low for x in inputs]  # these have their zeros
        if all(whole):
            before = 0
        elif before != after or any(whole):  # a slab at an end of the volume
            ends = (0, 0, 0, 0, before, after)
            inputs = [x if ok else F.pad(x, ends) for x, ok in zip(inputs, whole, strict=True)]
            before = 0
        padding = (before, g.padding[1], g.padding[2])
        none = (0, 0, 0)
        return self.kernel(inputs, self.weights, self.bias, g, padding, none, self.activation, out)

    def work(self, shape: Shape, inputs: Sequence[Shape]) -> float:
        """Two for each multiply-add, and the traffic."""
        each = sum(source[1] for source in inputs) / self.geometry.groups
        adds = prod(shape) * each * prod(self.geometry.kernel)
        return 2.0 * adds + super().work(shape, inputs)


class TransposedConvolution(Weighted):
    """Transposed convolution: each input sample is spread over what the kernel covers."""

    @property
    def aligned(self) -> bool:
        """Whether the kernel is but one plane thick and keeps the planes."""
        return self.geometry.flat

    def reads(
        self, axis: int, start: int, stop: int, sizes: Sequence[int], size: int
    ) -> list[Range]:
        """Output ``o`` reads inputs ``(o + padding - dilation * t) / stride`` where whole."""
        low, high = self._touching(axis, start, stop)
        low = min(max(low, 0), sizes[0] - 1)  # samples at an end may depend on no input
        return [(low, max(min(high, sizes[0]), low + 1))]

    def spans(self, start: int, stop: int, depths: Sequence[int], depth: int) -> list[Range]:
        """The same with planes beyond the ends: zeros add nothing."""
        return [self._touching(0, start, stop)]

    def _touching(self, axis: int, start: int, stop: int) -> Range:
        g = self.geometry
        stride, padding = g.stride[axis], g.padding[axis]
        low = -(-(start + padding - g.extent(axis) + 1) // stride)
        return low, (stop - 1 + padding) // stride + 1

    def run(self, pieces: Sequence[Any], window: Window) -> Tensor:
        """The planes that the inputs touch are computed, the wanted ones returned."""
        x, g = self.cast(pieces[0]), self.geometry
        low, high = self._touching(0, window.start, window.stop)
        if x.shape[2] != high - low:  # the zeros beyond the ends are missing
            low = max(low, 0)
        # cut off what comes before as padding, which takes as much from the end
        wanted = window.stop - window.start
        before = window.start + g.padding[0] - low * g.stride[0]
        touched = (x.shape[2] - 1) * g.stride[0] + g.extent(0)
        cut = max(0, min(before, touched - before - wanted))
        # a number of planes that is no multiple of the stride would take a much slower kernel
        extra = -(touched - 2 * cut) % g.stride[0]
        padding = (cut, g.padding[1], g.padding[2])
        more = (extra, g.output_padding[1], g.output_padding[2])
        y = self.kernel([x], self.weights, self.bias, g, padding, more, self.activation, None)
        return y.narrow(2, before - cut, wanted).to(self.kept)

    def work(self, shape: Shape, inputs: Sequence[Shape]) -> float:
        """Two for each multiply-add, and the traffic."""
        adds = prod(inputs[0]) * shape[1] / self.geometry.groups * prod(self.geometry.kernel)
        return 2.0 * adds + super().work(shape, inputs)


@dataclass(frozen=True, eq=False)
class Pooling(Operation):
    """Maximum or mean over a window.

    Attributes
    ----------
    geometry : Geometry
        Of the windows.
    mean : bool
        The mean, over the padding's zeros as well; otherwise the maximum, which the padding never
        is.
    ceil_mode : bool
        Whether windows may reach over the end, for the maximum alone.
    """

    geometry: Geometry
    mean: bool = False
    ceil_mode: bool = False

    @property
    def _halves(self) -> bool:
        g = self.geometry
        plain = g.dilation == (1, 1, 1) and not any(g.padding) and not self.ceil_mode
        return plain and g.kernel == g.stride == (2, 2, 2)

    def reads(
        self, axis: int, start: int, stop: int, sizes: Sequence[int], size: int
    ) -> list[Range]:
        """What the windows cover, without the padding."""
        return [self.geometry.covered(axis, start, stop, sizes[0])]

    def run(self, pieces: Sequence[Any], window: Window) -> Tensor:
        """Padding is put at the true ends of the volume alone."""
        x, g = self.cast(pieces[0]), self.geometry
        low, high = g.window(0, window.start, window.stop)
        ends = (max(0, -low), max(0, high - window.depths[0]))
        if any(ends):
            x = F.pad(x, (0, 0, 0, 0, *ends), value=0.0 if self.mean else float("-inf"))
        padding = (0, g.padding[1], g.padding[2])
        if self.mean:
            # torch has no kernel in reduced precision for the CPU
            exact = x.float() if x.device.type == "cpu" else x
            return F.avg_pool3d(exact, g.kernel, g.stride, padding).to(x.dtype)
        if self._halves and x.device.type == "cpu":
            return _max_of_pairs(x)
        return F.max_pool3d(x, g.kernel, g.stride, padding, g.dilation, self.ceil_mode)


def _max_of_pairs(x: Tensor) -> Tensor:
    """`F.max_pool3d` by 2, in less than two thirds of its time."""
    for axis in (2, 3, 4):
        if x.shape[axis] % 2:
            x = x.narrow(axis, 0, x.shape[axis] - 1)
        pairs = [slice(None)] * axis
        x = torch.maximum(x[(*pairs, slice(0, None, 2))], x[(*pairs, slice(1, None, 2))])
    return x
