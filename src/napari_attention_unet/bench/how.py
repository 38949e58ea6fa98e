"""What the person at the command line chose for the cases."""

from __future__ import annotations

from dataclasses import dataclass

from napari_attention_unet.volume import Shape3


@dataclass(frozen=True)
class How:
    """Choices for a measurement.

    Attributes
    ----------
    size : tuple of int or None
        Voxels (z, y, x) in place of the case's own.
    repeats : int
        Timed runs of each contender.
    """

    size: Shape3 | None = None
    repeats: int = 5
