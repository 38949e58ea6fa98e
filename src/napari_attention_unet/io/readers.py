"""Which reader opens a path, by its ending or by what a folder holds."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from napari_attention_unet.errors import InputError

from .image import FileImage

#: Endings and the module and function that read them; longer ones first.
_READERS: dict[str, tuple[str, str]] = {
    ".nii.gz": ("nifti", "read_nifti"),
    ".nii": ("nifti", "read_nifti"),
    ".tif": ("tiff", "read_tiff"),
    ".tiff": ("tiff", "read_tiff"),
    ".zarr": ("ome_zarr", "read_ome_zarr"),
    ".nrrd": ("nrrd", "read_nrrd"),
    ".nhdr": ("nrrd", "read_nrrd"),
    ".mha": ("metaimage", "read_metaimage"),
    ".mhd": ("metaimage", "read_metaimage"),
    ".dcm": ("dicom", "read_dicom"),
    ".h5": ("arrays", "read_hdf5"),
    ".hdf5": ("arrays", "read_hdf5"),
    ".n5": ("arrays", "read_n5"),
    ".npy": ("arrays", "read_numpy"),
    ".npz": ("arrays", "read_numpy"),
}
#: Endings of volumes.
ENDINGS = tuple(_READERS)
#: Files of a folder that are looked at for DICOM.
_LOOKS = 64
#: Readers of paths that hold several images, of which one can be named.
_INNER = ("read_ome_zarr", "read_dicom", "read_hdf5", "read_n5", "read_numpy")


def open_image(path: str | Path) -> FileImage:
    """Read an image file or folder, chosen by its ending and content.

    Parameters
    ----------
    path : str or Path
        See `napari_attention_unet.io.read`.

    Raises
    ------
    InputError
        If it is of no known kind, or cannot be read.
    """
    path, inner = split_inner(path)
    function = _reader(path)
    if function.__name__ in _INNER:
        return function(path, inner)
    if inner:
        raise InputError(f"'{path}' holds one image; leave out ':{inner}'.")
    return function(path)


def open_images(path: str | Path) -> tuple[FileImage, ...]:
    """Read all images of a path: every DICOM series of a folder, labels beside an OME-Zarr image.

    Raises
    ------
    InputError
        See `open_image`.
    """
    outer, inner = split_inner(path)
    name = "" if inner else _reader(outer).__name__
    if name == "read_dicom":
        dicom = import_module(".dicom", __package__)
        series = dicom.dicom_series(outer)
        many = [s for s in series if len(s.frames) > 1] or series
        return tuple(dicom.image_of(each, outer) for each in many)
    if name == "read_ome_zarr":
        return tuple(import_module(".ome_zarr", __package__).read_ome_zarr_all(outer))
    return (open_image(path),)


def is_image(path: str | Path) -> bool:
    """Whether a path, by its ending or the look of a folder, is an image that can be read."""
    outer, _ = split_inner(path)
    try:
        _reader(outer)
    except InputError:
        return False
    return True


def split_inner(path: str | Path) -> tuple[Path, str]:
    """A path and what is named in it after a colon, ``"file.h5:raw"``."""
    whole = Path(path)
    if whole.exists() or ":" not in whole.as_posix():
        return whole, ""
    outer, _, inner = str(path).rpartition(":")
    if Path(outer).exists():
        return Path(outer), inner.strip("/")
    return whole, ""


def _reader(path: Path) -> Callable[..., FileImage]:
    name = path.name.lower()
    for ending, (module, function) in _READERS.items():
        if name.endswith(ending):
            return _function(module, function)
    folder = _folder_reader(path) if path.is_dir() else None
    if folder is not None:
        return folder
    if path.is_file() and find_spec("bioio") is not None:
        return _function("bioio", "read_bioio")
    raise InputError(
        f"'{path}' is of a kind that is not known here. TIFF, NIfTI, OME-Zarr, NRRD, MetaImage, "
        "DICOM folders, HDF5, N5 and numpy files are read; with bioio and its plugins installed, "
        "whatever they read. Save the volume as one of them."
    )


def _folder_reader(path: Path) -> Callable[..., FileImage] | None:
    """By what a folder without a telling name holds."""
    if any((path / name).exists() for name in (".zattrs", ".zgroup", ".zarray", "zarr.json")):
        return _function("ome_zarr", "read_ome_zarr")
    if (path / "attributes.json").exists():
        return _function("arrays", "read_n5")
    files = (p for p in path.rglob("*") if p.is_file())
    if any(_is_dicom(file) for file, _ in zip(files, range(_LOOKS), strict=False)):
        return _function("dicom", "read_dicom")
    return None


def _is_dicom(path: Path) -> bool:
    """Whether a file has DICOM's preamble."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _function(module: str, function: str) -> Callable[..., FileImage]:
    found: Callable[..., FileImage] = getattr(import_module(f".{module}", __package__), function)
    return found
