"""A made-up head, small and quick to view."""

from __future__ import annotations

import numpy as np

from napari_attention_unet.training.heads import AIR, BRAIN, FIRST_OUTER, OUTER, Head

#: T1-like intensities of air, grey matter, white matter, CSF, and what lies around the brain.
INTENSITIES = np.array([0, 60, 100, 20, *np.linspace(10, 150, OUTER), 80], np.float32)


def ball_head(tissues: bool = True, name: str = "ball") -> Head:
    """Shells: white matter in the middle, then grey, CSF, bone to fat, and air.

    A bar of CSF lies to the left, so that left and right differ.
    """
    z, y, x = np.ogrid[-39.5:40, -43.5:44, -35.5:36]
    radius = np.sqrt(z * z + y * y + x * x)
    regions = np.full(radius.shape, AIR, np.uint8)
    for k in reversed(range(OUTER)):
        regions[radius < 27 + k] = FIRST_OUTER + k
    for reach, region in ((26, 3), (23, 1), (16, 2)):
        regions[radius < reach] = region
    regions[36:44, 40:48, 40:50] = 3
    image = INTENSITIES[regions]
    if not tissues:
        regions[(regions >= 1) & (regions <= 3)] = BRAIN
    return Head(name, image, regions, (2.0, 2.0, 2.0))
