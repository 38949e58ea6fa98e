"""The probe: what the latest run says under the cursor, at pins, and along lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from napari.layers import Shapes
from qtpy.QtCore import QObject
from qtpy.QtWidgets import QMainWindow, QStatusBar, QWidget
from superqt import QElidingLabel

from napari_attention_unet.errors import InputError
from napari_attention_unet.inspect.probe import Probe, Reading
from napari_attention_unet.io.placement import index_to_world
from napari_attention_unet.volume import Vec3

from .gates_part import GatesPart
from .inspection import Inspection
from .legend import number
from .pins import Pins
from .place import Place
from .probe_part import IN_3D, NOWHERE, ProbePart, position_text
from .profile_part import DRAWN, ProfilePart
from .profile_plot import Curves
from .runs import FinishedRun

NO_LINE = "Draw a line or a path in a Shapes layer: the gates are plotted along it."
NO_POINT = "Move the cursor over the image, or pin a point."


class ProbeControl(QObject):
    """Reads the latest run at every move of the cursor.

    Parameters
    ----------
    inspection : Inspection
        With the run.
    gates, probe, profile : QWidget
        The parts that show what is read.
    """

    def __init__(
        self, inspection: Inspection, gates: GatesPart, probe: ProbePart, profile: ProfilePart
    ) -> None:
        super().__init__(inspection)
        self._inspection, self._viewer = inspection, inspection.viewer
        self._gates, self._part, self._profile = gates, probe, profile
        self._run: FinishedRun | None = None
        self._probes: dict[int, Probe] = {}
        self._status: QElidingLabel | None = None
        self._here: tuple[int, Vec3] | None = None
        self.pins = Pins(inspection, self.read)
        viewer = self._viewer
        self._events = (
            viewer.cursor.events.position,
            viewer.dims.events.point,
            viewer.dims.events.ndisplay,
        )
        for event in self._events:
            event.connect(self.move)
        inspection.runs.changed.connect(self.refresh)
        self._part.pin.toggled.connect(self.pins.set_mode)
        self._part.profile.toggled.connect(self._show_profile)
        self._profile.along.changed.connect(self._on_along)
        self.pins.changed.connect(self.plot)
        self.refresh()

    def refresh(self) -> None:
        """Follow the latest run."""
        run = self._inspection.runs.latest
        self._part.setVisible(run is not None)
        self._profile.setVisible(run is not None and self._part.profile.isChecked())
        if run is self._run:
            return
        self._run, self._here = run, None
        self._probes.clear()
        self.pins.set_run(run)
        if run is None:
            self._show(None)
            return
        first = run.predictions[0]
        self._part.set_classes(first.classes, first.probabilities is not None)
        self.move()

    def read(self, position: Sequence[float]) -> tuple[int, Vec3, Reading] | None:
        """What the latest run says at a position of the viewer's world.

        Returns
        -------
        time : int
            Which of the time points that were run.
        voxel : tuple of float
            Of the volume that was run (z, y, x).
        reading : Reading
            None is returned outside the volume, and at a time point that was not run.
        """
        place = self._place()
        found = None if place is None else place.voxel(position)
        if found is None:
            return None
        time, voxel = found
        probe = self._probe(time)
        reading = None if probe is None else probe.at(voxel)
        return None if reading is None else (time, voxel, reading)

    def move(self, event: object = None) -> None:
        """Read what is under the cursor and show it everywhere."""
        if self._run is None:
            return
        if self._viewer.dims.ndisplay != 2:
            self._show(None, IN_3D)
            return
        dims = self._viewer.dims
        position = list(self._viewer.cursor.position)
        if len(position) != dims.ndim:
            return
        for axis in dims.not_displayed:  # the cursor keeps the slice of its last move
            position[axis] = dims.point[axis]
        found = self.read(position)
        self._here = None if found is None else found[:2]
        self._show(None if found is None else found[2])
        if self.pins.current is None:
            self.plot()

    def plot(self) -> None:
        """Plot the gates along the chosen line, if the plot is in sight."""
        if self._run is None or not self._part.profile.isChecked():
            return
        try:
            self._profile.plot.show_curves(*self._curves())
        except InputError as error:  # the line lies outside the volume
            self._profile.plot.show_curves(None, str(error))

    def close(self) -> None:
        """Let go of the viewer."""
        for event in self._events:
            event.disconnect(self.move)
        self.pins.close()
        self._remove_status()
        self._run = None
        self._probes.clear()

    # --- what is read ---------------------------------------------------------------------------

    def _place(self) -> Place | None:
        return None if self._run is None else self._inspection.runs.place(self._run)

    def _probe(self, time: int) -> Probe | None:
        if self._run is None or time >= len(self._run.predictions):
            return None
        if time not in self._probes:
            self._probes[time] = Probe(self._run.predictions[time])
        return self._probes[time]

    def _curves(self) -> tuple[Curves | None, str]:
        assert self._run is not None
        along = self._profile.along.value
        if along == DRAWN:
            line = self._drawn_line()
            probe = None if line is None else self._probe(line[0])
            if line is None or probe is None:
                return None, NO_LINE
            table, here = probe.along(line[1]), None
        else:
            point = self.pins.current or self._here
            probe = None if point is None else self._probe(point[0])
            if point is None or probe is None:
                return None, NO_POINT
            axis = "zyx".index(along)
            table = probe.profile(point[1], axis)
            here = float(np.interp(point[1][axis], table["zyx"[axis]], table["distance"]))
        classes = self._run.predictions[0].classes
        colours = [
            classes[label].color if 0 < label < len(classes) else None for label in table["label"]
        ]
        values = {name: table[column].to_numpy() for name, column in table.attrs["gates"].items()}
        axis_name = f"distance ({table.attrs['units']})"
        return Curves(table["distance"].to_numpy(), values, colours, axis_name, here), ""

    def _drawn_line(self) -> tuple[int, list[Vec3]] | None:
        """Time and voxels of the line that was drawn last, or is selected."""
        place = self._place()
        for layer in reversed(self._viewer.layers):
            if place is None or not isinstance(layer, Shapes):
                continue
            lines = [i for i, kind in enumerate(layer.shape_type) if kind in ("line", "path")]
            chosen = [i for i in lines if i in layer.selected_data] or lines[-1:]
            if not chosen:
                continue
            found = [place.voxel(self._world(layer, p)) for p in layer.data[chosen[-1]]]
            inside = [each for each in found if each is not None]
            if inside and len(inside) == len(found):
                return inside[0][0], [voxel for _, voxel in inside]
        return None

    def _world(self, layer: Any, point: Any) -> list[float]:
        """World position of a shape's corner; the slice on display where it has no place."""
        matrix = index_to_world(layer)
        own = matrix[:-1, :-1] @ np.asarray(point, np.float64) + matrix[:-1, -1]
        position = list(self._viewer.dims.point)
        position[len(position) - len(own) :] = own.tolist()
        return position

    # --- what is shown --------------------------------------------------------------------------

    def _show(self, reading: Reading | None, instead: str = NOWHERE) -> None:
        self._part.show_reading(reading, instead)
        self._gates.show_reading(reading.coefficients if reading is not None else None)
        label = self._label()
        if label is not None:
            label.setText("" if reading is None else status_text(reading))
            label.setVisible(self._run is not None)

    def _label(self) -> QElidingLabel | None:
        """The label in the window's status bar.

        napari writes to its own line there from a thread, at every move.
        """
        bar = _status_bar(self._part)
        if self._status is None and bar is not None:
            self._status = QElidingLabel()
            self._status.setObjectName("attention_unet_status")
            self._status.setToolTip(
                "Attention coefficient of every gate, class and position under the cursor"
            )
            self._status.setMinimumWidth(min(620, bar.width() // 2))
            bar.insertPermanentWidget(1, self._status)  # left of the activity button
        return self._status

    def _remove_status(self) -> None:
        label, self._status = self._status, None
        if label is not None:
            bar = _status_bar(self._part)
            if bar is not None:
                bar.removeWidget(label)
            label.setParent(None)
            label.deleteLater()

    def _show_profile(self, shown: bool) -> None:
        self._profile.setVisible(shown)
        self.plot()

    def _on_along(self, along: str) -> None:
        if along == DRAWN and not any(isinstance(x, Shapes) for x in self._viewer.layers):
            self._add_line_layer()
        self.plot()

    def _add_line_layer(self) -> None:
        place = self._place()
        if place is None:
            return
        arguments = place.arguments()
        layer = Shapes(
            ndim=len(place.ratio),
            name="profile line",
            units=arguments["units"],
            axis_labels=arguments["axis_labels"],
            edge_color="#4fc3f7",
            edge_width=float(np.abs(arguments["scale"]).min()),
        )
        self._viewer.add_layer(layer)
        layer.mode = "add_line"


def status_text(reading: Reading) -> str:
    """``"att4 0.55 · att3 0.62 | white matter 0.92 | −18.2, 0.0, 12.0 mm"``."""
    gates = " · ".join(f"{name} {number(v)}" for name, v in reading.coefficients.items())
    said = reading.class_name
    if reading.probabilities is not None and said in reading.probabilities:
        said += f" {reading.probabilities[said]:.2f}"
    return "  |  ".join(text for text in (gates, said, position_text(reading)) if text)


def _status_bar(widget: QWidget) -> QStatusBar | None:
    parent = widget.parent()
    while parent is not None and not isinstance(parent, QMainWindow):
        parent = parent.parent()
    return None if parent is None else parent.statusBar()
