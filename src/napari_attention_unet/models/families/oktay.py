"""Networks of ozan-oktay/Attention-Gated-Networks, the code of the paper's authors.

Oktay et al. 2018, arXiv:1804.03999; Schlemper et al. 2019, Medical Image Analysis 53:197-207.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from .blocks import GATE_MODES, ModalGridGate, Size3, conv, pooling_of, product
from .family import Family, Option, State, count, shape


def _conv_relu(channels: int, out: int, kernel: Size3, norm: bool) -> nn.Sequential:
    layers = [conv(channels, out, kernel), *([nn.BatchNorm3d(out)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers)


class DoubleConv(nn.Module):
    """Two convolutions, each with ReLU and, where `norm`, batch normalisation."""

    def __init__(self, channels: int, out: int, kernel: Size3, norm: bool) -> None:
        super().__init__()
        self.conv1 = _conv_relu(channels, out, kernel, norm)
        self.conv2 = _conv_relu(out, out, kernel, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Features of `x`, on its grid."""
        return cast("Tensor", self.conv2(self.conv1(x)))


class GatingSignal(nn.Module):
    """1x1x1 convolution of the deepest features, from which gates are driven."""

    def __init__(self, channels: int, out: int, norm: bool) -> None:
        super().__init__()
        self.conv1 = _conv_relu(channels, out, (1, 1, 1), norm)

    def forward(self, x: Tensor) -> Tensor:
        """Gating signal, on the grid of `x`."""
        return cast("Tensor", self.conv1(x))


class CombinedGates(nn.Module):
    """One gate or several on one skip, mixed by a 1x1x1 convolution."""

    def __init__(self, gates: Sequence[ModalGridGate], channels: int) -> None:
        super().__init__()
        for number, gate in enumerate(gates, start=1):
            self.add_module(f"gate_block_{number}", gate)
        self.count = len(gates)
        self.combine_gates = nn.Sequential(
            nn.Conv3d(self.count * channels, channels, 1), nn.BatchNorm3d(channels), nn.ReLU()
        )

    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        """Gated skip, on the grid of `x`."""
        gated = [self.get_submodule(f"gate_block_{n + 1}")(x, g) for n in range(self.count)]
        return cast("Tensor", self.combine_gates(torch.cat(gated, 1)))


class UpConcat(nn.Module):
    """Bring the coarser features to the skip's grid, join them, two convolutions."""

    def __init__(
        self,
        skip: int,
        coarse: int,
        out: int,
        kernel: Size3,
        norm: bool,
        transposed: bool,
        align_corners: bool,
    ) -> None:
        super().__init__()
        factor = pooling_of(kernel)
        self.up: nn.Module
        if transposed:
            z, y, x = ((4, 2, 1) if f == 2 else (1, 1, 0) for f in factor)
            size, stride, pad = zip(z, y, x, strict=True)
            self.up = nn.ConvTranspose3d(coarse, out, size, stride, pad)
        else:
            self.up = nn.Upsample(
                scale_factor=factor, mode="trilinear", align_corners=align_corners
            )
        self.conv = DoubleConv(skip + (out if transposed else coarse), out, kernel, norm)

    def forward(self, skip: Tensor, coarse: Tensor) -> Tensor:
        """Features on the grid of `skip`."""
        return cast("Tensor", self.conv(torch.cat((skip, self.up(coarse)), 1)))


class DeepSupervision(nn.Module):
    """Logits of a coarse level, brought to the finest grid."""

    def __init__(self, channels: int, out: int, factor: Size3, align_corners: bool) -> None:
        super().__init__()
        up = nn.Upsample(scale_factor=factor, mode="trilinear", align_corners=align_corners)
        self.dsv = nn.Sequential(nn.Conv3d(channels, out, 1), up)

    def forward(self, x: Tensor) -> Tensor:
        """Logits on the finest grid."""
        return cast("Tensor", self.dsv(x))


