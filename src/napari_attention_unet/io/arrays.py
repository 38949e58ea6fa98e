"""Arrays with little around them: numpy files, and named datasets of HDF5 and N5."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from napari_attention_unet.errors import InputError
from napari_attention_unet.units import NO_UNIT, unit_symbol
from napari_attention_unet.volume import Storage, Vec3, as_vec3

from .image import LAZY_ABOVE_BYTES, FileImage, native, one_sentence, stem

_ROLES = {3: "ZYX", 4: "CZYX", 5: "TCZYX"}


def read_numpy(path: str | Path, inner: str = "") -> FileImage:
    """Read a numpy file: (z, y, x), (channel, z, y, x) or (time, channel, z, y, x).

    Parameters
    ----------
    path : str or Path
        ``.npy``, or ``.npz`` with one such array, or the one named.
    inner : str
        Name of the array in an ``.npz``.

    Raises
    ------
    InputError
        If the file is damaged, or holds no such array. Pickled objects are never loaded.
    """
    with one_sentence(path, "a numpy file"):
        found = np.load(path, allow_pickle=False, mmap_mode="r")
        if isinstance(found, np.ndarray):
            array: Any = found
        else:
            with found:
                array = found[_chosen(path, inner, {n: found[n].shape for n in found.files})]
        if isinstance(array, np.memmap):
            array = _lazily(array, array.nbytes)
        return _image(path, inner, "numpy", array, _by_length(array.shape, path), (1.0, 1.0, 1.0))


def read_hdf5(path: str | Path, inner: str = "") -> FileImage:
    """Read a dataset of an HDF5 file.

    Axes come from ``axistags`` (ilastik), ``axes`` or the dimension labels, else by their number as
    in `read_numpy`; the voxel size from ``element_size_um`` or ``resolution`` (z, y, x; µm).

    Parameters
    ----------
    path : str or Path
        ``.h5`` or ``.hdf5``.
    inner : str
        The dataset, e.g. ``"raw"``; may be left out where there is just one volume.

    Raises
    ------
    InputError
        If the file is damaged, or the dataset is missing; the message names those there are.
    """
    import h5py

    with one_sentence(path, "an HDF5 file"):
        file = h5py.File(path, "r")  # a lazy array reads from it for as long as it lives
        try:
            name = _chosen(path, inner, dict(_volumes(file)))
            dataset = file[name]
            attributes = dict(dataset.attrs)
            roles = _hdf5_roles(dataset, attributes) or _by_length(dataset.shape, path)
            lazy = dataset.size * dataset.dtype.itemsize > LAZY_ABOVE_BYTES
            array = _lazily(dataset, dataset.size * dataset.dtype.itemsize)
        except BaseException:
            file.close()
            raise
        if not lazy:
            file.close()
        size = attributes.get("element_size_um", attributes.get("resolution"))
        spacing = None if size is None else np.asarray(size, float)
        usable = spacing is not None and spacing.shape == (3,) and bool((spacing > 0).all())
        return _image(
            path,
            name,
            "hdf5",
            array,
            roles,
            as_vec3(spacing) if usable and spacing is not None else (1.0, 1.0, 1.0),
            "µm" if usable else NO_UNIT,
        )


def read_n5(path: str | Path, inner: str = "") -> FileImage:
    """Read a dataset of an N5 container, through tensorstore where it is installed.

    N5 lists axes and ``resolution`` with x first; both are reversed. ``units`` and COSEM's
    ``transform`` are understood.

    Parameters
    ----------
    path : str or Path
        The container's folder.
    inner : str
        The dataset, e.g. ``"volumes/raw"``.

    Raises
    ------
    InputError
        If there is no such dataset, or tensorstore is missing.
    """
    try:
        import tensorstore
    except ImportError as error:
        raise InputError(
            f"'{path}' is an N5 container; install tensorstore to read it "
            "(pip install tensorstore), or convert it to OME-Zarr."
        ) from error
    with one_sentence(path, "an N5 container"):
        shapes = dict(_n5_volumes(Path(path)))
        name = _chosen(path, inner, shapes)
        folder = Path(path) / name
        attributes = json.loads((folder / "attributes.json").read_text(encoding="utf-8"))
        store = tensorstore.open(
            {"driver": "n5", "kvstore": {"driver": "file", "path": str(folder)}}, read=True
        ).result()
        array = _lazily(store.T, store.size * store.dtype.numpy_dtype.itemsize)
        spacing, unit = _n5_scale(attributes)
        return _image(path, name, "n5", array, _by_length(array.shape, path), spacing, unit)


def _image(
    path: str | Path,
    inner: str,
    file_format: str,
    array: Any,
    roles: str,
    spacing: Vec3,
    units: str = NO_UNIT,
) -> FileImage:
    array = native(array, path).transpose([roles.index(r) for r in "TCZYX" if r in roles])
    array = array[tuple(slice(None) if role in roles else None for role in "TCZYX")]
    name = stem(path) + (f" {inner.strip('/')}" if inner else "")
    place = f"{path}:{inner.strip('/')}" if inner else str(path)
    return FileImage(
        levels=(array,),
        axes="".join(role for role in "TCZYX" if role in roles),
        name=name,
        storage=Storage(place, file_format, shape=array.shape[2:5]),
        spacing=spacing,
        units=units,
    )


def _lazily(array: Any, size: int) -> Any:
    """A numpy array, or dask where it is large."""
    if size <= LAZY_ABOVE_BYTES:
        return np.asarray(array[...])
    import dask.array as da

    chunks: Any = getattr(array, "chunks", None) or "auto"
    return da.from_array(array, chunks=chunks, name=False)  # type: ignore[no-untyped-call]


def _by_length(shape: tuple[int, ...], path: str | Path) -> str:
    roles = _ROLES.get(len(shape))
    if roles is None:
        raise InputError(
            f"The array in '{path}' has {len(shape)} axes, shape {tuple(shape)}; (z, y, x), "
            "(channel, z, y, x) or (time, channel, z, y, x) are understood."
        )
    return roles


def _chosen(path: str | Path, inner: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """The dataset that is meant."""
    wanted = inner.strip("/")
    if wanted in shapes:
        return wanted
    listed = "; ".join(f"'{name}' {tuple(shape)}" for name, shape in list(shapes.items())[:12])
    if wanted:
        raise InputError(f"'{path}' has no volume '{inner}'. It has: {listed or 'none'}.")
    if len(shapes) == 1:
        return next(iter(shapes))
    if not shapes:
        raise InputError(f"'{path}' holds no array of three to five axes; a volume is needed.")
    raise InputError(
        f"'{path}' holds several volumes; name one after a colon, such as "
        f"'{path}:{next(iter(shapes))}'. There are: {listed}."
    )


def _volumes(file: Any) -> Iterator[tuple[str, tuple[int, ...]]]:
    import h5py

    found: list[tuple[str, tuple[int, ...]]] = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim in _ROLES and item.dtype.kind in "biuf":
            found.append((name, tuple(item.shape)))

    file.visititems(visit)
    yield from found


def _hdf5_roles(dataset: Any, attributes: Mapping[str, Any]) -> str:
    """Roles of the axes as the file names them; empty where it does not."""
    letters: list[str] = []
    try:
        if "axistags" in attributes:
            letters = [axis["key"] for axis in json.loads(attributes["axistags"])["axes"]]
        elif "axes" in attributes:
            letters = list(str(attributes["axes"]))
        else:
            letters = [dimension.label for dimension in dataset.dims]
    except (ValueError, KeyError, TypeError):
        return ""
    roles = "".join(letters).upper()
    usable = len(roles) == dataset.ndim == len(set(roles)) and set("ZYX") <= set(roles)
    return roles if usable and set(roles) <= set("TCZYX") else ""


def _n5_volumes(folder: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    for file in sorted(folder.rglob("attributes.json")):
        attributes = json.loads(file.read_text(encoding="utf-8"))
        sizes = attributes.get("dimensions") if isinstance(attributes, dict) else None
        if sizes and len(sizes) in _ROLES:
            yield str(file.parent.relative_to(folder).as_posix()), tuple(sizes[::-1])


def _n5_scale(attributes: Mapping[str, Any]) -> tuple[Vec3, str]:
    transform = attributes.get("transform")
    if isinstance(transform, dict) and len(transform.get("scale", ())) == 3:
        units = transform.get("units") or [""]
        return as_vec3(transform["scale"]), unit_symbol(units[0])  # COSEM: z first
    size = attributes.get("resolution")
    unit = attributes.get("units", "")
    if isinstance(size, list) and len(size) == 3 and all(s > 0 for s in size):
        return as_vec3(size[::-1]), unit_symbol(unit[0] if isinstance(unit, list) else unit)
    return (1.0, 1.0, 1.0), NO_UNIT
