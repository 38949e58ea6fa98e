"""The tab *Measure*: the table, its plots, and the comparison with reference labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from magicgui.widgets import ComboBox
from napari.layers import Labels
from pandas import DataFrame
from qtpy.QtCore import Signal
from qtpy.QtGui import QResizeEvent, QShowEvent
from qtpy.QtWidgets import QSizePolicy, QToolButton, QVBoxLayout, QWidget

from napari_attention_unet.inspect.reference import (
    CLASS_COLUMNS,
    GATE_COLUMNS,
    ReferenceComparison,
)
from napari_attention_unet.inspect.table import COLUMNS, csv_text
from napari_attention_unet.inspect.table import Column as Measure

from .form import Form, Note, beside, describe, native, rule
from .frame_table import Column, FrameTable
from .layer_box import LayerBox
from .plot_view import PlotView
from .results import is_result
from .runs import NO_RUN

_BY = [("class", "class"), ("connected object", "object"), ("whole foreground", "foreground")]
_PLOTS = [("histogram of each gate", "histogram"), ("inside and outside", "inside")]
_WHAT = "Coefficients of each gate as a histogram, or inside and outside of every region"
NO_REFERENCE = (
    "Labels that are right show where attention went wrong: choose a Labels layer that has the "
    "values of the mask."
)
#: Columns of the measures, what tells most first.
_ORDER = (
    *("gate", "region", "time_point", "inside", "outside", "ratio", "auc"),
    *("median", "p5", "p95", "above_half", "saturation", "voxels", "volume", "centroid_distance"),
    *("centroid_z", "centroid_y", "centroid_x", "mean", "entropy", "flag", "kind", "grid"),
)
_OVERLAPS = (
    *("dice", "precision", "recall", "surface_distance", "surface_distance_95"),
    *("voxels", "reference_voxels"),
)
_ERRORS = tuple(
    f"{which}_{what}" for what in ("mean", "voxels") for which in ("tp", "fp", "fn", "tn")
)


class MeasurePart(QWidget):
    """Controls and tables, object name ``measure``."""

    shown = Signal()  #: it came to the front, or has another size

    def __init__(self, viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("measure")
        self.by = ComboBox(choices=_BY, value="class")
        self.note = Note(NO_RUN)
        self.note.setObjectName("measure_note")
        self.table = FrameTable(
            "measures",
            "Measures",
            "Coefficients of every gate inside each part of the mask and outside of it;\n"
            "the columns say in their tips what they are",
        )
        self.flags = Note(role="warning")
        self.flags.setToolTip("Gates that tell nothing about the image")
        self.features = QToolButton()
        self.features.setText("add to mask features")
        describe(self.features, "features", "")
        self.report = QToolButton()
        self.report.setText("save a report …")
        describe(self.report, "report", "")
        self.what = ComboBox(choices=_PLOTS, value="inside")
        self.plot = PlotView("measure_plot", "Plot of the coefficients, as the table has them")
        self.reference = LayerBox(viewer, is_reference)
        self.reference_note = Note()
        self.classes = FrameTable(
            "reference_classes",
            "Mask against reference",
            "Overlap and distances of surfaces of the mask and the reference labels",
        )
        self.errors = FrameTable(
            "reference_gates",
            "Attention at errors",
            "Mean coefficient of every gate over true and false positives and negatives",
        )
        top = Form()
        top.add(
            "per",
            native(self.by),
            "measure_by",
            "Measure each class of the mask, each connected object, or all classes as one",
        )
        self._plot_form = Form()
        self._plot_form.add(
            "plot",
            native(self.what),
            "measure_what",
            _WHAT,
        )
        self._reference_form = Form()
        self._reference_form.add(
            "reference",
            native(self.reference),
            "reference",
            "A Labels layer with right labels, with the values of the mask; it may lie on another "
            "grid",
        )
        lines = rule(), rule()
        for button in (self.features, self.report):
            button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        buttons = beside(self.features, self.report)
        self._of_a_run = (*lines, buttons, self._plot_form, self._reference_form)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(8)
        for widget in (
            top,
            self.note,
            self.table,
            self.flags,
            buttons,
            lines[0],
            self._plot_form,
            self.plot,
            lines[1],
            self._reference_form,
            self.reference_note,
            self.classes,
            self.errors,
        ):
            column.addWidget(widget)
        self.show_run(False)

    def show_run(self, there: bool) -> None:
        """Show what there is to choose if there is a run, else say what is missing."""
        for widget in self._of_a_run:
            widget.setVisible(there)
        self.note.say("" if there else NO_RUN)
        self.by.native.setEnabled(there)
        if not there:
            self.table.clear()
            self.flags.say("")
            self.plot.clear()
        self.show_reference()

    def allow_regions(self, allowed: bool) -> None:
        """Whether regions can be plotted one by one; of objects there may be thousands."""
        if not allowed:
            self.what.value = "histogram"
        self.what.native.setEnabled(allowed)
        self.what.native.setToolTip(
            _WHAT if allowed else "Objects may be thousands, too many to plot one by one"
        )

    def show_reference(self, found: ReferenceComparison | None = None, problem: str = "") -> None:
        """Show a comparison with reference labels, or what there would be to choose."""
        there = not self._reference_form.isHidden()
        if found is None:
            self.classes.clear()
            self.errors.clear()
            self.reference_note.say(
                (problem or NO_REFERENCE) if there else "", "error" if problem else "dim"
            )
            return
        self.reference_note.say("")
        classes, gates = about(CLASS_COLUMNS, found.classes), about(GATE_COLUMNS, found.gates)
        self.classes.show_frame(
            found.classes, {n: classes[n] for n in ("region", *_OVERLAPS)}, ["region"]
        )
        self.errors.show_frame(
            found.gates, {n: gates[n] for n in ("gate", "region", *_ERRORS)}, ["gate", "region"]
        )

    def show_table(self, table: DataFrame) -> None:
        """Show the measures."""
        series = ["time_point"] if "time_point" in table else []
        known = {column.name: column for column in COLUMNS}
        columns = about([known[name] for name in _ORDER], table)
        self.table.show_frame(table, columns, [*series, "gate", "region"], csv_text)

    def resizeEvent(self, event: QResizeEvent | None) -> None:  # noqa: N802
        """The plot is drawn as wide as the tab."""
        super().resizeEvent(event)
        self.shown.emit()

    def showEvent(self, event: QShowEvent | None) -> None:  # noqa: N802
        """The tab comes to the front: what it shows may be old."""
        super().showEvent(event)
        self.shown.emit()


def about(columns: Sequence[Measure], table: DataFrame) -> dict[str, Column]:
    """How the columns of a table are shown, with its units."""
    return {c.name: Column(c.heading(table), c.description) for c in columns}


def is_reference(layer: Any) -> bool:
    """Whether a layer may be reference labels: a Labels layer that is no result of ours."""
    return isinstance(layer, Labels) and not is_result(layer)
