"""A saved result folder, read back into predictions: every array on its own grid and axes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import nrrd
import numpy as np
import numpy.typing as npt

from napari_attention_unet.errors import InputError
from napari_attention_unet.models.card import ClassInfo
from napari_attention_unet.prediction import GateMap, Prediction
from napari_attention_unet.volume import Part, Storage, Volume, as_vec3

from .image import one_sentence
from .readers import open_image, split_inner
from .save import SUMMARY

#: Keys of the summary that are no provenance.
_NOT_PROVENANCE = ("volume", "files", "classes", "times", "time_unit", "time_points")
_STORED_BACKWARDS = ((2, 1, 0), (False, False, False))


def is_result(path: str | Path) -> bool:
    """Whether this is a folder with a complete result."""
    return (Path(path) / SUMMARY).is_file()


def open_result(folder: str | Path) -> list[Prediction]:
    """Read what `save` wrote.

    Parameters
    ----------
    folder : str or Path
        With ``prediction.json``, in any of the formats.

    Returns
    -------
    list of Prediction
        One a time point. Arrays, their places, classes and provenance are those that were saved
        (coefficients as float32). The volume has its geometry; its voxels are zeros that take no
        memory: see `source_of`.

    Raises
    ------
    InputError
        If there is no complete result, or one of its files is missing or does not fit.
    """
    folder = Path(folder)
    if not is_result(folder):
        raise InputError(
            f"'{folder}' has no {SUMMARY}, so it holds no complete result. Choose a folder that "
            "predict wrote, or run the volume again."
        )
    with one_sentence(folder / SUMMARY, "the summary of a result"):
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        volumes = _volumes(summary)
        classes = tuple(ClassInfo(**info) for info in summary["classes"])
        files: dict[str, str] = summary["files"]
        gates: list[dict[str, Any]] = summary["gates"]
        points = summary.get("time_points") or [summary]

    def arrays(name: str, shape: Sequence[int]) -> npt.NDArray[Any]:
        return _array(folder / files[name], volumes[0].storage, (len(volumes), *shape))

    grid = volumes[0].shape
    mask = arrays("mask", grid)[:, 0]
    extras = {n: arrays(n, grid) for n in ("probabilities", "logits") if n in files}
    by_file = {file: name for name, file in files.items()}
    maps = {gate["name"]: arrays(by_file[gate["file"]], gate["shape"])[:, 0] for gate in gates}
    return [
        Prediction(
            mask=mask[t],
            gates=tuple(_gate(gate, maps[gate["name"]][t]) for gate in gates),
            classes=classes,
            volume=volume,
            **{name: values[t].astype(np.float32) for name, values in extras.items()},
            provenance={k: v for k, v in points[t].items() if k not in _NOT_PROVENANCE},
        )
        for t, volume in enumerate(volumes)
    ]


def source_of(prediction: Prediction, path: str = "") -> Volume | None:
    """The volume that was run, read again from its file.

    Parameters
    ----------
    prediction : Prediction
        Its `volume` says which part of the file.
    path : str
        Where the file is, with the dataset in it after a colon; as the volume says, if not given.

    Returns
    -------
    Volume or None
        On the grid of the prediction; None if the file is gone, or is not what it was.
    """
    volume = prediction.volume
    path = path or (volume.storage.path if volume.storage is not None else "")
    if not path or not split_inner(path)[0].exists():
        return None
    try:
        volumes = open_image(path).volumes()
    except InputError:
        return None
    part = volume.part
    if part.time_index >= len(volumes):
        return None
    found = volumes[part.time_index]
    if part.step != (1.0, 1.0, 1.0):
        return None
    box = [(int(o), int(o) + n) for o, n in zip(part.origin, volume.shape, strict=True)]
    if all(low == 0 for low, _ in box) and found.shape == volume.shape:
        return found
    if any(high > size for (_, high), size in zip(box, found.shape, strict=True)):
        return None
    return found.crop((box[0], box[1], box[2]))


def _volumes(summary: Mapping[str, Any]) -> list[Volume]:
    """The geometry of each time point."""
    said = summary["volume"]
    empty = np.broadcast_to(np.zeros((), np.uint8), (said["channels"], *said["shape"]))
    part, stored = said["part"], said["storage"]
    volume = Volume(
        empty,
        spacing=as_vec3(said["spacing"]),
        translate=as_vec3(said["translate"]),
        units=said["units"],
        orientation=said["orientation"],
        affine=_matrix(said["affine"]),
        name=said["name"],
        time_unit=summary.get("time_unit", ""),
        storage=None if stored is None else _storage(stored),
        part=Part(as_vec3(part["origin"]), as_vec3(part["step"]), int(part["time_index"])),
    )
    times = summary.get("times", [None])
    first = volume.part.time_index
    return [
        replace(volume, time=time, part=replace(volume.part, time_index=first + t))
        for t, time in enumerate(times)
    ]


def _storage(said: Mapping[str, Any]) -> Storage:
    z, y, x = (int(axis) for axis in said["axes"])
    flip_z, flip_y, flip_x = (bool(flip) for flip in said["flipped"])
    return Storage(
        said["path"],
        said["format"],
        (z, y, x),
        (flip_z, flip_y, flip_x),
        _matrix(said["affine"]),
        tuple(said["shape"]),
        said["space"],
    )


def _matrix(rows: Any) -> npt.NDArray[np.float64] | None:
    return None if rows is None else np.asarray(rows, np.float64)


def _gate(said: Mapping[str, Any], coefficients: npt.NDArray[Any]) -> GateMap:
    return GateMap(
        said["name"],
        coefficients.astype(np.float32),
        as_vec3(said["scale"]),
        as_vec3(said["translate"]),
        said["kind"],
        as_vec3(said["stride"]),
        bool(said["forced"]),
    )


def _array(path: Path, storage: Storage | None, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """One file's values as (time, class, z, y, x), on the axes that the prediction had.

    Anatomical formats are in the source's storage order: it is undone here rather than by their
    readers, which turn any file upright, whereas a prediction has its volume's own axes.
    """
    if not path.exists():
        raise InputError(f"'{path}' is missing from the result. Run the volume again.")
    times, *grid = shape
    with one_sentence(path, "a result"):
        if path.name.endswith((".nii.gz", ".nrrd")):
            values = _stored(path)
            axes, flipped = _STORED_BACKWARDS
            if storage is not None and storage.affine is not None:
                axes, flipped = storage.axes, storage.flipped
            spatial = [values.shape[axis] for axis in range(3)]
            values = values.reshape(*spatial, times, -1).transpose(3, 4, *axes)
            values = np.flip(values, tuple(2 + ours for ours in range(3) if flipped[ours]))
        else:
            values = np.asarray(open_image(path).data)
    if values.shape[0] != times or list(values.shape[2:]) != grid:
        raise InputError(
            f"'{path}' has the shape {values.shape} (time, class, z, y, x); {SUMMARY} says "
            f"({times}, any, {', '.join(map(str, grid))}). Run the volume again."
        )
    return np.ascontiguousarray(values)


def _stored(path: Path) -> npt.NDArray[Any]:
    if path.name.endswith(".nrrd"):
        return np.asarray(nrrd.read(str(path), index_order="F")[0])
    image: Any = nib.load(path)
    return np.asarray(image.dataobj)
