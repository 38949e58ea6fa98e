"""The rate that a convolution reaches at best on this machine, to measure others by."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

#: A 3x3x3 convolution of 64 to 64 channels over so many voxels of input.
CHANNELS, EXTENT = 64, (18, 64, 64)
#: What it is, in the words of the report.
PEAK = "3x3x3 convolution of 64 to 64 channels over 18 x 64 x 64 voxels, bias and ReLU fused"
_PADDING, _ONES = [0, 1, 1], [1, 1, 1]

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]


def _plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.relu_(F.conv3d(x, weight, bias, 1, (0, 1, 1)))


def _onednn(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    ops: Any = torch.ops.mkldnn
    made: Tensor = ops._convolution_pointwise(
        x, weight, bias, _PADDING, _ONES, _ONES, 1, "relu", [], ""
    )
    return made


class Peak:
    """The best rate so far of one dtype; to be asked again and again between other work.

    Such machines run at half speed for a while now and then, so one measurement is not enough.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(0)

        def random(*shape: int) -> torch.Tensor:
            made = torch.randn(*shape, generator=generator).to(dtype)
            return made.contiguous(memory_format=torch.channels_last_3d)

        self._x = random(1, CHANNELS, *EXTENT)
        self._weight = random(CHANNELS, CHANNELS, 3, 3, 3)
        self._bias = torch.zeros(CHANNELS, dtype=dtype)
        self._kernels: list[Kernel] = [_plain]
        try:
            self._seconds(_onednn)
            self._kernels.append(_onednn)
        except (AttributeError, RuntimeError, TypeError):
            pass  # private to torch: this build has none
        self.rates: list[float] = []

    @property
    def best(self) -> float:
        """Floating-point operations per second, of the best run of all."""
        return max(self.rates)

    def measure(self, times: int = 5) -> float:
        """Run it a few times; the best rate of these."""
        z, y, x = EXTENT
        operations = 2 * prod(self._weight.shape) * (z - 2) * y * x
        with torch.inference_mode():
            fastest = min(self._seconds(k) for k in self._kernels for _ in range(times))
        self.rates.append(operations / fastest)
        return self.rates[-1]

    def _seconds(self, kernel: Kernel) -> float:
        start = perf_counter()
        kernel(self._x, self._weight, self._bias)
        return perf_counter() - start
