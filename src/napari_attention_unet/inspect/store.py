"""Predictions kept on disk by what made them, so that a long series can go on where it stopped."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from napari_attention_unet.models.card import ClassInfo
from napari_attention_unet.prediction import GateMap, Prediction
from napari_attention_unet.settings import Settings
from napari_attention_unet.volume import Volume

_INDEX = "prediction.json"
#: Bytes that are read at a time.
_CHUNK = 1 << 24


class Store:
    """A folder with a sub-folder for each prediction.

    Each is written beside its place and then renamed, its index last, so that what is there is
    complete. Arrays are mapped from disk, not read.

    Parameters
    ----------
    folder : Path
        Made when first written to.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def get(self, key: str, volume: Volume) -> Prediction | None:
        """The prediction of that key, in the geometry of `volume`; None if there is none."""
        place = self.folder / key
        try:
            index = json.loads((place / _INDEX).read_text(encoding="utf-8"))
            mask = np.load(place / "mask.npy", mmap_mode="r")
            gates = tuple(
                GateMap(
                    name=gate["name"],
                    coefficients=np.load(place / f"gate-{number}.npy", mmap_mode="r"),
                    scale=tuple(gate["scale"]),
                    translate=tuple(gate["translate"]),
                    kind=gate["kind"],
                    stride=tuple(gate["stride"]),
                )
                for number, gate in enumerate(index["gates"])
            )
            classes = tuple(ClassInfo(**info) for info in index["classes"])
        except (OSError, ValueError, KeyError, TypeError):
            return None  # missing, or damaged: made again
        return Prediction(
            mask, gates, classes, volume.without_data(), provenance=index["provenance"]
        )

    def put(self, key: str, prediction: Prediction) -> None:
        """Keep a prediction."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".part-", dir=self.folder))
        try:
            np.save(part / "mask.npy", np.asarray(prediction.mask))
            index: dict[str, Any] = {
                "classes": [asdict(info) for info in prediction.classes],
                "provenance": prediction.provenance,
                "gates": [],
            }
            for number, gate in enumerate(prediction.gates):
                np.save(part / f"gate-{number}.npy", np.asarray(gate.coefficients))
                about = ("name", "scale", "translate", "kind", "stride")
                index["gates"].append({name: getattr(gate, name) for name in about})
            (part / _INDEX).write_text(json.dumps(index), encoding="utf-8")
            shutil.rmtree(self.folder / key, ignore_errors=True)
            part.rename(self.folder / key)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def key_of(
    checkpoint: Path, volume: str, settings: Settings, options: Mapping[str, Any], release: str
) -> str:
    """What tells one prediction from others.

    Parameters
    ----------
    checkpoint : Path
        The file; its content counts, not its name.
    volume : str
        See `volume_digest`.
    settings : Settings
        Of the run.
    options : mapping
        With which the checkpoint is opened.
    release : str
        Version of the program.
    """
    found = hashlib.sha256()
    with checkpoint.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    known = [volume, settings.as_json(), {k: repr(v) for k, v in sorted(options.items())}, release]
    found.update(json.dumps(known, sort_keys=True).encode())
    return found.hexdigest()[:32]


def volume_digest(volume: Volume) -> str:
    """Of voxels and geometry."""
    found = hashlib.sha256()
    known = (volume.data.shape, str(volume.data.dtype), volume.spacing, volume.orientation)
    found.update(repr((*known, volume.units)).encode())
    voxels = volume.channels * volume.shape[1] * volume.shape[2]
    step = max(1, _CHUNK // (voxels * np.dtype(volume.data.dtype).itemsize))
    for start in range(0, volume.shape[0], step):
        found.update(np.asarray(volume.data[:, start : start + step]).tobytes())
    return found.hexdigest()
