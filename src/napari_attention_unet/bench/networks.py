"""The networks that are measured, with seeded random weights, and the work of one pass."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from napari_attention_unet.errors import InputError
from napari_attention_unet.models.attention_unet_3d import AttentionUNet3D
from napari_attention_unet.volume import Shape3

#: Channels of MONAI's network, as in its own examples.
MONAI_CHANNELS = (16, 32, 64, 128, 256)
#: What `network` builds, for people.
KNOWN = "'blog16', 'blog64' (or another width), 'monai'"


def network(name: str, seed: int = 0) -> nn.Module:
    """A network of one input channel and two classes, in evaluation mode.

    Parameters
    ----------
    name : str
        ``"blog16"``: `AttentionUNet3D` with four levels of 16, 32, 64 and 128 channels, and so for
        any other width; ``"monai"``: MONAI's ``AttentionUnet`` with `MONAI_CHANNELS`.
    seed : int
        Of the weights. Statistics and affine parameters of normalisations are random as well, so
        that folding them is no empty exercise.

    Raises
    ------
    InputError
        If there is no such network, or MONAI is not installed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = _build(name)
    return randomised(module, seed)


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with random statistics and affine parameters, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm3d):
                assert part.running_mean is not None
                assert part.running_var is not None
                part.running_mean.normal_(0, 0.1, generator=generator)
                part.running_var.uniform_(0.5, 1.5, generator=generator)
                part.weight.uniform_(0.5, 1.5, generator=generator)
                part.bias.normal_(0, 0.1, generator=generator)
    return module.eval()


def _build(name: str) -> nn.Module:
    if name == "monai":
        made: nn.Module = monai().networks.nets.AttentionUnet(
            spatial_dims=3,
            in_channels=1,
            out_channels=2,
            channels=MONAI_CHANNELS,
            strides=(2,) * (len(MONAI_CHANNELS) - 1),
        )
        return made
    if (match := re.fullmatch(r"blog([1-9]\d{0,2})", name)) is None:
        raise InputError(f"There is no network '{name}' to measure; use {KNOWN}.")
    width = int(match[1])
    return AttentionUNet3D(1, 2, [width, 2 * width, 4 * width, 8 * width])


def monai() -> Any:
    """MONAI, with its networks and inferers.

    Raises
    ------
    InputError
        If it is not installed.
    """
    try:
        import monai
        import monai.inferers
        import monai.networks.nets
    except ImportError as error:
        raise InputError(
            "The comparison needs MONAI, which is not installed; "
            'pip install "napari-attention-unet[bench]" would mend it.'
        ) from error
    return monai


def flops(module: nn.Module, size: Shape3) -> int:
    """Floating-point operations of one pass over a volume, two for each multiply-add.

    Counted by torch on tensors without data: convolutions and matrix products alone.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        copy.deepcopy(module).to("meta")(torch.empty(1, 1, *size, device="meta"))
    return int(counter.get_total_flops())


def noise(size: Sequence[int], seed: int = 0) -> npt.NDArray[np.float32]:
    """A volume of standard normal noise, shape (z, y, x)."""
    return np.random.default_rng(seed).standard_normal(tuple(size), dtype=np.float32)
