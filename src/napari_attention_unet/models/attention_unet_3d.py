"""The 3D Attention U-Net that this project bundles and trains.

Structure and parameter names are those of a widely copied ``AttentionUNet3D`` (three
convolutions a level, transposed convolutions, a gate on each skip), so its checkpoints load
strictly. The method is Oktay et al. 2018, arXiv:1804.03999.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from .gates import AttentionGate, GridAttentionGate


def _conv_bn_relu(channels: int, out: int) -> list[nn.Module]:
    return [
        nn.Conv3d(channels, out, 3, padding=1, bias=False),
        nn.BatchNorm3d(out),
        nn.ReLU(inplace=True),
    ]


def _up_bn_relu(channels: int, out: int) -> list[nn.Module]:
    return [
        nn.ConvTranspose3d(channels, out, 4, stride=2, padding=1),
        nn.BatchNorm3d(out),
        nn.ReLU(inplace=True),
    ]


class Encoder(nn.Module):
    """Three 3x3x3 convolutions, each with batch normalisation and ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.encoder_block = nn.Sequential(
            *_conv_bn_relu(in_channels, out_channels),
            *_conv_bn_relu(out_channels, out_channels),
            *_conv_bn_relu(out_channels, out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features of `x`, on its grid."""
        return cast("Tensor", self.encoder_block(x))


def _features_and_up(block: nn.Sequential, x: Tensor) -> tuple[Tensor, Tensor]:
    """Output of the two convolutions of `block`, and of its transposed convolution after."""
    layers = list(block)
    for layer in layers[:6]:
        x = layer(x)
    features = x
    for layer in layers[6:]:
        x = layer(x)
    return features, x


class Center(nn.Module):
    """The coarsest level: two convolutions, then a transposed convolution that doubles the grid."""

    def __init__(self, in_channels: int, inner_channels: int, out_channels: int) -> None:
        super().__init__()
        self.center_block = nn.Sequential(
            *_conv_bn_relu(in_channels, inner_channels),
            *_conv_bn_relu(inner_channels, inner_channels),
            *_up_bn_relu(inner_channels, out_channels),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features on the grid of `x`, and the same brought to the next finer grid."""
        return _features_and_up(self.center_block, x)


class Decoder(nn.Module):
    """One level of the way up: two convolutions, then a transposed convolution."""

    def __init__(self, in_channels: int, inner_channels: int, out_channels: int) -> None:
        super().__init__()
        self.decoder_block = nn.Sequential(
            *_conv_bn_relu(in_channels, inner_channels),
            *_conv_bn_relu(inner_channels, inner_channels),
            *_up_bn_relu(inner_channels, out_channels),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features on the grid of `x`, and the same brought to the next finer grid."""
        return _features_and_up(self.decoder_block, x)


class Final(nn.Module):
    """The finest level: two convolutions, then a 1x1x1 convolution to the logits."""

    def __init__(self, in_channels: int, inner_channels: int, out_channels: int) -> None:
        super().__init__()
        self.final_block = nn.Sequential(
            *_conv_bn_relu(in_channels, inner_channels),
            *_conv_bn_relu(inner_channels, inner_channels),
            nn.Conv3d(inner_channels, out_channels, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits, on the grid of `x`."""
        return cast("Tensor", self.final_block(x))


class AttentionUNet3D(nn.Module):
    """3D U-Net with an attention gate on its skip connections.

    Level ``i`` of ``1..depth`` has ``encoder{i}``, a gate ``att{i}`` and a way up ``decoder{i}``
    (``final`` at level 1); ``center`` lies below the deepest. Grids halve by max-pooling, so
    each spatial size of the input has to be a multiple of `stride`.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the input, and of the logits (one a class, the background included).
    widths : sequence of int
        Channels of each level, finest first; its length is the depth.
    center : int, optional
        Channels of the two convolutions of ``center``; twice the deepest width where not given.
    gate : {"skip", "grid"}
        ``"skip"``: `AttentionGate` on each skip's own grid, all skips gated, driven by the
        up-sampled features that are concatenated to it. ``"grid"``: the paper's
        `GridAttentionGate`, driven by the coarser level's features before they are up-sampled;
        the finest skip is not gated (arXiv:1804.03999, figure 1).
    align_corners : bool
        Of the ``"grid"`` gates' trilinear interpolation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int] = (64, 128, 256, 512),
        center: int | None = None,
        gate: Literal["skip", "grid"] = "skip",
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        if not widths:
            raise ValueError("widths must name the channels of one level at least")
        if gate not in ("skip", "grid"):
            raise ValueError(f"gate is 'skip' or 'grid', not {gate!r}")
        self.depth = len(widths)
        self.stride = (2**self.depth,) * 3
        inner = center if center is not None else 2 * widths[-1]
        self.center = Center(widths[-1], inner, widths[-1])
        channels = in_channels
        for level, width in enumerate(widths, start=1):
            self.add_module(f"encoder{level}", Encoder(channels, width))
            if level > 1:
                self.add_module(f"decoder{level}", Decoder(2 * width, width, channels))
            if gate == "skip":
                self.add_module(f"att{level}", AttentionGate(width, width, max(1, width // 2)))
            elif level > 1:
                coarse = inner if level == self.depth else widths[level]
                self.add_module(
                    f"att{level}",
                    GridAttentionGate(width, coarse, width, align_corners=align_corners),
                )
            channels = width
        self.final = Final(2 * widths[0], widths[0], out_channels)
        self.gate = gate
        self.maxpool = nn.MaxPool3d(2)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a volume.

        Parameters
        ----------
        x : Tensor, shape (batch, in_channels, z, y, x)
            Normalised intensities; z, y and x are multiples of `stride`.

        Returns
        -------
        Tensor, shape (batch, out_channels, z, y, x)
            Logits.
        """
        skips: list[Tensor] = []
        for level in range(1, self.depth + 1):
            x = self.get_submodule(f"encoder{level}")(x)
            skips.append(x)
            x = self.maxpool(x)
        features, up = self.center(x)
        for level in range(self.depth, 0, -1):
            skip = skips[level - 1]
            if self.gate == "skip":
                skip = self.get_submodule(f"att{level}")(up, skip)
            elif level > 1:
                skip = self.get_submodule(f"att{level}")(skip, features)
            joined = torch.cat((up, skip), 1)
            if level > 1:
                features, up = self.get_submodule(f"decoder{level}")(joined)
        return cast("Tensor", self.final(joined))
