"""What no network can read, refused before anything is computed."""

from __future__ import annotations

import numpy as np

from napari_attention_unet.errors import InputError
from napari_attention_unet.frame import Frame
from napari_attention_unet.models.card import ModelCard
from napari_attention_unet.volume import Shape3, Volume


def check_volume(volume: Volume, card: ModelCard) -> None:
    """Refuse what no network of this card can read, by what the array says of itself.

    Raises
    ------
    InputError
        For a wrong number of channels, a voxel type without order, or an axis of one voxel.
    """
    shape = tuple(volume.data.shape)
    if volume.channels != card.in_channels:
        hint = f"pass an array of shape ({card.in_channels}, z, y, x)"
        if shape[-1] in (3, 4):
            hint = f"the last axis looks like colours: convert to grey values, or {hint}"
        elif shape[-1] == card.in_channels:
            hint = "the last axis may be the channels: move it to the front"
        raise InputError(
            f"The model '{card.name}' reads {card.in_channels} channel(s); this volume has "
            f"{volume.channels} (shape {shape}, axes channel, z, y, x). To make it work, {hint}."
        )
    dtype = np.dtype(volume.data.dtype)
    if dtype.kind not in "buif":
        raise InputError(
            f"Voxels of type {dtype} have no intensity order; convert the volume to integers or "
            "floating-point numbers."
        )
    if min(volume.shape) < 2:
        axis = "zyx"[volume.shape.index(min(volume.shape))]
        raise InputError(
            f"The volume has {min(volume.shape)} voxel(s) along {axis} (shape {volume.shape}); "
            "a 3D network needs at least 2 along each axis. A single image or slice cannot be run."
        )


def check_size(frame: Frame, stride: Shape3) -> None:
    """Refuse a volume that would be nearly all padding.

    Raises
    ------
    InputError
        If each axis is shorter than one cell of the network's coarsest grid.
    """
    if all(n < s for n, s in zip(frame.size, stride, strict=True)):
        size, cell = ("×".join(str(n) for n in line) for line in (frame.size, stride))
        raise InputError(
            f"The volume is too small: {size} voxels of the network's grid, while one cell of its "
            f"coarsest level is {cell}. Pass a larger region, or check the voxel size."
        )
