"""Seg-Grad-CAM and the sanity check of the latest run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pandas import DataFrame
from qtpy.QtCore import QObject

from napari_attention_unet.errors import InputError

from . import tasks
from .checks_part import GradCamFold, SanityFold
from .inspection import GONE, Inspection
from .outcome import Said
from .runs import NO_RUN, FinishedRun

if TYPE_CHECKING:
    from napari_attention_unet.inspect.gradcam import GradCam

#: From clear to green: told at a glance from the maps of the gates.
_GRADIENT = {
    "name": "gradient",
    "colors": [[0.05, 0.3, 0.35, 0.0], [0.1, 0.75, 0.55, 0.45], [0.75, 1.0, 0.5, 0.75]],
}
NO_GATES = "This network has no attention gate."


class ChecksControl(QObject):
    """Connects the two folds with the latest run."""

    def __init__(self, inspection: Inspection, gradcam: GradCamFold, sanity: SanityFold) -> None:
        super().__init__(inspection)
        self._inspection, self._gradcam, self._sanity = inspection, gradcam, sanity
        self._run: FinishedRun | None = None
        inspection.changed.connect(self.refresh)
        inspection.layers_changed.connect(gradcam.region.refresh)
        gradcam.run.clicked.connect(self.map_gradient)
        sanity.run.clicked.connect(self.check_sanity)
        self.refresh()

    def refresh(self) -> None:
        """Follow the latest run and what is under way."""
        run = self._inspection.runs.latest
        if run is not self._run:
            self._run = run
            classes = () if run is None else run.predictions[0].classes[1:]
            self._gradcam.set_classes([info.name for info in classes])
            self._sanity.clear()
        missing = NO_RUN if run is None else run.closed if run.gates else NO_GATES
        for fold, tip in (
            (self._gradcam, "Add a gradient map on the grid of every gate, and compare"),
            (self._sanity, "Compare every gate's map with those of a network of shuffled weights"),
        ):
            fold.setVisible(run is not None)
            problem = missing or self._inspection.busy
            fold.run.setEnabled(not problem)
            fold.run.setToolTip(problem or tip)

    def map_gradient(self) -> None:
        """Make Seg-Grad-CAM maps of the chosen class."""
        run = self._run
        if run is None or self._inspection.busy:
            return
        time = self._inspection.time_on_display(run)
        layer = self._gradcam.region.value
        try:
            region = None if layer is None else self._inspection.labels_for(run, layer, time)
        except InputError as error:
            self._gradcam.note.say(str(error), "error")
            return
        self._inspection.start(
            "Seg-Grad-CAM",
            lambda found: self._on_gradient(run, time, found),
            tasks.gradcam,
            self._inspection.models,
            run.request,
            time,
            run.predictions[time],
            self._gradcam.target.value,
            region,
        )

    def check_sanity(self) -> None:
        """Shuffle the weights."""
        run = self._run
        if run is None or self._inspection.busy:
            return
        time = self._inspection.time_on_display(run)
        self._inspection.start(
            "The sanity check",
            lambda table: self._on_sanity(run, table),
            tasks.sanity,
            self._inspection.models,
            run.request,
            time,
            run.predictions[time],
        )

    def _on_gradient(self, run: FinishedRun, time: int, found: GradCam) -> Said:
        place = self._inspection.runs.place(run)
        if run is not self._run or place is None:
            return GONE
        correlations = dict(zip(found.table["gate"], found.table["rank_correlation"], strict=True))
        best = max(correlations, key=lambda name: abs(np.nan_to_num(correlations[name])))
        for gate in found.maps:
            layer = self._inspection.add_layer(
                run,
                "gradcam",
                place.expand(gate.coefficients),
                "image",
                {
                    **place.arguments(gate.scale, gate.translate, time),
                    "name": f"Seg-Grad-CAM {found.target} · {gate.name} · {gate.label}",
                    "colormap": _GRADIENT,
                    "blending": "translucent_no_depth",
                    "interpolation2d": "linear",
                    "contrast_limits": (0.0, 1.0),
                    "visible": False,
                    "metadata": {"gate": gate.name, "class": found.target},
                },
            )
            if gate.name == best:
                shown = layer
        for layer in self._inspection.runs.layers(run, "gate"):
            layer.visible = False  # two heat maps on one another say nothing
        shown.visible = True
        self._inspection.viewer.layers.selection.active = shown
        self._gradcam.show_table(found.table)
        self._gradcam.note.say(found.note)
        said = f"{found.target}: {best} agrees most with the gradient"
        return Said(f"{said} (rank correlation {correlations[best]:.2f})", "good", found.note)

    def _on_sanity(self, run: FinishedRun, table: DataFrame) -> Said:
        from napari_attention_unet.inspect.sanity import ignores_weights

        if run is not self._run:
            return GONE
        self._sanity.show_table(table)
        alike = [name for name, ignores in ignores_weights(table).items() if ignores]
        if alike:
            said = f"{', '.join(alike)} stays alike with shuffled weights: it ignores them."
            self._sanity.note.say(said, "warning")
            return Said(said.rstrip("."), "warning")
        said = "Every map depends on the weights: none stays alike when they are shuffled."
        self._sanity.note.say(said, "good")
        return Said("Every map depends on the weights", "good")
