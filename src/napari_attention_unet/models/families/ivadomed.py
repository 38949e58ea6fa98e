"""``Modified3DUNet`` of ivadomed, with attention (after Isensee et al. 2017, arXiv:1802.10508)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import ModalGridGate
from .family import Family, State, shape
from .oktay import GatingSignal


def _conv(channels: int, out: int, kernel: int = 3, stride: int = 1) -> nn.Conv3d:
    return nn.Conv3d(channels, out, kernel, stride, kernel // 2, bias=False)


def _norm(x: Tensor) -> Tensor:
    return F.leaky_relu(F.instance_norm(x))


class Modified3DUNet(nn.Module):
    """Residual U-Net with strided convolutions, InstanceNorm and gates on three skips.

    Names follow the checkpoints: ``c1..c5`` on the way down, ``l0..l4`` on the way up.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the input, and of the logits.
    width : int
        Channels of the finest level; each coarser one has twice as many.
    gated : bool
        Whether the skips of levels 2 to 4 are gated, with one gating signal for all.
    """

    def __init__(self, in_channels: int, out_channels: int, width: int, gated: bool = True) -> None:
        super().__init__()
        n, self.gated = width, gated
        self.conv3d_c1_1, self.conv3d_c1_2 = _conv(in_channels, n), _conv(n, n)
        self.lrelu_conv_c1 = nn.Sequential(nn.LeakyReLU(), _conv(n, n))
        for level in range(2, 6):
            out = n * 2 ** (level - 1)
            self.add_module(f"conv3d_c{level}", _conv(out // 2, out, stride=2))
            inner = nn.Sequential(nn.InstanceNorm3d(out), nn.LeakyReLU(), _conv(out, out))
            self.add_module(f"norm_lrelu_conv_c{level}", inner)
        if gated:
            self.gating = GatingSignal(16 * n, 8 * n, norm=True)
            for level in (2, 3, 4):
                skip = n * 2 ** (level - 1)
                gate = ModalGridGate(skip, 8 * n, skip, align_corners=True)
                self.add_module(f"attentionblock{level}", gate)
        self.conv3d_l0 = _conv(8 * n, 8 * n, kernel=1)
        for level in range(4):
            channels = 16 * n if level == 0 else n * 2 ** (4 - level)
            up = nn.Sequential(
                nn.InstanceNorm3d(channels),
                nn.LeakyReLU(),
                nn.Upsample(scale_factor=2, mode="nearest"),
                _conv(channels, channels // 2),
                nn.InstanceNorm3d(channels // 2),
                nn.LeakyReLU(),
            )
            self.add_module(f"norm_lrelu_upscale_conv_norm_lrelu_l{level}", up)
        for level in range(1, 5):
            channels = n * 2 ** (5 - level)
            joined = nn.Sequential(
                _conv(channels, channels), nn.InstanceNorm3d(channels), nn.LeakyReLU()
            )
            self.add_module(f"conv_norm_lrelu_l{level}", joined)
            out = out_channels if level == 4 else channels // 2
            self.add_module(f"conv3d_l{level}", _conv(channels, out, kernel=1))
        self.ds2_1x1_conv3d = _conv(8 * n, out_channels, kernel=1)
        self.ds3_1x1_conv3d = _conv(4 * n, out_channels, kernel=1)

    def _down(self, x: Tensor) -> list[Tensor]:
        """Skips of levels 1 to 4, and the features of level 5."""
        first = self.conv3d_c1_1(x)
        x = first + self.lrelu_conv_c1(self.conv3d_c1_2(F.leaky_relu(first)))
        features = [F.leaky_relu(x)]
        x = F.leaky_relu(F.instance_norm(features[0]))
        for level in range(2, 6):
            inner = self.get_submodule(f"norm_lrelu_conv_c{level}")
            first = self.get_submodule(f"conv3d_c{level}")(x)
            x = first + inner(inner(first))  # the same weights twice, as in the original
            if level < 5:
                x = _norm(x)
            features.append(x)
        return features

    def forward(self, x: Tensor) -> Tensor:
        """Logits of `x`, shape (batch, channel, z, y, x); sizes are multiples of 16."""
        *skips, x = self._down(x)
        if self.gated:
            x = _norm(x)
            gating = self.gating(x)
            for level in (4, 3, 2):
                gate = self.get_submodule(f"attentionblock{level}")
                skips[level - 1] = gate(skips[level - 1], gating)
        x = self.get_submodule("norm_lrelu_upscale_conv_norm_lrelu_l0")(x)
        x = _norm(self.conv3d_l0(x))
        supervised = []
        for level in range(1, 5):
            skip = skips[4 - level]
            # The finest level joins the other way round.
            x = torch.cat((skip, x) if level == 4 else (x, skip), 1)
            x = self.get_submodule(f"conv_norm_lrelu_l{level}")(x)
            supervised.append(x)
            x = self.get_submodule(f"conv3d_l{level}")(x)
            if level < 4:
                x = self.get_submodule(f"norm_lrelu_upscale_conv_norm_lrelu_l{level}")(x)
        coarse = F.interpolate(self.ds2_1x1_conv3d(supervised[1]), scale_factor=2.0)
        finer = coarse + self.ds3_1x1_conv3d(supervised[2])
        return x + F.interpolate(finer, scale_factor=2.0)


def _read(state: State) -> dict[str, Any]:
    width, channels = shape(state, "conv3d_c1_1.weight")[:2]
    return {
        "in_channels": channels,
        "out_channels": shape(state, "conv3d_l4.weight")[0],
        "width": width,
        "gated": "attentionblock2.theta.weight" in state,
    }


def _notes(arguments: dict[str, Any]) -> tuple[str, ...]:
    notes = [
        "Its InstanceNorm layers take statistics over the volume that is run at once, so mask "
        "and coefficients depend a little on how much of the volume is given.",
    ]
    if not arguments["gated"]:
        notes.append("The network has no attention gates: mask only.")
    if arguments["out_channels"] > 1:
        notes.append("The first channel is the background, which ivadomed itself drops.")
    return tuple(notes)


_COMMON = (r"conv3d_c1_1\.weight", r"conv_norm_lrelu_l4\.0\.weight", r"ds2_1x1_conv3d\.weight")

IVADOMED = (
    Family(
        name="ivadomed Modified3DUNet with attention",
        source="ivadomed.models.Modified3DUNet",
        signature=(*_COMMON, r"attentionblock2\.psi\.weight"),
        read=_read,
        make=Modified3DUNet,
        notes=_notes,
        activation=lambda _: "sigmoid",
    ),
    Family(
        name="ivadomed Modified3DUNet",
        source="ivadomed.models.Modified3DUNet",
        signature=_COMMON,
        read=_read,
        make=Modified3DUNet,
        notes=_notes,
        activation=lambda _: "sigmoid",
    ),
)
