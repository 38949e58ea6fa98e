"""Convolution kernels: torch's own, and oneDNN's where it is right and faster.

On a CPU torch sends ``conv3d`` with few channels in float32 to a kernel that is 4 to 36 times
slower than oneDNN's. oneDNN's fused operators are private to torch, so they are never assumed:
each layer shape is tried once in the process against the plain operator, and the plain one stays
where oneDNN's is missing, wrong or clearly slower.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from napari_attention_unet.volume import Shape3

#: Multiply-adds of a trial: about a millisecond on a slow kernel.
_TRIAL = 1e6
#: How much slower oneDNN may look in a trial, and how often it may try to look better: a trial is
#: short and shares the machine, while the plain kernel chosen by mistake costs a lot.
_DOUBT, _TRIES = 2.0, 8


@dataclass(frozen=True)
class Activation:
    """What follows a convolution in the same operation.

    Attributes
    ----------
    slope : float
        ``max(v, slope * v)``: 0 for ReLU, between 0 and 1 for a leaky one.
    """

    slope: float = 0.0

    def __call__(self, values: Tensor) -> Tensor:
        """Apply it in place to values that nobody else holds."""
        return F.relu_(values) if self.slope == 0 else F.leaky_relu_(values, self.slope)


@dataclass(frozen=True)
class Geometry:
    """Numbers of a (transposed) convolution, one an axis (z, y, x)."""

    kernel: Shape3
    stride: Shape3
    padding: Shape3
    dilation: Shape3
    groups: int = 1
    transposed: bool = False
    output_padding: Shape3 = (0, 0, 0)

    def extent(self, axis: int) -> int:
        """Voxels that the dilated kernel covers along an axis."""
        return self.dilation[axis] * (self.kernel[axis] - 1) + 1

    def window(self, axis: int, start: int, stop: int) -> tuple[int, int]:
        """Input range of outputs ``start..stop``, padding beyond the ends included.

        Output ``o`` reads inputs ``o * stride - padding + dilation * t`` for ``t`` in the kernel.
        """
        first = start * self.stride[axis] - self.padding[axis]
        return first, first + (stop - 1 - start) * self.stride[axis] + self.extent(axis)

    def covered(self, axis: int, start: int, stop: int, size: int) -> tuple[int, int]:
        """`window` without the padding, for `size` inputs along the axis."""
        low, high = self.window(axis, start, stop)
        return max(low, 0), min(high, size)


#: ``kernel(x, weight, bias, geometry, padding, output_padding, activation)``
Kernel = Callable[[Tensor, Tensor, Tensor | None, Geometry, Shape3, Shape3, Activation | None], Any]


def plain(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    g: Geometry,
    padding: Shape3,
    output_padding: Shape3,
    activation: Activation | None,
) -> Tensor:
    """The operator as torch runs it on any device."""
    if g.transposed:
        y = F.conv_transpose3d(
            x, weight, bias, g.stride, padding, output_padding, g.groups, g.dilation
        )
    else:
        y = F.conv3d(x, weight, bias, g.stride, padding, g.dilation, g.groups)
    return y if activation is None else activation(y)


def onednn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    g: Geometry,
    padding: Shape3,
    output_padding: Shape3,
    activation: Activation | None,
) -> Tensor:
    """The same through oneDNN, activation fused. CPU only, private to torch: see `choose`."""
    ops: Any = torch.ops.mkldnn
    name, scalars = "none", list[float]()
    if activation is not None:
        name, scalars = ("leaky_relu", [activation.slope]) if activation.slope else ("relu", [])
    pad, stride, dilation = list(padding), list(g.stride), list(g.dilation)
    if g.transposed:
        result: Tensor = ops._convolution_transpose_pointwise(
            x,
            weight,
            bias,
            pad,
            list(output_padding),
            stride,
            dilation,
            g.groups,
            name,
            scalars,
            "",
        )
    else:
        result = ops._convolution_pointwise(
            x, weight, bias, pad, stride, dilation, g.groups, name, scalars, ""
        )
    return result


_chosen: dict[tuple[Any, ...], Kernel] = {}


def choose(
    weight: Tensor, bias: Tensor | None, g: Geometry, activation: Activation | None
) -> Kernel:
    """The kernel for a layer, tried once for each layer shape and dtype.

    Parameters
    ----------
    weight, bias : Tensor
        As the kernel will get them: device, dtype and memory format.
    g : Geometry
        Of the layer.
    activation : Activation or None
        That follows it.
    """
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if weight.device.type != "cpu" or not available:
        return plain
    key = (tuple(weight.shape), weight.dtype, bias is None, g, activation, torch.get_num_threads())
    if key not in _chosen:
        _chosen[key] = _trial(weight, bias, g, activation)
    return _chosen[key]


def _trial(
    weight: Tensor, bias: Tensor | None, g: Geometry, activation: Activation | None
) -> Kernel:
    x = _trial_input(weight, g)
    rounding = 1e-5 if weight.dtype == torch.float32 else 2e-2

    def run(kernel: Kernel) -> tuple[Tensor, float]:
        start = perf_counter()
        y: Tensor = kernel(x, weight, bias, g, g.padding, g.output_padding, activation)
        return y.float(), perf_counter() - start

    try:
        run(onednn)  # sets itself up
        result, seconds = run(onednn)
    except (AttributeError, RuntimeError, TypeError):
        return plain  # this build of torch has no such operator, or not for this layer
    expected, plain_seconds = run(plain)
    for _ in range(_TRIES):
        if seconds < _DOUBT * plain_seconds:
            break
        seconds = min(seconds, run(onednn)[1])  # the machine may have done something else
    else:
        return plain
    if weight.dtype != torch.float32:
        x, weight = x.float(), weight.float()
        bias = None if bias is None else bias.float()
        expected, _ = run(plain)
    near = torch.allclose(result, expected, rtol=rounding, atol=rounding * float(expected.std()))
    return onednn if near else plain


def _trial_input(weight: Tensor, g: Geometry) -> Tensor:
    channels = weight.shape[0] if g.transposed else weight.shape[1] * g.groups
    depth = max(g.extent(0), 2)
    side = max(g.extent(1), g.extent(2), min(32, round((_TRIAL / weight.numel() / depth) ** 0.5)))
    x = torch.randn(1, channels, depth, side, side, generator=torch.Generator().manual_seed(0))
    return x.to(weight.dtype).to(memory_format=torch.channels_last_3d)