class OktayUNet(nn.Module):
    """U-Net of the paper's authors, with no, one or two attention gates a skip.

    Level ``i`` of ``1..depth`` has ``conv{i}`` and ``up_concat{i}``; ``center`` lies below the
    deepest. The skips of levels ``2..depth`` are gated.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the input, and of the logits.
    widths : sequence of int
        Channels of each level, finest first, and of the center.
    kernel : tuple of int
        Of all convolutions of the U-Net, along z, y, x. The grid is halved along the axes in
        which it is more than 1.
    gates : int
        Gates a skip: 0, 1 or 2.
    gating : int
        Channels of the gating signal of the deepest gates; 0 without gates.
    inner : sequence of int
        Channels within the gates of levels ``2..depth``.
    gate_stride : tuple of int
        Stride of the gates along z, y, x.
    shared : bool
        Whether one gating signal drives all gates and their outputs go to the decoder as they
        are (``unet_grid_attention_3D``), or the features of the level below drive each.
    supervised : bool
        Whether logits are made at all levels and mixed.
    norm, transposed : bool
        Batch normalisation; transposed convolution in place of trilinear up-sampling.
    align_corners : bool
        Of all trilinear interpolation.
    gate_mode : str
        See `ModalGridGate`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int],
        kernel: Size3 = (3, 3, 3),
        gates: int = 1,
        gating: int = 0,
        inner: Sequence[int] = (),
        gate_stride: Size3 = (2, 2, 2),
        shared: bool = False,
        supervised: bool = True,
        norm: bool = True,
        transposed: bool = False,
        align_corners: bool = False,
        gate_mode: str = GATE_MODES[0],
    ) -> None:
        super().__init__()
        self.depth, self.gates = len(widths) - 1, gates
        self.shared, self.supervised = shared, supervised
        factor = pooling_of(kernel)
        self.pool = nn.MaxPool3d(factor)
        channels = in_channels
        for level, width in enumerate(widths[:-1], start=1):
            self.add_module(f"conv{level}", DoubleConv(channels, width, kernel, norm))
            channels = width
        self.center = DoubleConv(channels, widths[-1], kernel, norm)
        if gates:
            self.gating = GatingSignal(widths[-1], gating, norm)
        for level in range(2, self.depth + 1) if gates else ():
            width = widths[level - 1]
            driving = gating if shared or level == self.depth else widths[level]
            blocks = [
                ModalGridGate(
                    width, driving, inner[level - 2], gate_stride, align_corners, gate_mode
                )
                for _ in range(gates)
            ]
            block = blocks[0] if shared else CombinedGates(blocks, width)
            self.add_module(f"attentionblock{level}", block)
        for level in range(self.depth, 0, -1):
            width = widths[level - 1]
            self.add_module(
                f"up_concat{level}",
                UpConcat(width, widths[level], width, kernel, norm, transposed, align_corners),
            )
        if supervised:
            for level in range(self.depth, 1, -1):
                scale = product([factor] * (level - 1))
                head = DeepSupervision(widths[level - 1], out_channels, scale, align_corners)
                self.add_module(f"dsv{level}", head)
            self.dsv1 = nn.Conv3d(widths[0], out_channels, 1)
            self.final = nn.Conv3d(self.depth * out_channels, out_channels, 1)
        else:
            self.final = nn.Conv3d(widths[0], out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of `x`, shape (batch, channel, z, y, x); sizes are multiples of the strides."""
        skips = []
        for level in range(1, self.depth + 1):
            x = self.get_submodule(f"conv{level}")(x)
            skips.append(x)
            x = self.pool(x)
        x = self.center(x)
        signal = gating = self.gating(x) if self.gates else x
        heads: list[Tensor] = []
        for level in range(self.depth, 0, -1):
            skip = skips[level - 1]
            if self.gates and level > 1:
                skip = self.get_submodule(f"attentionblock{level}")(skip, signal)
            x = self.get_submodule(f"up_concat{level}")(skip, x)
            signal = gating if self.shared else x
            if self.supervised:
                heads.insert(0, self.get_submodule(f"dsv{level}")(x))
        return cast("Tensor", self.final(torch.cat(heads, 1) if self.supervised else x))


