"""The volume that comes with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_attention_unet.volume import Volume

from .napari_reader import layers_of
from .nifti import read_nifti

_SAMPLE = Path(__file__).parent / "samples" / "t1-head.nii.gz"


def sample_path() -> Path:
    """Where the sample lies: a whole-head T1 MRI, 91 x 109 x 91 voxels of 2 mm, as NIfTI."""
    return _SAMPLE


def sample() -> Volume:
    """The sample as a volume."""
    return read_nifti(_SAMPLE).volumes()[0]


def sample_layers() -> list[tuple[Any, dict[str, Any], str]]:
    """The sample as napari layer data, for *File > Open Sample*."""
    return layers_of(read_nifti(_SAMPLE))
