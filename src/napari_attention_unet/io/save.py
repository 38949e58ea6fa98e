"""Predictions as files: a folder with the mask, every gate's coefficients and where they came from.

Each file is written beside its place and then renamed, and `prediction.json` comes last, so a
folder that has one is complete.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from napari_attention_unet.errors import InputError
from napari_attention_unet.prediction import GateMap, Prediction
from napari_attention_unet.volume import Vec3, Volume

from .write_nrrd import write_nrrd
from .write_zarr import write_zarr
from .writers import Output, write_nifti, write_tiff

Format = Literal["auto", "tiff", "nifti", "nrrd", "zarr"]
FORMATS: tuple[Format, ...] = ("auto", "tiff", "nifti", "nrrd", "zarr")
SUMMARY = "prediction.json"

_WRITERS: dict[str, tuple[str, Callable[[Path, Output], None]]] = {
    "tiff": (".ome.tif", write_tiff),
    "nifti": (".nii.gz", write_nifti),
    "nrrd": (".nrrd", write_nrrd),
    "zarr": (".zarr", write_zarr),
}
#: Names of result files. Nothing else is ever removed, whatever a summary lists.
_OURS = re.compile(r"(mask|probabilities|logits|gate-[\w.-]+)\.(ome\.tif|nii\.gz|nrrd|zarr)")
_WHOLE: tuple[Vec3, Vec3] = ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0))


def save(
    prediction: Prediction | Sequence[Prediction],
    folder: str | Path,
    format: Format = "auto",  # noqa: A002  (the word of the public contract)
) -> Path:
    """Save a prediction, or those of a time series, in a folder of their own.

    Parameters
    ----------
    prediction : Prediction or sequence of Prediction
        Several are time points of one series, equally spaced, in order.
    folder : str or Path
        Made if it is missing. Results of an earlier run in it are replaced; other files are left
        alone.
    format : {"auto", "tiff", "nifti", "nrrd", "zarr"}
        ``"auto"`` is the volume's own where it is one of these, NIfTI for other anatomical ones,
        else OME-TIFF. NIfTI and NRRD results lie exactly over their source, oblique rotation
        included; the others keep scale and translate, with the exact affine in
        ``prediction.json`` (and in the attributes of zarr).

    Returns
    -------
    Path
        The folder, with ``mask.*``, a ``gate-<name>.*`` for each gate, ``probabilities.*`` and
        ``logits.*`` where the prediction has them, and ``prediction.json``.

    Raises
    ------
    InputError
        If the format is not known, or a file stands where the folder should be.
    """
    series = [prediction] if isinstance(prediction, Prediction) else list(prediction)
    if format not in FORMATS:
        raise InputError(f"Unknown format '{format}'; known: {', '.join(FORMATS)}.")
    if format == "auto":
        format = _own_format(series[0].volume)  # noqa: A001
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"'{folder}' is a file; give a folder for the results.")
    folder.mkdir(parents=True, exist_ok=True)
    _remove_earlier(folder)
    suffix, write = _WRITERS[format]
    outputs = _outputs(series)
    for output in outputs:
        part = folder / f".part-{output.name}{suffix}"
        try:
            write(part, output)
            _move(part, folder / f"{output.name}{suffix}")
        finally:
            _remove(part)
    part = folder / f".part-{SUMMARY}"
    files = {output.name: output.name + suffix for output in outputs}
    text = json.dumps(
        _plain(_summary(series, files)), indent=1, ensure_ascii=False, allow_nan=False
    )
    part.write_text(text + "\n", encoding="utf-8")
    _move(part, folder / SUMMARY)
    return folder


def _own_format(volume: Volume) -> Format:
    """The format of the volume's file, or the nearest that can be written."""
    storage = volume.storage
    if storage is None or storage.format in ("tiff", "bioio", "numpy"):
        return "tiff"
    if storage.format in ("nifti", "nrrd", "zarr"):
        return cast("Format", storage.format)
    return "nifti" if storage.affine is not None else "tiff"


def gate_file_name(name: str) -> str:
    """Name of a gate's file, without ending: ``"gate-att4"``; safe on every file system."""
    return "gate-" + re.sub(r"[^\w.-]", "_", name)


def _outputs(series: list[Prediction]) -> list[Output]:
    first = series[0]
    volume, classes = first.volume, first.classes
    times = [p.volume.time or 0.0 for p in series]
    step = times[1] - times[0] if len(times) > 1 and times[1] > times[0] else 1.0

    mask = tuple(p.mask for p in series)
    made = [Output("mask", mask, *_WHOLE, volume, classes, is_labels=True, time_step=step)]
    for name in ("probabilities", "logits"):
        arrays = tuple(getattr(p, name) for p in series)
        if all(array is not None for array in arrays):
            made.append(Output(name, arrays, *_WHOLE, volume, classes, time_step=step))
    for gate in first.gates:
        maps = tuple(p.gate(gate.name).coefficients for p in series)
        place = gate.scale, gate.translate
        made.append(Output(gate_file_name(gate.name), maps, *place, volume, time_step=step))
    return made


def _summary(series: list[Prediction], files: dict[str, str]) -> dict[str, Any]:
    """What prediction.json holds: the provenance, and where everything lies."""
    first = series[0]
    volume = first.volume
    summary = {
        **first.provenance,
        "classes": [asdict(info) for info in first.classes],
        "volume": {
            "name": volume.name,
            "shape": volume.shape,
            "channels": volume.channels,
            "spacing": volume.spacing,
            "translate": volume.translate,
            "units": volume.units,
            "orientation": volume.orientation,
            "affine": volume.affine,
            "part": asdict(volume.part),
            "storage": _storage(volume),
        },
        "gates": [
            {
                "name": gate.name,
                "file": files[gate_file_name(gate.name)],
                "kind": gate.kind,
                "forced": gate.forced,
                "grid": gate.label,
                "shape": gate.coefficients.shape,
                "stride": gate.stride,
                "scale": gate.scale,
                "translate": gate.translate,
                **_statistics([p.gate(gate.name) for p in series]),
            }
            for gate in first.gates
        ],
        "files": files,
    }
    if len(series) > 1:
        summary["times"] = [p.volume.time for p in series]
        summary["time_unit"] = volume.time_unit
        summary["time_points"] = [p.provenance for p in series]
    return summary


def _storage(volume: Volume) -> dict[str, Any] | None:
    """How the file stored it, with a path that holds in any folder."""
    if volume.storage is None:
        return None
    path = volume.storage.path
    return {**asdict(volume.storage), "path": str(Path(path).absolute()) if path else ""}


def _statistics(gates: list[GateMap]) -> dict[str, float]:
    values = np.stack([np.asarray(gate.coefficients, np.float64) for gate in gates])
    return {"minimum": values.min(), "maximum": values.max(), "mean": values.mean()}


def _plain(value: Any) -> Any:
    """The value in JSON's types; what is not finite becomes null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _remove_earlier(folder: Path) -> None:
    """Remove an earlier run's results, its summary first: without that they count as incomplete."""
    summary = folder / SUMMARY
    try:
        files = json.loads(summary.read_text(encoding="utf-8"))["files"].values()
    except FileNotFoundError:
        return
    except (ValueError, KeyError, AttributeError, TypeError):
        files = ()
    summary.unlink()
    for name in files:
        if isinstance(name, str) and _OURS.fullmatch(name):
            _remove(folder / name)


def _move(source: Path, target: Path) -> None:
    if target.is_dir():  # a folder of zarr cannot be replaced in one go
        shutil.rmtree(target)
    source.replace(target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
