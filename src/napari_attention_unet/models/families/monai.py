"""MONAI's ``AttentionUnet``, built by MONAI itself (Apache-2.0; an optional extra)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import nn

from napari_attention_unet.errors import CheckpointError

from .blocks import Size3
from .family import Family, Option, State, shape


def _build(
    in_channels: int,
    out_channels: int,
    channels: Sequence[int],
    kernel_size: Size3,
    up_kernel_size: Size3,
    strides: Sequence[int],
) -> nn.Module:
    try:
        from monai.networks.nets.attentionunet import (  # type: ignore[import-not-found, unused-ignore]
            AttentionUnet,
        )
    except ImportError as error:
        raise CheckpointError(
            "This is a checkpoint of MONAI's AttentionUnet, which is opened through MONAI, and "
            'MONAI is not installed. pip install "napari-attention-unet[monai]" would mend it.'
        ) from error
    if len(strides) != len(channels) - 1:
        raise CheckpointError(
            f"strides={tuple(strides)} has {len(strides)} numbers; this network goes down "
            f"{len(channels) - 1} times and needs as many."
        )
    network = AttentionUnet(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=out_channels,
        channels=tuple(channels),
        strides=tuple(strides),
        kernel_size=kernel_size,
        up_kernel_size=up_kernel_size,
    )
    return cast("nn.Module", network)


def _read(state: State) -> dict[str, Any]:
    first = shape(state, "model.0.conv.0.conv.weight")
    channels, prefix = [first[0]], "model.1"
    while f"{prefix}.attention.psi.0.conv.weight" in state:
        up = shape(state, f"{prefix}.upconv.up.conv.weight")
        channels.append(up[0])
        prefix += ".submodule.1"
    return {
        "in_channels": first[1],
        "out_channels": shape(state, "model.2.conv.weight")[0],
        "channels": channels,
        "kernel_size": first[2:],
        "up_kernel_size": up[2:],
    }


MONAI = Family(
    name="MONAI AttentionUnet",
    source="monai.networks.nets.AttentionUnet",
    signature=(
        r"model\.0\.conv\.0\.conv\.weight",
        r"model\.1\.attention\.psi\.0\.conv\.weight",
        r"model\.1\.merge\.conv\.weight",
        r"model\.2\.conv\.weight",
    ),
    read=_read,
    make=_build,
    options=(
        Option(
            "strides",
            lambda arguments: (2,) * (len(arguments["channels"]) - 1),
            (),
            "Every level was taken to halve the grid (strides of 2), as in MONAI's examples; "
            "strides=(2, 2, 1, ...) names others, finest first.",
            hint=("AttentionUnet", "strides"),
        ),
    ),
    notes=lambda _: (
        "Its InstanceNorm layers take statistics over the volume that is run at once, so mask "
        "and coefficients depend a little on how much of the volume is given.",
    ),
)
