"""``UNet`` of ELEKTRONN/elektronn3, with or without its grid attention (arXiv:1804.03999)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from napari_attention_unet.models.gates import GridAttentionGate

from .blocks import Size3, conv, pooling_of
from .family import Family, Option, State, count, shape

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "rrelu": nn.RReLU,
    "prelu": nn.PReLU,
    "lin": nn.Identity,
}


def _activation(name: str) -> nn.Module:
    return nn.LeakyReLU(0.1) if name == "leaky" else _ACTIVATIONS[name]()


def _norm(kind: str, channels: int, groups: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm3d(channels)
    if kind == "group":
        return nn.GroupNorm(groups, channels)
    return nn.InstanceNorm3d(channels) if kind == "instance" else nn.Identity()


class Gate(GridAttentionGate):
    """The paper's gate, its last mixing convolution named in lower case."""

    def __init__(self, skip: int, gating: int, inner: int, stride: Size3) -> None:
        super().__init__(skip, gating, inner, stride, align_corners=False)
        self.w = self.W
        del self.W

    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        """``w(alpha * x)``, on the grid of `x`."""
        return cast("Tensor", self.w(self._up(self.coefficients(x, g), x) * x))


class ResizeConv(nn.Module):
    """Up-sampling by interpolation, then a convolution."""

    def __init__(self, channels: int, out: int, kernel: Size3, factor: Size3, mode: str) -> None:
        super().__init__()
        self.upsample = nn.Upsample(scale_factor=factor, mode=mode)
        self.conv = conv(channels, out, kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Features of `x`, on the next finer grid."""
        return cast("Tensor", self.conv(self.upsample(x)))


class Down(nn.Module):
    """Two convolutions, each with normalisation and activation."""

    def __init__(
        self, channels: int, out: int, kernel: Size3, norms: Sequence[nn.Module], nonlinearity: str
    ) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(channels, out, kernel), conv(out, out, kernel)
        self.norm0, self.norm1 = norms
        self.act1, self.act2 = _activation(nonlinearity), _activation(nonlinearity)

    def forward(self, x: Tensor) -> Tensor:
        """Features of `x`, on its grid."""
        x = self.act1(self.norm0(self.conv1(x)))
        return cast("Tensor", self.act2(self.norm1(self.conv2(x))))


class Up(nn.Module):
    """Bring coarser features to the skip's grid, gate the skip, join, two convolutions."""

    def __init__(
        self,
        out: int,
        kernel: Size3,
        upconv: nn.Module,
        gate: Gate | None,
        norms: Sequence[nn.Module],
        nonlinearity: str,
        concat: bool,
    ) -> None:
        super().__init__()
        self.upconv, self.concat = upconv, concat
        self.conv1 = conv(2 * out if concat else out, out, kernel)
        self.conv2 = conv(out, out, kernel)
        self.norm0, self.norm1, self.norm2 = norms
        self.act0, self.act1, self.act2 = (_activation(nonlinearity) for _ in range(3))
        self.attention = gate

    def forward(self, skip: Tensor, coarse: Tensor) -> Tensor:
        """Features on the grid of `skip`."""
        x = self.act0(self.norm0(self.upconv(coarse)))
        if self.attention is not None:
            skip = self.attention(skip, coarse)
        x = torch.cat((x, skip), 1) if self.concat else x + skip
        x = self.act1(self.norm1(self.conv1(x)))
        return cast("Tensor", self.act2(self.norm2(self.conv2(x))))


class ElektronnUNet(nn.Module):
    """U-Net of elektronn3, with convolutions that keep the grid.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the input, and of the logits.
    widths : sequence of int
        Channels of each block, finest first.
    kernels : sequence of tuple of int
        Kernel of each block along z, y, x; the grid is halved along the axes in which it is more
        than 1.
    inner : sequence of int
        Channels within the gates, in the order of ``up_convs``; empty without gates.
    gate_stride : tuple of int
        Stride of the gates.
    upconv : sequence of tuple of int
        Kernels of the convolutions after interpolation, in the order of ``up_convs``; empty for
        transposed convolutions.
    concat : bool
        Whether the skip is concatenated or added.
    norm : str
        ``"batch"``, ``"group"``, ``"instance"`` or ``"none"``.
    full_norm : bool
        Whether all convolutions are normalised or the last of each block alone.
    nonlinearity, groups, upsample
        See the options.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int],
        kernels: Sequence[Size3],
        inner: Sequence[int] = (),
        gate_stride: Size3 = (2, 2, 2),
        upconv: Sequence[Size3] = (),
        concat: bool = True,
        norm: str = "batch",
        full_norm: bool = True,
        nonlinearity: str = "relu",
        groups: int = 8,
        upsample: str = "nearest",
    ) -> None:
        super().__init__()

        def norms(number: int, out: int) -> list[nn.Module]:
            first = [_norm(norm if full_norm else "none", out, groups) for _ in range(number - 1)]
            return [*first, _norm(norm, out, groups)]

        factors = [pooling_of(kernel) for kernel in kernels]
        self.pools = nn.ModuleList(nn.MaxPool3d(factor) for factor in factors[:-1])
        self.down_convs, self.up_convs = nn.ModuleList(), nn.ModuleList()
        channels = in_channels
        for width, kernel in zip(widths, kernels, strict=True):
            self.down_convs.append(Down(channels, width, kernel, norms(2, width), nonlinearity))
            channels = width
        for number, level in enumerate(range(len(widths) - 2, -1, -1)):
            width, factor = widths[level], factors[level]
            up: nn.Module
            if not upconv:
                up = nn.ConvTranspose3d(channels, width, factor, factor)
            else:
                up = ResizeConv(channels, width, upconv[number], factor, upsample)
            gate = Gate(width, channels, inner[number], gate_stride) if inner else None
            self.up_convs.append(
                Up(width, kernels[level], up, gate, norms(3, width), nonlinearity, concat)
            )
            channels = width
        self.conv_final = nn.Conv3d(channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of `x`, shape (batch, channel, z, y, x); sizes are multiples of the strides."""
        skips = []
        for number, down in enumerate(self.down_convs):
            x = down(x if number == 0 else self.pools[number - 1](x))
            skips.append(x)
        for up, skip in zip(self.up_convs, skips[-2::-1], strict=True):
            x = up(skip, x)
        return cast("Tensor", self.conv_final(x))


def _norm_of(state: State) -> str:
    if "down_convs.0.norm1.weight" not in state:
        return "none"
    return "batch" if "down_convs.0.norm1.running_mean" in state else "group"


def _read(state: State) -> dict[str, Any]:
    depth = count(state, r"down_convs\.(\d+)\.conv1\.weight")
    firsts = [shape(state, f"down_convs.{n}.conv1.weight") for n in range(depth)]
    last = shape(state, f"up_convs.{depth - 2}.conv1.weight")
    resize = [f"up_convs.{n}.upconv.conv.weight" for n in range(depth - 1)]
    arguments: dict[str, Any] = {
        "in_channels": firsts[0][1],
        "out_channels": shape(state, "conv_final.weight")[0],
        "widths": [first[0] for first in firsts],
        "kernels": [first[2:] for first in firsts],
        "upconv": [shape(state, key)[2:] for key in resize if key in state],
        "concat": last[1] == 2 * last[0],
    }
    if (norm := _norm_of(state)) != "none":
        full = "down_convs.0.norm0.weight" in state
        arguments |= {"norm": norm, "full_norm": full}
    if "down_convs.0.act1.weight" in state:
        arguments["nonlinearity"] = "prelu"
    if "up_convs.0.attention.theta.weight" in state:
        thetas = [shape(state, f"up_convs.{n}.attention.theta.weight") for n in range(depth - 1)]
        arguments |= {"inner": [t[0] for t in thetas], "gate_stride": thetas[0][2:]}
    return arguments


_OPTIONS = (
    Option(
        "nonlinearity",
        "relu",
        ("relu", "leaky", "silu", "rrelu", "lin"),
        "The activation was taken to be ReLU (nonlinearity='relu'), elektronn3's default.",
        lambda arguments: "nonlinearity" not in arguments,
        ("UNet", "activation"),
    ),
    Option(
        "norm",
        "none",
        ("none", "instance"),
        "No normalisation has left a trace, and none was assumed; norm='instance' is the other "
        "possibility.",
        lambda arguments: "norm" not in arguments,
        ("UNet", "normalization"),
    ),
    Option(
        "groups",
        8,
        (),
        "Group normalisation was taken to have 8 groups, elektronn3's default.",
        lambda arguments: arguments.get("norm") == "group",
        ("GroupNorm", "num_groups"),
    ),
    Option(
        "upsample",
        "nearest",
        ("nearest", "trilinear"),
        "Up-sampling was taken to repeat the nearest sample (upsample='nearest').",
        lambda arguments: bool(arguments["upconv"]),
        ("ResizeConv", "upsampling_mode"),
    ),
)
_COMMON = (
    r"down_convs\.0\.conv1\.weight",
    r"up_convs\.0\.upconv\.(conv\.)?weight",
    r"conv_final\.weight",
)
_SAME = "Convolutions were taken to keep the grid (conv_mode='same'), elektronn3's default."


def _family(name: str, *signature: str, notes: tuple[str, ...] = ()) -> Family:
    return Family(
        name=name,
        source="elektronn3.models.unet.UNet",
        signature=(*_COMMON, *signature),
        read=_read,
        make=ElektronnUNet,
        options=_OPTIONS,
        notes=lambda _: (_SAME, *notes),
    )


ELEKTRONN3 = (
    _family("elektronn3 UNet with attention", r"up_convs\.0\.attention\.theta\.weight"),
    _family("elektronn3 UNet", notes=("The network has no attention gates: mask only.",)),
)
