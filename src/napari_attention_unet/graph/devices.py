"""What convolutions need on a device."""

from __future__ import annotations

import torch


def computed_in(dtype: torch.dtype, device: torch.device, *, transposed: bool) -> torch.dtype:
    """The type in which a convolution is computed where `dtype` is wanted.

    MPS refuses transposed 3D convolutions in 16 bits (pytorch#160739); in float32 it has them since
    torch 2.8.

    Parameters
    ----------
    dtype : torch.dtype
        Wanted.
    device : torch.device
        Where it runs.
    transposed : bool
        Whether it is a transposed convolution.
    """
    return torch.float32 if transposed and device.type == "mps" else dtype


def wants_bias(device: torch.device) -> bool:
    """Whether convolutions run much faster with a bias, even one of zeros (pytorch#192213)."""
    return device.type == "mps"
