"""``AttU_Net`` of LeeJunHyun/Image_Segmentation, its many copies in 3D, and its plain ``U_Net``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from napari_attention_unet.models.gates import AttentionGate

from .blocks import Size3, conv, pooling_of
from .family import Family, Option, State, count, shape


class ConvBlock(nn.Module):
    """Two convolutions, each with batch normalisation and ReLU."""

    def __init__(self, channels: int, out: int, kernel: Size3) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            conv(channels, out, kernel),
            nn.BatchNorm3d(out),
            nn.ReLU(),
            conv(out, out, kernel),
            nn.BatchNorm3d(out),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features of `x`, on its grid."""
        return cast("Tensor", self.conv(x))


class UpConv(nn.Module):
    """Double the grid, then a convolution with batch normalisation and ReLU."""

    def __init__(self, channels: int, out: int, kernel: Size3, upsample: str) -> None:
        super().__init__()
        mode, _, corners = upsample.partition("-")
        self.up = nn.Sequential(
            nn.Upsample(
                scale_factor=pooling_of(kernel),
                mode=mode,
                align_corners=None if mode == "nearest" else corners == "aligned",
            ),
            conv(channels, out, kernel),
            nn.BatchNorm3d(out),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features of `x`, on the next finer grid."""
        return cast("Tensor", self.up(x))


class AttUNet(nn.Module):
    """U-Net whose skips are all gated on their own grids.

    Level ``i`` of ``1..depth`` has ``Conv{i}``; on the way up, levels ``depth..2`` have
    ``Up{i}``, the gate ``Att{i}`` of the skip of level ``i - 1``, and ``Up_conv{i}``.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the input, and of the logits.
    widths : sequence of int
        Channels of each level, finest first.
    inner : sequence of int
        Channels within the gates of levels ``2..depth``; empty without gates.
    kernel : tuple of int
        Of all convolutions but the 1x1x1 ones. The grid is halved along the axes in which it is
        more than 1.
    head : str
        Name of the last convolution.
    upsample : str
        ``"nearest"``, ``"trilinear"`` or ``"trilinear-aligned"`` (align_corners).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int],
        inner: Sequence[int] = (),
        kernel: Size3 = (3, 3, 3),
        head: str = "Conv_1x1",
        upsample: str = "nearest",
    ) -> None:
        super().__init__()
        self.depth, self.head, self.gated = len(widths), head, bool(inner)
        self.Maxpool = nn.MaxPool3d(pooling_of(kernel))
        channels = in_channels
        for level, width in enumerate(widths, start=1):
            self.add_module(f"Conv{level}", ConvBlock(channels, width, kernel))
            channels = width
        for level in range(self.depth, 1, -1):
            skip = widths[level - 2]
            self.add_module(f"Up{level}", UpConv(widths[level - 1], skip, kernel, upsample))
            if inner:
                self.add_module(f"Att{level}", AttentionGate(skip, skip, inner[level - 2]))
            self.add_module(f"Up_conv{level}", ConvBlock(2 * skip, skip, kernel))
        self.add_module(head, nn.Conv3d(widths[0], out_channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of `x`, shape (batch, channel, z, y, x); sizes are multiples of the strides."""
        skips = []
        for level in range(1, self.depth + 1):
            x = self.get_submodule(f"Conv{level}")(x if level == 1 else self.Maxpool(x))
            skips.append(x)
        for level in range(self.depth, 1, -1):
            skip = skips[level - 2]
            x = self.get_submodule(f"Up{level}")(x)
            if self.gated:
                skip = self.get_submodule(f"Att{level}")(x, skip)
            x = self.get_submodule(f"Up_conv{level}")(torch.cat((skip, x), 1))
        return cast("Tensor", self.get_submodule(self.head)(x))


def _read(state: State) -> dict[str, Any]:
    depth = count(state, r"Conv(\d+)\.conv\.0\.weight")
    head = "Conv_1x1" if "Conv_1x1.weight" in state else "Conv"
    gated = any(key.startswith("Att2.") for key in state)
    first = shape(state, "Conv1.conv.0.weight")
    return {
        "in_channels": first[1],
        "out_channels": shape(state, f"{head}.weight")[0],
        "widths": [shape(state, f"Conv{n}.conv.0.weight")[0] for n in range(1, depth + 1)],
        "inner": [shape(state, f"Att{n}.W_g.0.weight")[0] for n in range(2, depth + 1)]
        if gated
        else [],
        "kernel": first[2:],
        "head": head,
    }


_OPTIONS = (
    Option(
        "upsample",
        "nearest",
        ("nearest", "trilinear", "trilinear-aligned"),
        "Up-sampling was taken to repeat the nearest sample (upsample='nearest'), as in the "
        "original; some copies use upsample='trilinear'.",
        hint=("Upsample", "mode"),
    ),
)
_COMMON = (r"Conv1\.conv\.3\.weight", r"Up2\.up\.1\.weight", r"Conv(_1x1)?\.weight")

ATTU_NET = (
    Family(
        name="AttU_Net",
        source="LeeJunHyun/Image_Segmentation AttU_Net",
        signature=(*_COMMON, r"Att2\.psi\.1\.weight"),
        read=_read,
        make=AttUNet,
        options=_OPTIONS,
        planar=True,
    ),
    Family(
        name="U_Net",
        source="LeeJunHyun/Image_Segmentation U_Net",
        signature=_COMMON,
        read=_read,
        make=AttUNet,
        options=_OPTIONS,
        planar=True,
        notes=lambda _: ("The network has no attention gates: mask only.",),
    ),
)
