"""Files dropped on the panel: volumes and results are read on a worker thread.

Checkpoints are chosen.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from napari.layers import Layer
from qtpy.QtCore import QMimeData, QObject, Signal

from napari_attention_unet.io.napari_reader import LayerData, read_layers
from napari_attention_unet.io.open_result import is_result
from napari_attention_unet.io.readers import ENDINGS, is_image
from napari_attention_unet.io.save import SUMMARY

from .checkpoint_files import CHECKPOINT_ENDINGS, is_checkpoint
from .models import ModelStore
from .saved_result import SavedResult, read_saved
from .worker import explain, start_worker


def local_files(mime: QMimeData | None) -> list[str]:
    """Paths of the local files that are being dragged."""
    if mime is None or not mime.hasUrls():
        return []
    return [url.toLocalFile() for url in mime.urls() if url.isLocalFile()]


def kind_of(path: str) -> str:
    """``"volume"``, ``"checkpoint"``, ``"result"`` or ``""``: by ending, or what a folder holds."""
    if is_result(path) or Path(path).name == SUMMARY:
        return "result"
    if is_checkpoint(path):
        return "checkpoint"
    return "volume" if is_image(path) else ""


def unknown(paths: Sequence[str]) -> str:
    """Why these files cannot be used."""
    names = ", ".join(f"'{Path(path).name}'" for path in paths)
    return (
        f"{names}: neither a volume ({', '.join(ENDINGS)}), nor a checkpoint "
        f"({', '.join(CHECKPOINT_ENDINGS[:4])}), nor a folder of results."
    )


class Drops(QObject):
    """Opens dropped files: volumes are read on a worker thread and added to the viewer.

    Parameters
    ----------
    viewer : napari viewer
        Where volumes go.
    models : ModelStore
        With which results are looked at.
    """

    said = Signal(str, str)  #: a sentence and its role, as `RunPart.say` takes them
    checkpoint = Signal(str)  #: path of a checkpoint
    result = Signal(object)  #: a `SavedResult`, read

    def __init__(self, viewer: Any, models: ModelStore, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer, self._models = viewer, models
        self._stop = threading.Event()

    def open(self, paths: Sequence[str]) -> None:
        """Open volumes, hand on checkpoints, and say what is neither."""
        for path in paths:
            name = Path(path).name
            if kind_of(path) == "volume":
                self.said.emit(f"Opening {name} …", "dim")
                worker = start_worker(f"Attention U-Net: opening {name}", _read, path, self._stop)
                worker.returned.connect(self._on_read)
                worker.start()
            elif kind_of(path) == "result":
                self.open_result(Path(path).parent if Path(path).name == SUMMARY else Path(path))
            elif kind_of(path) == "checkpoint":
                self.checkpoint.emit(path)
        strange = [path for path in paths if not kind_of(path)]
        if strange:
            self.said.emit(unknown(strange), "error")

    def open_result(self, folder: Path) -> None:
        """Read a folder of results and emit `result`."""
        self.said.emit(f"Opening the results in {folder.name} …", "dim")
        worker = start_worker(
            f"Attention U-Net: opening {folder.name}",
            _read_result,
            folder,
            self._models,
            self._stop,
        )
        worker.returned.connect(self._on_result)
        worker.start()

    def close(self) -> None:
        """Drop whatever is still to come."""
        self._stop.set()

    def _on_result(self, answer: tuple[SavedResult | None, str]) -> None:
        if self._stop.is_set():
            return
        saved, error = answer
        if saved is None:
            self.said.emit(error, "error")
        else:
            self.result.emit(saved)

    def _on_read(self, answer: tuple[list[LayerData], str]) -> None:
        if self._stop.is_set():
            return
        data, error = answer
        try:
            layers = [Layer.create(*each) for each in data]
        except Exception as refusal:  # napari refuses what it cannot show
            error = f"napari cannot show this file: {refusal}"
        if error:
            self.said.emit(error, "error")
            return
        self.said.emit("", "dim")
        for layer in layers:
            self._viewer.add_layer(layer)


def _read(path: str, stop: threading.Event) -> Generator[None, None, tuple[list[LayerData], str]]:
    yield
    try:
        return read_layers(path), ""
    except Exception as error:  # whatever it is, the panel says it
        return [], explain(error)[0]


def _read_result(
    folder: Path, models: ModelStore, stop: threading.Event
) -> Generator[None, None, tuple[SavedResult | None, str]]:
    yield
    try:
        return read_saved(folder, models), ""
    except Exception as error:  # whatever it is, the panel says it
        return None, explain(error)[0]
