"""Convolution kernels: torch's own, and oneDNN's where it is right and faster.

On a CPU torch sends ``conv3d`` with few channels in float32 to a kernel that is 4 to 36 times
slower than oneDNN's. oneDNN's fused operators are private to torch, so they are never assumed:
each layer shape is tried once in the process against the plain operator, and the plain one stays
where oneDNN's is missing, wrong or clearly slower.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from napari_attention_unet.volume import Shape3

#: Multiply-adds of a trial: about a millisecond on a slow kernel.
_TRIAL = 1e6
#: How much slower oneDNN may look in a trial, and how often it may try to look better. Where it is
#: slower, it is by a factor of 25 and more; anything near would make the choice, and with it the
#: last digits of a result, depend on what else the machine does.
_DOUBT, _TRIES = 8.0, 8


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

    @property
    def flat(self) -> bool:
        """Whether each output plane depends on the same input plane alone."""
        return self.kernel[0] == self.stride[0] == 1 and self.padding[0] == 0

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


#: ``kernel(inputs, weights, bias, geometry, padding, output_padding, activation, out)``: the sum of
#: the convolutions of all inputs, each with its weights, written into `out` where that is given.
Kernel = Callable[
    [
        Sequence[Tensor],
        Sequence[Tensor],
        Tensor | None,
        Geometry,
        Shape3,
        Shape3,
        Activation | None,
        Tensor | None,
    ],
    Tensor,
]


def plain(
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor],
    bias: Tensor | None,
    g: Geometry,
    padding: Shape3,
    output_padding: Shape3,
    activation: Activation | None,
    out: Tensor | None = None,
) -> Tensor:
    """The operator as torch runs it on any device; several inputs are joined first."""
    x = inputs[0] if len(inputs) == 1 else torch.cat(tuple(inputs), 1)
    weight = weights[0] if len(weights) == 1 else torch.cat(tuple(weights), 1)
    if g.transposed:
        y = F.conv_transpose3d(
            x, weight, bias, g.stride, padding, output_padding, g.groups, g.dilation
        )
    else:
        y = F.conv3d(x, weight, bias, g.stride, padding, g.dilation, g.groups)
    y = y if activation is None else activation(y)
    return y if out is None else out.copy_(y)


def onednn(
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor],
    bias: Tensor | None,
    g: Geometry,
    padding: Shape3,
    output_padding: Shape3,
    activation: Activation | None,
    out: Tensor | None = None,
) -> Tensor:
    """The same through oneDNN, activation fused. CPU only, private to torch: see `choose`.

    Several inputs are not joined: each convolution after the first adds to the result in place.
    """
    ops: Any = torch.ops.mkldnn
    pad, stride, dilation = list(padding), list(g.stride), list(g.dilation)
    name, scalars = "none", list[float]()
    if activation is not None:
        name, scalars = ("leaky_relu", [activation.slope]) if activation.slope else ("relu", [])
    if g.transposed:
        more = list(output_padding)
        y: Tensor = ops._convolution_transpose_pointwise(
            inputs[0], weights[0], bias, pad, more, stride, dilation, g.groups, name, scalars, ""
        )
        return y if out is None else out.copy_(y)
    if out is None and len(inputs) == 1:
        result: Tensor = ops._convolution_pointwise(
            inputs[0], weights[0], bias, pad, stride, dilation, g.groups, name, scalars, ""
        )
        return result
    pairs = list(zip(inputs, weights, strict=True))
    if out is None:
        x, weight = pairs.pop(0)
        out = ops._convolution_pointwise(
            x, weight, None, pad, stride, dilation, g.groups, "none", [], ""
        )
    else:
        out.zero_()
    # adding in place fuses ReLU alone
    last = "relu" if name == "relu" else None
    for index, (x, weight) in enumerate(pairs, start=1):
        done = index == len(pairs)
        ops._convolution_pointwise_.binary(
            out, x, weight, bias if done else None, pad, stride, dilation, g.groups, "add", None,
            last if done else None, [], None,
        )  # fmt: skip
    if activation is not None and last is None:
        activation(out)
    return out


def packed(weight: Tensor, g: Geometry) -> Tensor:
    """Weights in the layout that oneDNN would bring them to in each call."""
    ops: Any = torch.ops.mkldnn
    pad, stride, dilation = list(g.padding), list(g.stride), list(g.dilation)
    space = [max(24, g.extent(axis)) for axis in range(3)]
    made: Tensor
    if g.transposed:
        more, size = list(g.output_padding), [1, weight.shape[0], *space]
        made = ops._reorder_convolution_transpose_weight(
            weight, pad, more, stride, dilation, g.groups, size
        )
    else:
        size = [1, weight.shape[1] * g.groups, *space]
        made = ops._reorder_convolution_weight(weight, pad, stride, dilation, g.groups, size)
    return made


_chosen: dict[tuple[Any, ...], Kernel] = {}


def choose(
    weights: Sequence[Tensor], bias: Tensor | None, g: Geometry, activation: Activation | None
) -> tuple[Kernel, tuple[Tensor, ...]]:
    """The kernel for a layer, tried once for each layer shape and dtype, and its weights.

    Parameters
    ----------
    weights : sequence of Tensor
        Of each input, on their device, in their dtype and memory format.
    bias : Tensor or None
        Likewise.
    g : Geometry
        Of the layer.
    activation : Activation or None
        That follows it.
    """
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if weights[0].device.type == "cpu" and available:
        shapes = tuple(tuple(weight.shape) for weight in weights)
        threads = torch.get_num_threads()
        key = (shapes, weights[0].dtype, bias is None, g, activation, threads)
        if key not in _chosen:
            _chosen[key] = _trial(weights, bias, g, activation)
        if _chosen[key] is not plain:
            return _chosen[key], tuple(packed(weight, g) for weight in weights)
    return plain, (torch.cat(tuple(weights), 1) if len(weights) > 1 else weights[0],)


def _trial(
    weights: Sequence[Tensor], bias: Tensor | None, g: Geometry, activation: Activation | None
) -> Kernel:
    inputs = _trial_inputs(weights, g)
    dtype = weights[0].dtype
    rounding = 1e-5 if dtype == torch.float32 else 2e-2

    def run(kernel: Kernel, laid_out: Sequence[Tensor]) -> tuple[Tensor, float]:
        start = perf_counter()
        y = kernel(inputs, laid_out, bias, g, g.padding, g.output_padding, activation, None)
        return y.float(), perf_counter() - start

    expected, plain_seconds = run(plain, weights)
    try:
        ready = [packed(weight, g) for weight in weights]
        result, _ = run(onednn, ready)  # sets itself up
        # as it will write: into some planes of a larger buffer
        depth = result.shape[2]
        _, channels, *space = result.shape
        buffer = torch.empty(1, depth + 2, *space[1:], channels, dtype=dtype).permute(0, 4, 1, 2, 3)
        planes = buffer.narrow(2, 1, depth)
        onednn(inputs, ready, bias, g, g.padding, g.output_padding, activation, planes)
        _, seconds = run(onednn, ready)
    except (AttributeError, RuntimeError, TypeError):
        return plain  # this build of torch has no such operator, or not for this layer
    for _ in range(_TRIES):
        if seconds < _DOUBT * plain_seconds:
            break
        seconds = min(seconds, run(onednn, ready)[1])  # the machine may have done something else
    else:
        return plain
    if dtype != torch.float32:
        inputs = [x.float() for x in inputs]
        bias = None if bias is None else bias.float()
        expected, _ = run(plain, [weight.float() for weight in weights])
    near = all(
        torch.allclose(y.float(), expected, rtol=rounding, atol=rounding * float(expected.std()))
        for y in (result, planes)
    )
    return onednn if near else plain


def _trial_inputs(weights: Sequence[Tensor], g: Geometry) -> list[Tensor]:
    depth = max(g.extent(0), 2)
    taps = sum(weight.numel() for weight in weights)
    side = max(g.extent(1), g.extent(2), min(32, round((_TRIAL / taps / depth) ** 0.5)))
    random = torch.Generator().manual_seed(0)
    made = []
    for weight in weights:
        channels = weight.shape[0] if g.transposed else weight.shape[1] * g.groups
        x = torch.randn(1, channels, depth, side, side, generator=random)
        made.append(x.to(weight.dtype).to(memory_format=torch.channels_last_3d))
    return made
