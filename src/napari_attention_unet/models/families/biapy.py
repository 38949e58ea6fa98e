"""``Attention_U_Net`` of BiaPy, in the forms its versions have given it (up to 3.7)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from .blocks import Size3, conv
from .family import Family, Option, State, count, shape

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "elu": nn.ELU,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
    "none": nn.Identity,
}


def _norm(kind: str, channels: int) -> list[nn.Module]:
    if kind == "batch":
        return [nn.BatchNorm3d(channels)]
    if kind == "none":
        return []
    return [nn.InstanceNorm3d(channels, affine=kind == "instance-affine")]


class ConvBlock(nn.Module):
    """Convolutions, each with normalisation and activation after it, or before.

    Parameters
    ----------
    channels, out, kernel
        Of the convolutions.
    norm, nonlinearity : str
        See `AttentionUNet`.
    layers : int
        Number of convolutions; more than one are nested.
    first : bool
        Whether normalisation and activation come before the convolution.
    """

    def __init__(
        self,
        channels: int,
        out: int,
        kernel: Size3,
        norm: str,
        nonlinearity: str,
        layers: int = 1,
        first: bool = False,
    ) -> None:
        super().__init__()
        inner: list[nn.Module]
        if layers > 1:
            widths = [channels] + [out] * (layers - 1)
            inner = [ConvBlock(c, out, kernel, norm, nonlinearity, 1, first) for c in widths]
        else:
            around = [*_norm(norm, channels if first else out), _ACTIVATIONS[nonlinearity]()]
            one = conv(channels, out, kernel)
            inner = [*around, one] if first else [one, *around]
        self.block = nn.Sequential(*inner)

    def forward(self, x: Tensor) -> Tensor:
        """Features of `x`, on its grid."""
        return cast("Tensor", self.block(x))


class Gate(nn.Module):
    """Additive gate on the skip's own grid; the branch of the skip may lack normalisation."""

    def __init__(self, gating: int, skip: int, inner: int, norm: str, norm_x: bool) -> None:
        super().__init__()
        self.w_g = nn.Sequential(nn.Conv3d(gating, inner, 1), *_norm(norm, inner))
        self.w_x = nn.Sequential(nn.Conv3d(skip, inner, 1), *(_norm(norm, inner) if norm_x else []))
        self.psi = nn.Sequential(nn.Conv3d(inner, 1, 1), *_norm(norm, 1), nn.Sigmoid())

    def forward(self, g: Tensor, x: Tensor) -> Tensor:
        """``alpha * x``."""
        return cast("Tensor", self.psi(torch.relu(self.w_g(g) + self.w_x(x)))) * x


class Up(nn.Module):
    """Bring coarser features to the skip's grid, gate the skip, join, convolve."""

    def __init__(self, up: nn.Sequential, gate: Gate, conv_block: ConvBlock) -> None:
        super().__init__()
        self.up, self.attention_gate, self.conv_block = up, gate, conv_block

    def forward(self, coarse: Tensor, skip: Tensor) -> Tensor:
        """Features on the grid of `skip`."""
        x = self.up(coarse)
        return cast("Tensor", self.conv_block(torch.cat((x, self.attention_gate(x, skip)), 1)))


