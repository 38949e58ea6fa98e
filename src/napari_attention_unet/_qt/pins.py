"""Points that the person keeps: a Points layer with what was read there as its features."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from napari.layers import Points
from qtpy.QtCore import QObject, Signal

from napari_attention_unet.inspect.probe import Reading
from napari_attention_unet.io.layers import RESULT_KEY
from napari_attention_unet.volume import Vec3

from .inspection import Inspection
from .results import KEPT
from .runs import FinishedRun

ROLE = "pins"
Read = Callable[[Sequence[float]], tuple[int, Vec3, Reading] | None]


class Pins(QObject):
    """Pins points of the latest run at a click.

    Parameters
    ----------
    inspection : Inspection
        With the run.
    read : callable
        As `ProbeControl.read`.
    """

    changed = Signal()  #: another pin is the current one

    def __init__(self, inspection: Inspection, read: Read) -> None:
        super().__init__(inspection)
        self._inspection, self._viewer, self._read = inspection, inspection.viewer, read
        self._run: FinishedRun | None = None
        self._mode = False
        self._current: tuple[int, Vec3] | None = None
        self._viewer.mouse_drag_callbacks.append(self._on_press)

    @property
    def current(self) -> tuple[int, Vec3] | None:
        """Time and voxel of the last pin, while its layer is there."""
        return self._current if self._current is not None and self._layer() is not None else None

    def set_run(self, run: FinishedRun | None) -> None:
        """Follow the latest run; pins of an earlier one stay as they are."""
        self._run, self._current = run, None

    def set_mode(self, on: bool) -> None:
        """Whether every click pins."""
        self._mode = on

    def close(self) -> None:
        """Let go of the viewer."""
        self._viewer.mouse_drag_callbacks.remove(self._on_press)
        self._run = None

    def add(self, position: Sequence[float]) -> bool:
        """Pin a position of the viewer's world; False outside the volume."""
        found = self._read(position)
        run = self._run
        place = None if run is None else self._inspection.runs.place(run)
        if found is None or run is None or place is None:
            return False
        time, voxel, reading = found
        data = np.zeros((1, len(place.ratio)))
        if place.axes.time is not None:
            data[0, place.axes.time] = time
        data[0, list(place.axes.spatial)] = voxel
        row = pd.DataFrame([features(reading)])
        layer = self._layer()
        if layer is None:
            active = self._viewer.layers.selection.active
            about = {"role": ROLE, "run": run.key, "source_id": run.source_id, KEPT: True}
            layer = Points(
                data,
                name=f"{run.title} · pins",
                features=row,
                size=3,
                face_color="#4fc3f7",
                border_color="#ffffff",
                metadata={RESULT_KEY: {**run.predictions[0].provenance, **about}},
                **place.arguments(),
            )
            self._viewer.add_layer(layer)
            if active is not None:
                self._viewer.layers.selection.active = active
        else:
            kept = layer.features
            layer.add(data)
            layer.features = pd.concat([kept, row], ignore_index=True)
        self._current = (time, voxel)
        self.changed.emit()
        return True

    def _layer(self) -> Any | None:
        found = [] if self._run is None else self._inspection.runs.layers(self._run, ROLE)
        return found[0] if found else None

    def _on_press(self, _viewer: Any, event: Any) -> Generator[None, None, None]:
        """Pin where the button goes up without having moved: a drag moves the camera."""
        asked = self._mode or set(event.modifiers) == {"Shift"}
        active = self._viewer.layers.selection.active
        if not asked or event.button != 1 or self._viewer.dims.ndisplay != 2:
            return
        if active is not None and str(active.mode) not in ("pan_zoom", "transform"):
            return  # the click paints, draws or selects
        position = tuple(event.position)
        yield
        while event.type == "mouse_move":
            if np.linalg.norm(np.subtract(event.position, position)) * event.camera_zoom > 4:
                return
            yield
        self.add(position)


def features(reading: Reading) -> dict[str, Any]:
    """What a pin keeps of a reading, by column."""
    kept: dict[str, Any] = dict(reading.coefficients)
    kept |= {"label": reading.label, "class": reading.class_name}
    for name, value in (reading.probabilities or {}).items():
        kept[f"p {name}"] = value
    for axis, value in zip("zyx", reading.world, strict=True):
        kept[f"{axis} ({reading.units})"] = value
    return kept
