"""The true oblique view: layers of an oblique scan at their exact place, in 3D alone.

napari's 2D view drops rotations out of the slice, so images lie along the axes nearest to their
own until this is asked for.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_attention_unet.errors import InputError
from napari_attention_unet.io.layers import true_oblique_affine

from .results import results_of


def is_oblique(layer: Any | None) -> bool:
    """Whether a layer comes from an oblique scan."""
    return layer is not None and _affine(layer) is not None


def is_shown_oblique(layer: Any | None) -> bool:
    """Whether a layer lies at its exact oblique place now."""
    if layer is None:
        return False
    affine = _affine(layer)
    return affine is not None and bool(np.allclose(np.asarray(layer.affine), affine))


def show_oblique(viewer: Any, source: Any, on: bool) -> None:
    """Move a layer, those of the same scan, and all their results; 3D when on."""
    affine = _affine(source)
    if affine is None:
        return
    target = affine if on else np.eye(len(affine))
    for layer in list(viewer.layers):
        other = _affine(layer)
        if other is not None and other.shape == affine.shape and np.allclose(other, affine):
            for moved in (layer, *results_of(viewer.layers, layer)):
                moved.affine = target
    viewer.dims.ndisplay = 3 if on else 2
    viewer.reset_view()


def _affine(layer: Any) -> Any | None:
    try:
        return true_oblique_affine(layer)
    except InputError:
        return None
