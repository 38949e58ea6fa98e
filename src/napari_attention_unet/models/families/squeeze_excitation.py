"""U-Nets with concurrent spatial and channel squeeze-and-excitation (scSE).

The spatial part (Roy et al. 2018, arXiv:1803.02579) is a map that weighs features by a 1x1x1
convolution of the same features: there is no gating signal, so it is squeeze-excitation and not
an attention gate. Two codes are read: wolny/pytorch-3dunet ``ResidualUNetSE3D`` and
mobarakol/3D_Attention_UNet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .family import Family, Option, State, count, shape

_ACTIVATIONS: dict[str, type[nn.Module]] = {"r": nn.ReLU, "e": nn.ELU}
_NAMES = {"r": "ReLU", "e": "ELU", "l": "LeakyReLU"}


def _activation(letter: str, slope: float) -> nn.Module:
    return nn.LeakyReLU(slope) if letter == "l" else _ACTIVATIONS[letter]()


def _single_conv(channels: int, out: int, order: str, groups: int, slope: float) -> nn.Sequential:
    """The layers that `order` names: c(onvolution), g(roup) or b(atch) norm, r, e, l."""
    layers = nn.Sequential()
    for place, letter in enumerate(order):
        width = channels if place < order.index("c") else out
        if letter == "c":
            bias = not {"g", "b"} & set(order)
            layers.add_module("conv", nn.Conv3d(channels, out, 3, padding=1, bias=bias))
        elif letter == "g":
            layers.add_module("groupnorm", nn.GroupNorm(groups if width >= groups else 1, width))
        elif letter == "b":
            layers.add_module("batchnorm", nn.BatchNorm3d(width))
        else:
            layers.add_module(_NAMES[letter], _activation(letter, slope))
    return layers


class SpatialExcitation(nn.Module):
    """Weigh each place by a sigmoid of a 1x1x1 convolution of its features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``alpha * x``."""
        return x * torch.sigmoid(self.conv(x))


class ChannelExcitation(nn.Module):
    """Weigh each channel by a small network of the channels' means."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(channels, inner), nn.Linear(inner, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Weighed features."""
        weights = torch.sigmoid(self.fc2(torch.relu(self.fc1(x.mean((2, 3, 4))))))
        return x * weights[:, :, None, None, None]


class BothExcitations(nn.Module):
    """The greater of both, voxel by voxel."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.cSE, self.sSE = ChannelExcitation(channels, inner), SpatialExcitation(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Weighed features."""
        return torch.maximum(self.cSE(x), self.sSE(x))


class ResidualBlock(nn.Module):
    """A convolution, two more around which it is carried, and squeeze-excitation."""

    def __init__(
        self, channels: int, out: int, excitation: str, inner: int, order: str, groups: int
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels, out, 1) if channels != out else nn.Identity()
        self.conv2 = _single_conv(out, out, order, groups, slope=0.01)
        linear = "".join(letter for letter in order if letter not in "rel")
        self.conv3 = _single_conv(out, out, linear, groups, slope=0.01)
        letter = next((letter for letter in "le" if letter in order), "r")
        self.non_linearity = _activation(letter, slope=0.1)
        self.se_module: nn.Module
        if excitation == "scse":
            self.se_module = BothExcitations(out, inner)
        elif excitation == "cse":
            self.se_module = ChannelExcitation(out, inner)
        else:
            self.se_module = SpatialExcitation(out)

    def forward(self, x: Tensor) -> Tensor:
        """Features of `x`, on its grid."""
        carried = self.conv1(x)
        x = self.non_linearity(self.conv3(self.conv2(carried)) + carried)
        return cast("Tensor", self.se_module(x))


