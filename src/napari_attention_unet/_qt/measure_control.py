"""Measures of the latest run: made on threads, shown when they are still wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pandas import DataFrame
from qtpy.QtCore import QObject

from napari_attention_unet.errors import InputError
from napari_attention_unet.inspect.measures import flag_words
from napari_attention_unet.inspect.table import label_features

from . import tasks
from .inspection import Inspection
from .jobs import Ended, Job
from .measure_part import MeasurePart
from .runs import NO_RUN, FinishedRun
from .style import Palette

if TYPE_CHECKING:
    from napari_attention_unet.inspect.reference import ReferenceComparison

ONE_TIME = "Features belong to the labels of one volume; a series has its table alone."
ONE_REGION = "The whole foreground has no label of its own; measure classes or objects."
NO_MASK = "The mask was removed from the viewer, or the run did not add it."


class MeasureControl(QObject):
    """Connects the tab with the latest run; it measures once the tab is looked at.

    Parameters
    ----------
    inspection : Inspection
        With the run.
    part : MeasurePart
        The tab.
    """

    def __init__(self, inspection: Inspection, part: MeasurePart) -> None:
        super().__init__(inspection)
        self._inspection, self._part = inspection, part
        self._run: FinishedRun | None = None
        self._table: tuple[str, DataFrame] | None = None
        self.comparison: ReferenceComparison | None = None  #: with the chosen reference
        self._measured: Any = None
        self._compared: Any = None
        self._plotted: Any = None
        self._palette: Palette | None = None
        self._measuring, self._comparing, self._plotting = Job(self), Job(self), Job(self)
        self._numbering = Job(self)
        self._measuring.ended.connect(self._on_measures)
        self._comparing.ended.connect(self._on_comparison)
        self._plotting.ended.connect(self._on_plot)
        self._numbering.ended.connect(self._on_objects)
        inspection.runs.changed.connect(self.refresh)
        inspection.layers_changed.connect(self._on_layers)
        part.shown.connect(self.refresh)
        for control in (part.by, part.what, part.reference):
            control.changed.connect(self.refresh)
        part.features.clicked.connect(self.put_features)
        self.refresh()

    def refresh(self) -> None:
        """Measure what is not measured yet, if the tab is in sight."""
        part, run = self._part, self._inspection.runs.latest
        if run is not self._run:
            self._run, self._table, self.comparison = run, None, None
            self._measured = self._compared = self._plotted = None
            for job in (self._measuring, self._comparing, self._plotting, self._numbering):
                job.abandon()
            part.show_run(run is not None)
        self._allow_features()
        part.allow_regions(part.by.value != "object")
        if run is None or not part.isVisible():
            return
        if self._measured != part.by.value:
            self._measured, self._table = part.by.value, None
            part.note.say("Measuring …")
            self._measuring.start("measuring", tasks.measure, run.predictions, part.by.value)
        self._compare(run)
        self._plot(run)

    def set_palette(self, palette: Palette) -> None:
        """Follow napari's theme."""
        self._palette, self._plotted = palette, None
        self.refresh()

    def put_features(self) -> None:
        """Put the table into the features of the labels that it is of."""
        if self._table is None or self._run is None or self._features_problem():
            return
        by, table = self._table
        if by == "object":
            mask = self._run.predictions[0].mask
            self._numbering.start("numbering objects", tasks.number_objects, mask)
            return
        (mask_layer,) = self._inspection.runs.layers(self._run, "mask")
        mask_layer.features = label_features(table).rename(columns={"region": "class"})
        self._inspection.said.emit(
            f"The features of '{mask_layer.name}' have the measures of every class.", "good", ""
        )

    def close(self) -> None:
        """Drop whatever is still to come."""
        for job in (self._measuring, self._comparing, self._plotting, self._numbering):
            job.abandon()
        self._run = self._table = self.comparison = None

    # --- what is asked for ----------------------------------------------------------------------

    def _compare(self, run: FinishedRun) -> None:
        layer = self._part.reference.value
        if layer is None:
            self._comparing.abandon()
            self._compared = self.comparison = None
            self._part.show_reference()
            return
        time = self._inspection.time_on_display(run)
        if self._compared == (layer, time):
            return
        self._compared, self.comparison = (layer, time), None
        try:
            labels, matrix = self._inspection.labels_for(run, layer, time)
        except InputError as error:
            self._part.show_reference(problem=str(error))
            return
        self._part.show_reference(problem="")
        self._part.reference_note.say("Comparing …")
        self._comparing.start(
            "comparing with labels",
            tasks.compare_with_labels,
            run.predictions[time],
            labels,
            matrix,
        )

    def _plot(self, run: FinishedRun) -> None:
        """Draw the chosen plot, as wide as the tab."""
        what, time = self._part.what.value, self._inspection.time_on_display(run)
        table = None if self._table is None else self._table[1]
        if what == "inside":
            if table is None:
                return
            if "time_point" in table:
                table = table[table["time_point"] == time]
        wanted = (what, time, None if what == "histogram" else self._measured, self._part.width())
        if self._palette is None or wanted == self._plotted:
            return
        self._plotted = wanted
        look = self._part.plot.look(self._palette, self._part.width())
        self._plotting.start(
            "plotting", tasks.plot_measures, what, run.predictions[time], table, look
        )

    def _features_problem(self) -> str:
        if self._run is None:
            return NO_RUN
        if len(self._run.predictions) > 1:
            return ONE_TIME
        if self._part.by.value == "foreground":
            return ONE_REGION
        if self._part.by.value == "class" and not self._inspection.runs.layers(self._run, "mask"):
            return NO_MASK
        return "" if self._table is not None else "The measures are not there yet."

    def _allow_features(self) -> None:
        problem = self._features_problem()
        self._part.features.setEnabled(not problem)
        self._part.features.setToolTip(
            problem
            or "Put volume and coefficients of every class into the features of the mask's layer;\n"
            "of objects, add a layer that numbers them"
        )

    def _on_layers(self) -> None:
        self._part.reference.refresh()
        self._allow_features()

    # --- what comes back ------------------------------------------------------------------------

    def _on_measures(self, ended: Ended) -> None:
        if self._run is None:
            return
        self._part.note.say(ended.error, "error")
        if ended.result is None:
            return
        self._table = (self._measured, ended.result)
        self._part.show_table(ended.result)
        flagged = [m for measures in self._run.measures for m in measures if m.flag]
        said = [f"{m.name}: {flag_words(m)}" for m in flagged]
        self._part.flags.say("\n".join(dict.fromkeys(said)), "warning")
        self.refresh()

    def _on_comparison(self, ended: Ended) -> None:
        self.comparison = ended.result
        self._part.show_reference(ended.result, ended.error)

    def _on_objects(self, ended: Ended) -> None:
        run = self._run
        place = None if run is None else self._inspection.runs.place(run)
        if run is None or place is None or self._table is None or ended.result is None:
            if ended.error:
                self._inspection.said.emit(ended.error, "error", ended.details)
            return
        self._inspection.add_layer(
            run,
            "objects",
            place.expand(ended.result),
            "labels",
            {
                **place.arguments(),
                "name": f"{run.title} · objects",
                "features": label_features(self._table[1]),
                "opacity": 0.5,
                "blending": "translucent_no_depth",
            },
        )

    def _on_plot(self, ended: Ended) -> None:
        if ended.result is not None:
            self._part.plot.show_picture(ended.result)
        elif ended.error:
            self._part.note.say(ended.error, "error")
