"""A training's checkpoints, run one after the other; layers whose slider goes through them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Layer
from platformdirs import user_cache_path
from qtpy.QtCore import QObject

from napari_attention_unet.errors import InputError
from napari_attention_unet.inspect.table import csv_text
from napari_attention_unet.io.layers import GATE_COLORMAP, RESULT_KEY
from napari_attention_unet.io.placement import index_to_world, layer_axes, spatial_part
from napari_attention_unet.settings import Settings
from napari_attention_unet.volume import Part, Vec3, scale_translate

from . import tasks
from .history_part import HistoryPart
from .image_part import ImagePart
from .inspection import Inspection
from .outcome import Said
from .profile_plot import Curves
from .results import KEPT

if TYPE_CHECKING:
    from napari_attention_unet.inspect.history import History

ROLE = "history"
NO_FOLDER = "Choose a folder of checkpoints first."
RESUMES = (
    "Run every checkpoint that is not run yet; results are kept on disk, so a history that was\n"
    "cancelled goes on where it stopped"
)


class HistoryControl(QObject):
    """Connects the tab with the image and the viewer.

    Parameters
    ----------
    inspection : Inspection
        For long work.
    part : HistoryPart
        The tab.
    image : ImagePart
        With the image to run.
    settings : callable
        Gives the settings of a run.
    """

    def __init__(
        self,
        inspection: Inspection,
        part: HistoryPart,
        image: ImagePart,
        settings: Callable[[], Settings],
    ) -> None:
        super().__init__(inspection)
        self._inspection, self._viewer = inspection, inspection.viewer
        self._part, self._image, self._settings = part, image, settings
        self._history: History | None = None
        inspection.changed.connect(self.refresh)
        inspection.layers_changed.connect(self._on_layers)
        image.refreshed.connect(self.refresh)
        part.changed.connect(self.refresh)
        part.run.clicked.connect(self.run)
        part.plot_changed.connect(self.plot)
        self._event = self._viewer.dims.events.point
        self._event.connect(self.plot)
        self.refresh()

    def refresh(self) -> None:
        """Say whether the checkpoints can be run, and if not, why."""
        problem = self._problem()
        self._part.run.setEnabled(not problem)
        self._part.run.setToolTip(problem or RESUMES)

    def run(self) -> None:
        """Run the checkpoints of the folder on the image."""
        layer = self._image.layer
        if self._problem() or layer is None:
            return
        try:
            volume, settings = self._image.volume(), self._settings()
        except (InputError, ValueError) as error:
            self._part.note.say(str(error), "error")
            return
        part, leading = volume.part, self._image.leading
        self._part.note.say("")
        self._inspection.start(
            "The history",
            lambda found: self._on_history(found, layer, leading, part),
            tasks.follow_training,
            self._part.path,
            volume,
            settings,
            user_cache_path("napari-attention-unet") / "history",
        )

    def plot(self, event: object = None) -> None:
        """Plot the chosen measure of the chosen class over the checkpoints."""
        history = self._history
        if history is None or self._part.region.value is None:
            return
        table = history.measures
        table = table[table["region"] == self._part.region.value]
        column = self._part.measure.value
        numbers = np.asarray(history.numbers, np.float64)
        values = {
            gate: rows.set_index("epoch")[column].reindex(numbers).to_numpy(np.float64)
            for gate, rows in table.groupby("gate", sort=False)
        }
        if not values:
            self._part.plot.show_curves(None, "There is no gate to plot.")
            return
        here = float(numbers[self._shown()])
        curves = Curves(numbers, values, [None] * len(numbers), history.word, here)
        self._part.plot.show_curves(curves)
        if event is None:  # the table does not follow the slider
            self._part.show_table(table, history.word, lambda _: csv_text(history.measures))

    def close(self) -> None:
        """Let go of the viewer."""
        self._event.disconnect(self.plot)
        self._history = None

    # --- what may be done -----------------------------------------------------------------------

    def _problem(self) -> str:
        if self._inspection.busy:
            return self._inspection.busy
        if not self._part.path:
            return NO_FOLDER
        if not Path(self._part.path).is_dir():
            return f"There is no folder '{self._part.path}'."
        try:
            self._image.volume()
        except InputError as error:
            return str(error)
        return ""

    def _shown(self) -> int:
        """Index of the checkpoint on display."""
        layers = self._layers()
        if not layers or self._history is None:
            return 0
        layer = layers[-1]
        if len(self._viewer.dims.point) < layer.ndim:
            return 0
        index = layer.world_to_data(self._viewer.dims.point[-layer.ndim :])[0]
        return int(np.clip(round(float(index)), 0, len(self._history.numbers) - 1))

    def _layers(self) -> list[Any]:
        return [
            layer
            for layer in self._viewer.layers
            if layer.metadata.get(RESULT_KEY, {}).get("role") == ROLE
        ]

    def _on_layers(self) -> None:
        """The history goes with its layers: it holds their maps."""
        if self._history is not None and not self._layers():
            self._history = None
            self._part.clear()

    # --- what comes back ------------------------------------------------------------------------

    def _on_history(self, found: tasks.Followed, source: Any, leading: Any, part: Part) -> Said:
        history = found.history
        for layer in self._layers():
            self._viewer.layers.remove(layer)
        last = history.predictions[-1]
        run = self._inspection.runs.latest
        for layer in self._inspection.runs.layers(run) if run is not None else ():
            layer.visible = False
        about = {"role": ROLE, "source_id": str(source.unique_id), KEPT: True}
        place = _Place(source, leading, part, history)
        colours: dict[int | None, str] = {None: "#808080", 0: "transparent"}
        colours |= {i: c.color for i, c in enumerate(last.classes) if i > 0}
        self._viewer.add_layer(
            Layer.create(
                history.masks,
                {
                    **place((1.0, 1.0, 1.0), (0.0, 0.0, 0.0)),
                    "name": f"{history.word}s · mask",
                    "colormap": colours,
                    "opacity": 0.5,
                    "blending": "translucent_no_depth",
                    "metadata": {RESULT_KEY: {**last.provenance, **about, "gate": ""}},
                },
                "labels",
            )
        )
        for gate in history.gates:
            layer = Layer.create(
                gate.maps,
                {
                    **place(gate.scale, gate.translate),
                    "name": f"{history.word}s · {gate.name}",
                    "colormap": GATE_COLORMAP,
                    "blending": "translucent_no_depth",
                    "interpolation2d": "linear",
                    "contrast_limits": found.limits[gate.name],
                    "visible": gate.name == found.telling,
                    "metadata": {RESULT_KEY: {**last.provenance, **about, "gate": gate.name}},
                },
                "image",
            )
            self._viewer.add_layer(layer)
        self._history = history
        regions = list(dict.fromkeys(history.measures["region"]))
        skipped = [f"{path.name}: {why}" for path, why in history.skipped]
        self._part.show_history(regions, "\n".join(skipped))
        self.plot()
        count = len(history.numbers)
        said = f"{count} checkpoints from {history.word} {history.numbers[0]:g} to"
        return Said(f"{said} {history.numbers[-1]:g}", "good", "\n".join(skipped))


class _Place:
    """Puts (checkpoint, z, y, x) over the layer that was run, with an axis of checkpoints."""

    def __init__(self, source: Any, leading: Any, part: Part, history: History) -> None:
        axes = layer_axes(source, leading)
        spatial = list(axes.spatial)
        world = spatial_part(index_to_world(source), axes, part.time_index)
        self._matrix = world @ scale_translate(part.step, part.origin)
        self._units = ("pixel", *(source.units[axis] for axis in spatial))
        self._labels = (history.word, *(source.axis_labels[axis] for axis in spatial))
        steps = np.diff(history.numbers)
        even = len(steps) > 0 and bool(np.allclose(steps, steps[0]))
        # the slider then shows the checkpoints' own numbers, else their places
        self._first = float(history.numbers[0]) if even else 0.0
        self._step = float(steps[0]) if even else 1.0

    def __call__(self, scale: Vec3, translate: Vec3) -> dict[str, Any]:
        matrix = self._matrix @ scale_translate(scale, translate)
        linear, offset = matrix[:3, :3], matrix[:3, 3]
        arguments: dict[str, Any] = {"units": self._units, "axis_labels": self._labels}
        if np.allclose(linear, np.diag(np.diag(linear))):  # what 2D slices need
            arguments["scale"] = (self._step, *np.diag(linear))
            arguments["translate"] = (self._first, *offset)
            return arguments
        affine = np.eye(5)
        affine[1:4, 1:4], affine[1:4, 4] = linear, offset
        affine[0, 0], affine[0, 4] = self._step, self._first
        return arguments | {"affine": affine}
