"""Connected components of a mask."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import ndimage

from napari_attention_unet.prediction import Prediction


def keep_largest(prediction: Prediction) -> Prediction:
    """Clear every part of the mask that is not connected to its largest piece.

    All classes but the background count as one foreground; voxels are connected by their faces.
    Where pieces are equally large, the first in memory order stays.

    Returns
    -------
    Prediction
        With a mask of its own; ``provenance["keep_largest"]`` is set. Gates, probabilities and
        logits are untouched.
    """
    pieces, count = ndimage.label(prediction.mask > 0)
    mask = prediction.mask.copy()
    if count > 1:
        voxels = np.bincount(pieces.ravel())
        mask[pieces != 1 + int(voxels[1:].argmax())] = 0
    return replace(
        prediction, mask=mask, provenance={**prediction.provenance, "keep_largest": True}
    )
