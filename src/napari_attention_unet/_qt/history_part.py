"""The tab *History*: how attention came about in training, and how two runs differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from magicgui.widgets import ComboBox
from pandas import DataFrame
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QLineEdit, QPushButton, QToolButton, QVBoxLayout, QWidget

from .form import Form, Note, beside, describe, native
from .frame_table import Column, FrameTable
from .profile_plot import ProfilePlot
from .style import Palette

ABOUT = (
    "Run every checkpoint of a training on the image that is chosen in Run: each gate becomes a "
    "layer whose slider goes through the epochs."
)
_MEASURES = [
    ("AUC", "auc"),
    ("mean inside", "inside"),
    ("mean outside", "outside"),
    ("entropy", "entropy"),
    ("mean of the gate", "mean"),
]


class HistoryPart(QWidget):
    """Controls for a folder of checkpoints, object name ``history``."""

    changed = Signal()  #: another folder
    plot_changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("history")
        self.folder = QLineEdit()
        self.folder.setPlaceholderText("folder of checkpoints")
        self.browse = QToolButton()
        self.browse.setText("…")
        describe(self.browse, "history_browse", "Choose a folder of checkpoints")
        self.browse.clicked.connect(self._browse)
        form = Form()
        form.add("folder", beside(self.folder, self.browse), "history_row", "")
        describe(
            self.folder,
            "history_folder",
            "Checkpoints of one training; numbers in their names, such as 000_net_S.pth or\n"
            "epoch=12.ckpt, tell their order",
        )
        self.folder.textChanged.connect(self.changed)
        self.run = QPushButton("Run the checkpoints")
        describe(self.run, "history_run", "")
        self.note = Note()
        self.note.setObjectName("history_note")
        self.measure = ComboBox(choices=_MEASURES, value="auc")
        self.region = ComboBox(choices=())
        self._choice = Form()
        self._choice.add(
            "measure", native(self.measure), "history_measure", "What is plotted of every gate"
        )
        self._choice.add(
            "class", native(self.region), "history_region", "The class that it is measured against"
        )
        self.plot = ProfilePlot()
        self.plot.setToolTip(
            "The measure of every gate over the checkpoints;\nthe dashed line is the one on display"
        )
        self.table = FrameTable(
            "history_table",
            "Measures by checkpoint",
            "Every gate against the class that is chosen; copied and saved are all classes",
        )
        self.measure.changed.connect(self._on_choice)
        self.region.changed.connect(self._on_choice)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(8)
        for widget in (
            Note(ABOUT),
            form,
            self.run,
            self.note,
            self._choice,
            self.plot,
            self.table,
        ):
            column.addWidget(widget)
        self.clear()

    @property
    def path(self) -> str:
        """The chosen folder; empty for none."""
        text = self.folder.text().strip()
        return str(Path(text).expanduser()) if text else ""

    def clear(self) -> None:
        """Show nothing."""
        self.note.say("")
        self._choice.hide()
        self.plot.hide()
        self.table.clear()

    def show_history(self, regions: Sequence[str], note: str) -> None:
        """Make room for a history."""
        kept = self.region.value
        self.region.choices = tuple(regions)
        if kept in regions:
            self.region.value = kept
        self._choice.show()
        self.plot.show()
        self.note.say(note, "warning")

    def show_table(self, shown: DataFrame, word: str, csv: Any) -> None:
        """Show the measures of one class."""
        columns = {
            "epoch": Column(word),
            "gate": Column("gate"),
            "auc": Column("AUC", "How well the gate alone ranks the class", 3),
            "inside": Column("inside", "Mean coefficient inside the class", 3),
            "outside": Column("outside", "Mean coefficient outside of it", 3),
            "entropy": Column("entropy", "How evenly the map is spread, 0 to 1", 3),
            "flag": Column("remark"),
            "checkpoint": Column("file"),
        }
        self.table.show_frame(shown, columns, ["epoch", "gate"], csv)

    def set_palette(self, palette: Palette) -> None:
        """Follow napari's theme."""
        self.plot.set_palette(palette)

    def _on_choice(self) -> None:
        self.plot_changed.emit()

    def _browse(self) -> None:
        start = self.path or str(Path.home())
        path = QFileDialog.getExistingDirectory(self, "Choose a folder of checkpoints", start)
        if path:
            self.folder.setText(path)