class AttentionUNet(nn.Module):
    """BiaPy's U-Net with a gate on each skip.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the input, and of the logits of all heads together.
    widths : sequence of int
        Channels of each level, finest first, and of the bottleneck.
    kernels : sequence of tuple of int
        Kernel of each level.
    layers : sequence of int
        Convolutions of each level.
    decoders : sequence of sequence of int
        For each decoder: channels of its levels, finest first.
    heads : sequence of int
        Channels of each head; a decoder has a head of its own where there are several.
    edge : tuple of int or None
        Kernel of the extra convolutions at input and output; None without them.
    strides : sequence of tuple of int
        Between levels, along z, y, x, finest first.
    transposed : bool
        Transposed convolutions in place of trilinear up-sampling.
    norm : str
        ``"batch"``, ``"instance-affine"``, ``"instance"`` or ``"none"``.
    norm_x : bool
        Whether the skip's branch of the gates is normalised (versions before 3.5).
    first : bool
        Whether normalisation and activation precede each convolution.
    listed : bool
        Whether checkpoints name ``up_paths`` and ``heads``, or ``up_path`` and ``last_block``.
    nonlinearity : str
        ``"elu"``, ``"relu"``, ...
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int],
        kernels: Sequence[Size3],
        layers: Sequence[int],
        decoders: Sequence[Sequence[int]],
        heads: Sequence[int],
        edge: Size3 | None,
        strides: Sequence[Size3],
        transposed: bool = True,
        norm: str = "none",
        norm_x: bool = False,
        first: bool = False,
        listed: bool = True,
        nonlinearity: str = "elu",
    ) -> None:
        super().__init__()
        self.listed, channels = listed, in_channels

        def block(channels: int, out: int, kernel: Size3, layers: int = 1) -> ConvBlock:
            return ConvBlock(channels, out, kernel, norm, nonlinearity, layers, first)

        if edge is not None:
            self.conv_in = block(channels, widths[0], edge)
            self.conv_out = nn.ModuleList(block(d[0], d[0], edge) for d in decoders)
            channels = widths[0]
        self.edge = edge is not None
        self.down_path = nn.ModuleList()
        self.mpooling_layers = nn.ModuleList(nn.MaxPool3d(s) for s in strides)
        for width, kernel, number in zip(widths[:-1], kernels, layers, strict=False):
            self.down_path.append(block(channels, width, kernel, number))
            channels = width
        self.bottleneck = block(channels, widths[-1], kernels[-1], layers[-1])
        paths = nn.ModuleList()
        for decoder in decoders:
            path, channels = nn.ModuleList(), widths[-1]
            for level in range(len(strides) - 1, -1, -1):
                out, skip = decoder[level], widths[level]
                factor, steps = strides[level], list[nn.Module]()
                if transposed:
                    steps.append(nn.ConvTranspose3d(channels, out, factor, factor))
                else:
                    steps.append(nn.Upsample(scale_factor=factor, mode="trilinear"))
                    steps.append(nn.Conv3d(channels, out, 1))
                steps += [*_norm(norm, out), _ACTIVATIONS[nonlinearity]()]
                path.append(
                    Up(
                        nn.Sequential(*steps),
                        Gate(out, skip, out // 2, norm, norm_x),
                        block(out + skip, out, kernels[level], layers[level]),
                    )
                )
                channels = out
            paths.append(path)
        sources = decoders if len(decoders) > 1 else [decoders[0]] * len(heads)
        made = [nn.Conv3d(d[0], out, 1) for d, out in zip(sources, heads, strict=True)]
        if listed:
            self.up_paths, self.heads = paths, nn.ModuleList(made)
        else:
            self.up_path, self.last_block = paths[0], made[0]
            self.last_class_head = made[1] if len(made) > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """Logits of `x`, shape (batch, channel, z, y, x); sizes are multiples of the strides."""
        if self.edge:
            x = self.conv_in(x)
        skips = []
        for down, pool in zip(self.down_path, self.mpooling_layers, strict=True):
            skips.append(down(x))
            x = pool(skips[-1])
        x = self.bottleneck(x)
        features = []
        for number, path in enumerate(self.up_paths if self.listed else [self.up_path]):
            y = x
            for up, skip in zip(cast("nn.ModuleList", path), skips[::-1], strict=True):
                y = up(y, skip)
            features.append(self.conv_out[number](y) if self.edge else y)
        if self.listed:
            heads = list(self.heads)
        else:
            heads = [h for h in (self.last_block, self.last_class_head) if h is not None]
        sources = features if len(features) > 1 else features * len(heads)
        return torch.cat([h(y) for h, y in zip(heads, sources, strict=True)], 1)


def _convolutions(state: State, prefix: str) -> list[tuple[int, ...]]:
    """Shapes of the convolutions of a block, in order."""
    keys = [k for k in state if k.startswith(f"{prefix}.block.") and state[k].ndim == 5]
    return [shape(state, k) for k in sorted(keys)]


def _strides(state: State, path: str, depth: int) -> tuple[bool, list[tuple[int, ...]]]:
    """Whether up-sampling is by transposed convolution, and its strides, finest first."""
    keys = [f"{path}.{n}.up.0.weight" for n in range(depth - 1, -1, -1)]
    if all(key in state and state[key].ndim == 5 for key in keys):
        return True, [shape(state, key)[2:] for key in keys]
    return False, []


def _read(state: State) -> dict[str, Any]:
    depth = count(state, r"down_path\.(\d+)\.block\.")
    listed = any(key.startswith("up_paths.") for key in state)
    paths = ["up_path"]
    if listed:
        paths = [f"up_paths.{n}" for n in range(count(state, r"up_paths\.(\d+)\."))]
    blocks = [_convolutions(state, f"down_path.{n}") for n in range(depth)]
    blocks.append(_convolutions(state, "bottleneck"))
    edge = _convolutions(state, "conv_in")
    decoders = [
        [_convolutions(state, f"{path}.{n}.conv_block")[0][0] for n in range(depth - 1, -1, -1)]
        for path in paths
    ]
    names = ["last_block", "last_class_head"]
    if listed:
        names = [f"heads.{n}" for n in range(count(state, r"heads\.(\d+)\."))]
    heads = [shape(state, f"{n}.weight")[0] for n in names if f"{n}.weight" in state]
    transposed, strides = _strides(state, paths[0], depth)
    gate = f"{paths[0]}.0.attention_gate"
    one = "bottleneck.block.0.block" if len(blocks[-1]) > 1 else "bottleneck.block"
    arguments: dict[str, Any] = {
        "in_channels": (edge or blocks[0])[0][1],
        "out_channels": sum(heads),
        "widths": [b[0][0] for b in blocks],
        "kernels": [b[0][2:] for b in blocks],
        "layers": [len(b) for b in blocks],
        "decoders": decoders,
        "heads": heads,
        "edge": edge[0][2:] if edge else None,
        "transposed": transposed,
        "listed": listed,
        "norm_x": f"{gate}.w_x.1.weight" in state,
        "first": f"{one}.0.weight" not in state or state[f"{one}.0.weight"].ndim == 1,
    }
    if transposed:
        arguments["strides"] = strides
    if f"{gate}.psi.1.weight" in state:
        batch = f"{gate}.psi.1.running_mean" in state
        arguments["norm"] = "batch" if batch else "instance-affine"
    return arguments


def _notes(arguments: dict[str, Any]) -> tuple[str, ...]:
    heads = arguments["heads"]
    if len(heads) == 1:
        return ()
    return (f"Its {len(heads)} heads, of {heads} channels, were joined in this order.",)


BIAPY = Family(
    name="BiaPy Attention_U_Net",
    source="biapy.models.attention_unet.Attention_U_Net",
    signature=(
        r"down_path\.0\.block\..*weight",
        r"bottleneck\.block\..*weight",
        r"up_paths?\..*attention_gate\.w_g\.0\.weight",
        r"(heads\.0|last_block)\.weight",
    ),
    read=_read,
    make=AttentionUNet,
    options=(
        Option(
            "nonlinearity",
            "elu",
            tuple(_ACTIVATIONS),
            "The activation was taken to be ELU (nonlinearity='elu'), BiaPy's default.",
        ),
        Option(
            "norm",
            "none",
            ("none", "instance"),
            "No normalisation has left a trace, and none was assumed; norm='instance' is the "
            "other possibility.",
            lambda arguments: "norm" not in arguments,
        ),
        Option(
            "strides",
            lambda arguments: ((2, 2, 2),) * (len(arguments["widths"]) - 1),
            (),
            "Every level was taken to halve the grid; strides=((1, 2, 2), ...) names others, "
            "finest first.",
            lambda arguments: not arguments["transposed"],
        ),
    ),
    notes=_notes,
)