def _read(state: State) -> dict[str, Any]:
    depth = count(state, r"conv(\d+)\.conv1\.0\.weight")
    first = shape(state, "conv1.conv1.0.weight")
    widths = [shape(state, f"conv{n}.conv1.0.weight")[0] for n in range(1, depth + 1)]
    widths.append(shape(state, "center.conv1.0.weight")[0])
    combined = "attentionblock2.gate_block_1.theta.weight" in state
    block = "gate_block_1." if combined else ""
    arguments: dict[str, Any] = {
        "in_channels": first[1],
        "out_channels": shape(state, "final.weight")[0],
        "widths": widths,
        "kernel": first[2:],
        "gates": 0,
        "supervised": "dsv1.weight" in state,
        "norm": "conv1.conv1.1.weight" in state,
        "transposed": "up_concat1.up.weight" in state,
    }
    if f"attentionblock2.{block}theta.weight" in state:
        thetas = [
            shape(state, f"attentionblock{n}.{block}theta.weight") for n in range(2, depth + 1)
        ]
        arguments |= {
            "gates": 1 + ("attentionblock2.gate_block_2.psi.weight" in state),
            "gating": shape(state, "gating.conv1.0.weight")[0],
            "inner": [theta[0] for theta in thetas],
            "gate_stride": thetas[0][2:],
            "shared": not combined,
        }
    return arguments


def _notes(arguments: dict[str, Any]) -> tuple[str, ...]:
    return () if arguments["gates"] else ("The network has no attention gates: mask only.",)


def _trilinear(arguments: dict[str, Any]) -> bool:
    return bool(arguments["gates"] or arguments["supervised"] or not arguments["transposed"])


_OPTIONS = (
    Option(
        "align_corners",
        False,
        (False, True),
        "Trilinear interpolation was taken as today's torch does it; align_corners=True is for "
        "networks trained before torch 0.4.",
        _trilinear,
        ("Upsample", "align_corners"),
    ),
    Option(
        "gate_mode",
        GATE_MODES[0],
        GATE_MODES,
        "The gates were taken to be sigmoid gates (gate_mode='concatenation'), the authors' "
        "setting; 'concatenation_residual' is a softmax over space.",
        lambda arguments: bool(arguments["gates"]),
        ("GridAttentionBlock3D", "mode"),
    ),
)
_REPOSITORY = "ozan-oktay/Attention-Gated-Networks"
_COMMON = (r"conv1\.conv1\.0\.weight", r"center\.conv2\.0\.weight", r"final\.weight")


def _family(name: str, *signature: str) -> Family:
    return Family(
        name=name,
        source=f"{_REPOSITORY} {name}",
        signature=(*_COMMON, *signature),
        read=_read,
        make=OktayUNet,
        options=_OPTIONS,
        notes=_notes,
    )


#: More keys first: a plain network's keys are found in a gated one as well.
OKTAY = (
    _family(
        "unet_CT_multi_att_dsv_3D",
        r"attentionblock2\.gate_block_2\.psi\.weight",
        r"dsv1\.weight",
    ),
    _family(
        "unet_CT_single_att_dsv_3D",
        r"attentionblock2\.gate_block_1\.psi\.weight",
        r"dsv1\.weight",
    ),
    _family("unet_grid_attention_3D", r"attentionblock2\.psi\.weight", r"gating\.conv1\.0\.weight"),
    _family("unet_CT_dsv_3D", r"up_concat1\.conv\.conv1\.0\.weight", r"dsv1\.weight"),
    _family("unet_3D", r"up_concat1\.conv\.conv1\.0\.weight"),
)
