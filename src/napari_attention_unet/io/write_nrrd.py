"""Results as NRRD."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nrrd
import numpy as np

from napari_attention_unet.units import is_length

from .anatomy import LPS_RAS
from .nrrd import TIME_KEYS
from .writers import Output, stored

_NOWHERE = [[np.nan] * 3]


def write_nrrd(path: Path, output: Output) -> None:
    """Write NRRD in left-posterior-superior space, as ITK and 3D Slicer do.

    See `napari_attention_unet.io.writers.stored` for how it lies.
    """
    kept = stored(output, ("nm", "µm", "mm", "cm", "m"))
    to_lps = LPS_RAS @ kept.affine
    extra = [("time", output.has_time, 3), ("list", output.has_channels, 4)]
    data = kept.data
    for _, there, axis in reversed(extra):
        if not there:
            data = data.take(0, axis)
    kinds = [kind for kind, there, _ in extra if there]
    unit = kept.unit.replace("µ", "u") if is_length(output.volume.units) else "mm"
    header: dict[str, Any] = {
        "space": "left-posterior-superior",
        "space directions": np.concatenate([to_lps[:3, :3].T, *[_NOWHERE] * len(kinds)]),
        "space origin": to_lps[:3, 3],
        "space units": [unit] * 3,
        "kinds": ["domain"] * 3 + kinds,
        "encoding": "gzip",
        "content": output.plain_name,
    }
    if output.has_time:  # the format itself has no place for these
        volume = output.volume
        times = output.time_step, volume.time or 0.0, volume.time_unit.replace("µ", "u")
        header |= dict(zip(TIME_KEYS, map(str, times), strict=True))
    nrrd.write(str(path), data, header, index_order="F")
