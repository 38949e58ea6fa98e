"""Whatever bioio and its installed plugins read: microscopes' own formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_attention_unet.units import NO_UNIT
from napari_attention_unet.volume import Storage

from .image import LAZY_ABOVE_BYTES, FileImage, native, one_sentence, stem


def read_bioio(path: str | Path) -> FileImage:
    """Read the first scene of a file through bioio.

    Voxel sizes are in µm, as bioio gives them.

    Parameters
    ----------
    path : str or Path
        The file.

    Raises
    ------
    InputError
        If no installed plugin of bioio reads it.
    """
    from bioio import BioImage

    with one_sentence(path, "an image by bioio and its installed plugins"):
        image: Any = BioImage(str(path))
        data = image.dask_data  # T, C, Z, Y, X
        sizes = image.physical_pixel_sizes
        known = all(getattr(sizes, axis) for axis in "YX")
        array = native(data if data.nbytes > LAZY_ABOVE_BYTES else data.compute(), path)
        names = [str(name) for name in image.channel_names or ()]
        lengths = dict(zip("TCZYX", array.shape, strict=True))
        return FileImage(
            levels=(array,),
            axes="".join(axis for axis in "TCZYX" if axis in "YX" or lengths[axis] > 1),
            name=stem(path),
            storage=Storage(str(path), "bioio", shape=array.shape[2:5]),
            spacing=(float(sizes.Z or 1.0), float(sizes.Y or 1.0), float(sizes.X or 1.0)),
            units="µm" if known else NO_UNIT,
            channel_names=tuple(names) if len(names) == array.shape[1] else (),
        )