class Encoder(nn.Module):
    """One level of the way down; checkpoints name it ``basic_module``."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.basic_module = block

    def forward(self, x: Tensor) -> Tensor:
        """Features of `x`, on its grid."""
        return cast("Tensor", self.basic_module(x))


class TransposedUp(nn.Module):
    """Transposed convolution to one sample less than twice the grid, then nearest to the skip's."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.upsample = nn.Module()
        self.upsample.conv_transposed = nn.ConvTranspose3d(
            channels, out, 3, stride=2, padding=1, bias=False
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Features of `x`, on the grid of `skip`."""
        up = cast("nn.Module", self.upsample.conv_transposed)
        return F.interpolate(up(x), skip.shape[2:])


class ResidualDecoder(nn.Module):
    """Bring coarser features to the skip's grid, add the skip, a residual block."""

    def __init__(self, channels: int, out: int, block: nn.Module) -> None:
        super().__init__()
        self.upsampling = TransposedUp(channels, out)
        self.basic_module = block

    def forward(self, skip: Tensor, x: Tensor) -> Tensor:
        """Features on the grid of `skip`."""
        return cast("Tensor", self.basic_module(skip + self.upsampling(x, skip)))


class ConcatExcitation(nn.Module):
    """The features, plus themselves weighed by channel, plus themselves weighed by place."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.channel_excitation = nn.Sequential(
            nn.Linear(channels, inner), nn.ReLU(), nn.Linear(inner, channels)
        )
        self.spatial_se = nn.Conv3d(channels, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Weighed features."""
        weights = torch.sigmoid(self.channel_excitation(x.mean((2, 3, 4))))
        spatial = x * torch.sigmoid(self.spatial_se(x))
        return spatial + x + x * weights[:, :, None, None, None]


class ConcatDecoder(nn.Module):
    """Bring coarser features to the skip's grid, join, squeeze-excitation, two convolutions."""

    def __init__(self, scse: ConcatExcitation, block: nn.Module) -> None:
        super().__init__()
        self.scse, self.basic_module = scse, block

    def forward(self, skip: Tensor, x: Tensor) -> Tensor:
        """Features on the grid of `skip`."""
        joined = torch.cat((skip, F.interpolate(x, skip.shape[2:])), 1)
        return cast("Tensor", self.basic_module(self.scse(joined)))


class ExcitationUNet(nn.Module):
    """The U-Net around either kind of block.

    Parameters
    ----------
    encoders, decoders : sequence of nn.Module
        Finest first, and coarsest first.
    head : nn.Conv3d
        To the logits.
    """

    def __init__(
        self, encoders: Sequence[nn.Module], decoders: Sequence[nn.Module], head: nn.Conv3d
    ) -> None:
        super().__init__()
        self.encoders, self.decoders = nn.ModuleList(encoders), nn.ModuleList(decoders)
        self.final_conv = head

    def forward(self, x: Tensor) -> Tensor:
        """Logits of `x`, shape (batch, channel, z, y, x); sizes are multiples of the strides."""
        skips: list[Tensor] = []
        for encoder in self.encoders:
            x = encoder(F.max_pool3d(x, 2) if skips else x)
            skips.append(x)
        for decoder, skip in zip(self.decoders, skips[-2::-1], strict=True):
            x = decoder(skip, x)
        return cast("Tensor", self.final_conv(x))


def _residual(
    in_channels: int,
    out_channels: int,
    widths: Sequence[int],
    excitation: str,
    reduction: int,
    norm: str,
    order: str,
    groups: int = 8,
) -> nn.Module:
    def block(channels: int, out: int) -> ResidualBlock:
        return ResidualBlock(channels, out, excitation, out // reduction, order, groups)

    ends = [in_channels, *widths]
    encoders = [Encoder(block(a, b)) for a, b in zip(ends, widths, strict=False)]
    ups = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
    decoders = [ResidualDecoder(a, b, block(b, b)) for a, b in ups]
    return ExcitationUNet(encoders, decoders, nn.Conv3d(widths[0], out_channels, 1))


def _concat(
    in_channels: int,
    out_channels: int,
    encoders: Sequence[Sequence[int]],
    decoders: Sequence[Sequence[int]],
    inner: Sequence[int],
    norm: str,
    order: str,
    groups: int = 8,
) -> nn.Module:
    def block(channels: int, first: int, second: int) -> nn.Sequential:
        layers = nn.Sequential()
        for name, a, b in (("SingleConv1", channels, first), ("SingleConv2", first, second)):
            layers.add_module(name, _single_conv(a, b, order, min(groups, b), slope=0.1))
        return layers

    ends = [in_channels, *(pair[1] for pair in encoders)]
    down = [Encoder(block(c, *pair)) for c, pair in zip(ends, encoders, strict=False)]
    up, coarse = [], encoders[-1][1]
    for pair, skip, width in zip(decoders, encoders[-2::-1], inner, strict=True):
        joined = coarse + skip[1]
        up.append(ConcatDecoder(ConcatExcitation(joined, width), block(joined, *pair)))
        coarse = pair[1]
    return ExcitationUNet(down, up, nn.Conv3d(coarse, out_channels, 1))


def _norm(state: State, prefix: str) -> str:
    """Letter of the normalisation that the layers under `prefix` have; empty without."""
    for name in ("groupnorm", "batchnorm"):
        if f"{prefix}.{name}.weight" in state:
            return name[0]
    return ""


def _read_residual(state: State) -> dict[str, Any]:
    depth = count(state, r"encoders\.(\d+)\.")
    base = "encoders.0.basic_module"
    widths = [shape(state, f"encoders.{n}.basic_module.conv2.conv.weight")[0] for n in range(depth)]
    fc = next(
        (
            k
            for k in (f"{base}.se_module.cSE.fc1.weight", f"{base}.se_module.fc1.weight")
            if k in state
        ),
        "",
    )
    excitation = "scse" if "cSE" in fc else "cse" if fc else "sse"
    first = state.get(f"{base}.conv1.weight")
    return {
        "in_channels": widths[0] if first is None else int(first.shape[1]),
        "out_channels": shape(state, "final_conv.weight")[0],
        "widths": widths,
        "excitation": excitation,
        "reduction": widths[0] // shape(state, fc)[0] if fc else 1,
        "norm": _norm(state, f"{base}.conv2"),
    }


def _read_concat(state: State) -> dict[str, Any]:
    def pairs(part: str) -> list[list[int]]:
        prefixes = [f"{part}.{n}.basic_module" for n in range(count(state, rf"{part}\.(\d+)\."))]
        return [
            [shape(state, f"{p}.SingleConv{k}.conv.weight")[0] for k in (1, 2)] for p in prefixes
        ]

    encoders, decoders = pairs("encoders"), pairs("decoders")
    keys = [f"decoders.{n}.scse.channel_excitation.0.weight" for n in range(len(decoders))]
    return {
        "in_channels": shape(state, "encoders.0.basic_module.SingleConv1.conv.weight")[1],
        "out_channels": shape(state, "final_conv.weight")[0],
        "encoders": encoders,
        "decoders": decoders,
        "inner": [shape(state, key)[0] for key in keys],
        "norm": _norm(state, "encoders.0.basic_module.SingleConv1"),
    }


_KIND = (
    "Its maps are squeeze-excitation: weights of places made of the same features, without a "
    "gating signal.",
)
_GROUPS = Option(
    "groups",
    8,
    (),
    "Group normalisation was taken to have 8 groups, the code's default.",
    lambda arguments: arguments["norm"] == "g",
    ("GroupNorm", "num_groups"),
)

SQUEEZE_EXCITATION = (
    Family(
        name="ResidualUNetSE3D",
        source="wolny/pytorch-3dunet ResidualUNetSE3D",
        signature=(
            r"encoders\.0\.basic_module\.conv2\.conv\.weight",
            r"encoders\.0\.basic_module\.se_module\..*weight",
            r"decoders\.0\.upsampling\.upsample\.conv_transposed\.weight",
            r"final_conv\.weight",
        ),
        read=_read_residual,
        make=_residual,
        options=(
            Option(
                "order",
                lambda arguments: f"{arguments['norm']}cr",
                (),
                "Layers were taken in the code's default order: normalisation, convolution, ReLU "
                "(order='gcr').",
            ),
            _GROUPS,
        ),
        notes=lambda arguments: (
            _KIND
            if arguments["excitation"] != "cse"
            else ("It weighs channels alone, so there is no map to show: mask only.",)
        ),
    ),
    Family(
        name="mobarakol 3D_Attention_UNet",
        source="mobarakol/3D_Attention_UNet UNet3D",
        signature=(
            r"encoders\.0\.basic_module\.SingleConv1\.conv\.weight",
            r"decoders\.0\.scse\.spatial_se\.weight",
            r"final_conv\.weight",
        ),
        read=_read_concat,
        make=_concat,
        options=(
            Option(
                "order",
                lambda arguments: f"cr{arguments['norm']}",
                (),
                "Layers were taken in the code's default order: convolution, ReLU, normalisation "
                "(order='crg').",
            ),
            _GROUPS,
        ),
        notes=lambda _: _KIND,
    ),
)
