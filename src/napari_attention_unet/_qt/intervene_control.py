"""Interventions: gates are set, the network runs again, and the viewer shows what changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pandas import DataFrame
from qtpy.QtCore import QObject

from napari_attention_unet.errors import InputError
from napari_attention_unet.inspect.difference import DIFFERENCE, FOREGROUND
from napari_attention_unet.prediction import GateMap

from . import tasks
from .inspection import GONE, Inspection
from .intervene_part import IntervenePart
from .outcome import Said
from .results import KEPT
from .runs import NO_RUN, FinishedRun
from .switch_row import COMPUTED, PAINTED, ROLE

if TYPE_CHECKING:
    from napari_attention_unet.inspect.baseline import Baseline
    from napari_attention_unet.inspect.interventions import Intervention

#: Colours of the difference layer: unchanged, gained, lost, of another class.
DIFFERENCE_COLOURS = {
    None: "#808080",
    0: "transparent",
    1: "#9e9e9e",
    2: "#2fc59a",
    3: "#e0559b",
    4: "#f0c419",
}
_PAINT = {None: "#808080", 0: "transparent", 1: "#e0559b", 2: "#2fc59a"}
NOTHING_SET = "Set a gate to something other than as computed first."


class InterveneControl(QObject):
    """Connects the tab with the latest run.

    Parameters
    ----------
    inspection : Inspection
        With the run.
    part : IntervenePart
        The tab.
    """

    def __init__(self, inspection: Inspection, part: IntervenePart) -> None:
        super().__init__(inspection)
        self._inspection, self._viewer, self._part = inspection, inspection.viewer, part
        self._run: FinishedRun | None = None
        self._baseline: tuple[int, Baseline] | None = None  # of a time point
        self.ablation: DataFrame | None = None  #: of the latest run, once it is made
        self._asked: dict[str, str] = {}
        inspection.changed.connect(self.refresh)
        inspection.layers_changed.connect(part.refresh)
        part.changed.connect(self._allow)
        part.asked.connect(self._add_paint)
        part.run.clicked.connect(self.run)
        part.ablate.clicked.connect(self.ablate)
        part.free.clicked.connect(self.free)
        self.refresh()

    def refresh(self) -> None:
        """Follow the latest run and what is under way."""
        run = self._inspection.runs.latest
        if run is not self._run:
            self._run = run
            self._baseline = self.ablation = None
            self._part.set_prediction(None if run is None else run.predictions[0])
        self._allow()

    def run(self) -> None:
        """Run the network with the gates as they are set."""
        run = self._run
        if run is None or self._problem():
            return
        set_rows = [row for row in self._part.rows if row.switch.value != COMPUTED]
        changed = {row.gate.name: row.value for row in set_rows}
        self._asked = {row.gate.name: row.switch.current_choice for row in self._part.rows}
        time = self._inspection.time_on_display(run)
        self._inspection.start(
            "The run with these gates",
            lambda found: self._on_intervention(run, time, *found),
            tasks.intervene,
            self._inspection.models,
            run.request,
            time,
            self._kept(time),
            changed,
        )

    def ablate(self) -> None:
        """Change every gate by itself."""
        run = self._run
        if run is None or self._inspection.busy:
            return
        time = self._inspection.time_on_display(run)
        layer = self._part.reference.value
        try:
            reference = None if layer is None else self._inspection.labels_for(run, layer, time)
        except InputError as error:
            self._part.ablation_note.say(str(error), "error")
            return
        self._inspection.start(
            "The ablation",
            lambda found: self._on_ablation(run, time, *found),
            tasks.ablate,
            self._inspection.models,
            run.request,
            time,
            self._kept(time),
            reference,
        )

    def free(self) -> None:
        """Let go of what makes further changes quick."""
        self._baseline = None
        self._part.show_held("")

    def close(self) -> None:
        """Let go of everything."""
        self._baseline = self._run = self.ablation = None

    # --- what may be done -----------------------------------------------------------------------

    def _allow(self) -> None:
        problem = self._problem()
        part = self._part
        part.run.setEnabled(not problem)
        part.run.setToolTip(
            problem
            or "Run the network with the gates set so; adds a layer of what was gained and lost"
        )
        blocked = NO_RUN if self._run is None else self._run.closed or self._inspection.busy
        part.ablate.setEnabled(not blocked)
        part.ablate.setToolTip(
            blocked or "Run the network with each gate closed, open and at its mean"
        )
        part.back.setEnabled(any(row.switch.value != COMPUTED for row in part.rows))

    def _problem(self) -> str:
        if self._run is None:
            return NO_RUN
        if blocked := self._run.closed or self._inspection.busy:
            return blocked
        rows = self._part.rows
        if all(row.switch.value == COMPUTED for row in rows):
            return NOTHING_SET
        return next((row.problem for row in rows if row.problem), "")

    def _kept(self, time: int) -> Baseline | None:
        return self._baseline[1] if self._baseline and self._baseline[0] == time else None

    # --- what comes back ------------------------------------------------------------------------

    def _on_intervention(
        self, run: FinishedRun, time: int, baseline: Baseline, found: Intervention
    ) -> Said:
        place = self._inspection.runs.place(run)
        if run is not self._run or place is None:
            return GONE
        self._keep(time, baseline)
        set_to = [f"{name} {said}" for name, said in self._asked.items() if said != "as computed"]
        for layer in self._inspection.runs.layers(run, "difference"):
            layer.visible = False
        names = ["background", *DIFFERENCE.values()]
        self._inspection.add_layer(
            run,
            "difference",
            place.expand(found.difference),
            "labels",
            {
                **place.arguments(time=time),
                "name": f"{', '.join(set_to)} · difference",
                "colormap": DIFFERENCE_COLOURS,
                "features": {"index": list(range(len(names))), "change": names},
                "opacity": 0.6,
                "blending": "translucent_no_depth",
                "metadata": {"set": self._asked},
            },
        )
        self._part.show_volumes(found.volumes)
        row = found.volumes[found.volumes["class"] == FOREGROUND].iloc[0]
        said = f"{', '.join(set_to)}: Dice {row['dice']:.3f} against the mask as computed"
        return Said(said, "good", baseline.note)

    def _on_ablation(
        self, run: FinishedRun, time: int, baseline: Baseline, table: DataFrame
    ) -> Said:
        if run is not self._run:
            return GONE
        self._keep(time, baseline)
        self.ablation = table
        self._part.show_ablation(table, ablation_sentence(table))
        return Said("The ablation is done", "good", baseline.note)

    def _keep(self, time: int, baseline: Baseline) -> None:
        self._baseline = (time, baseline)
        self._part.show_held(baseline.note if baseline.held else "")

    def _add_paint(self, gate: GateMap) -> None:
        """Add a Labels layer on a gate's grid, ready to be painted."""
        run = self._run
        place = None if run is None else self._inspection.runs.place(run)
        if run is None or place is None:
            return
        time = self._inspection.time_on_display(run)
        layer = self._inspection.add_layer(
            run,
            ROLE,
            place.expand(np.zeros(gate.coefficients.shape, np.uint8)),
            "labels",
            {
                **place.arguments(gate.scale, gate.translate, time),
                "name": f"paint {gate.name}: 1 closed, 2 open",
                "colormap": _PAINT,
                "opacity": 0.6,
                "metadata": {"gate": gate.name, KEPT: True},
            },
        )
        layer.mode = "paint"
        layer.brush_size = max(1, min(10, min(n for n in gate.coefficients.shape if n > 1) // 4))
        for row in self._part.rows:
            if row.gate is gate:
                row.switch.value = PAINTED
                row.layer.refresh()
                row.layer.value = layer


def ablation_sentence(table: DataFrame) -> str:
    """What an ablation says, in one sentence."""
    from napari_attention_unet.inspect.ablation import most_needed

    name = most_needed(table)
    if name is None:
        return "The mask is empty, so there is nothing that a gate could carry."
    closed = table[(table["class"] != FOREGROUND) & (table["switch"] == "closed")]
    dice = float(closed.loc[closed["gate"] == name, "dice"].mean())
    if dice > 0.99:
        return f"Closing any one gate hardly changes the mask: Dice {dice:.3f} or more."
    return f"The mask needs {name} most: closed, it leaves a mean Dice over classes of {dice:.3f}."
