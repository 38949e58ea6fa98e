"""The tab *Intervene*: gates set to something else, and what that does to the mask."""

from __future__ import annotations

from typing import Any

from pandas import DataFrame
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QPushButton, QToolButton, QVBoxLayout, QWidget

from napari_attention_unet.inspect.difference import FOREGROUND
from napari_attention_unet.prediction import Prediction

from .fold import Fold
from .form import Form, Note, beside, describe, native
from .frame_table import Column, FrameTable, plain_csv
from .layer_box import LayerBox
from .measure_part import is_reference
from .runs import NO_RUN
from .switch_row import COMPUTED, SwitchRow

ABOUT = (
    "Set a gate to something else and run the network again: what changes in the mask was caused "
    "by that gate. A map alone shows where a gate is high, not whether it mattered."
)
NO_GATES = "This network has no attention gate to change."


class IntervenePart(QWidget):
    """Switches and tables, object name ``intervene``."""

    changed = Signal()  #: a switch, or the paint for one
    asked = Signal(object)  #: a gate for which a layer to paint on is wanted

    def __init__(self, viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("intervene")
        self._viewer = viewer
        self.rows: list[SwitchRow] = []
        self.about = Note(ABOUT)
        self.note = Note()
        self.note.setObjectName("intervene_note")
        self._list = QVBoxLayout()
        self._list.setContentsMargins(0, 0, 0, 0)
        self._list.setSpacing(6)

        self.run = QPushButton("Run with these")
        describe(self.run, "intervene_run", "")
        self.back = QToolButton()
        self.back.setText("all as computed")
        describe(self.back, "intervene_back", "Set every gate back to as computed")
        self.back.clicked.connect(self.set_computed)
        self._buttons = beside(self.run, self.back)
        self.held = Note()
        self.free = QToolButton()
        self.free.setText("free")
        describe(self.free, "intervene_free", "Let go of the memory that makes changes quick")
        self._held = beside(self.held, self.free)
        self._held.hide()
        self.volumes = FrameTable(
            "volumes",
            "Change of volume",
            "Volume of every class before and after, and Dice of the two masks",
        )

        self.ablate = QPushButton("Make the table")
        describe(self.ablate, "ablate", "")
        self.reference = LayerBox(viewer, is_reference)
        form = Form()
        form.add(
            "reference",
            native(self.reference),
            "ablation_reference",
            "Right labels, to tell what each gate is worth; none compares with the unchanged mask\n"
            "alone",
        )
        self.ablation = FrameTable(
            "ablation",
            "Dice by gate",
            "Mean Dice of the classes against the unchanged mask: each gate closed, open and at\n"
            "its mean, one after the other",
        )
        self.ablation_note = Note()
        self.ablation_fold = Fold(
            "Ablation",
            "ablation_fold",
            "Every gate closed, open and at its mean, one after the other",
            form,
            self.ablate,
            self.ablation_note,
            self.ablation,
        )
        self.folds = QVBoxLayout()
        self.folds.setContentsMargins(0, 0, 0, 0)
        self.folds.setSpacing(8)
        self.folds.addWidget(self.ablation_fold)

        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(8)
        column.addWidget(self.about)
        column.addWidget(self.note)
        column.addLayout(self._list)
        column.addWidget(self._buttons)
        column.addWidget(self._held)
        column.addWidget(self.volumes)
        column.addLayout(self.folds)
        self.set_prediction(None)

    def set_prediction(self, prediction: Prediction | None) -> None:
        """Offer the gates of a run; what was found with those of another goes."""
        for row in self.rows:
            self._list.removeWidget(row)
            row.hide()
            row.deleteLater()
        self.rows = []
        for gate in prediction.gates if prediction is not None else ():
            row = SwitchRow(self._viewer, gate)
            row.changed.connect(self.changed)
            row.asked.connect(self.asked)
            self.rows.append(row)
            self._list.addWidget(row)
        self.note.say(NO_RUN if prediction is None else "" if self.rows else NO_GATES)
        for widget in (self._buttons, self.ablation_fold):
            widget.setVisible(bool(self.rows))
        self.volumes.clear()
        self.ablation.clear()
        self.ablation_note.say("")
        self.show_held("")
        self.changed.emit()

    def set_computed(self) -> None:
        """Set every gate back to as computed."""
        for row in self.rows:
            row.switch.value = COMPUTED

    def refresh(self) -> None:
        """Follow the viewer's layers."""
        for row in self.rows:
            row.refresh()
        self.reference.refresh()

    def show_held(self, note: str) -> None:
        """Say what is held in memory for further changes; nothing for an empty text."""
        self.held.setText(note)
        self._held.setVisible(bool(note))

    def show_volumes(self, table: DataFrame) -> None:
        """Show the change of volume of every class."""
        unit = table.attrs["unit"]
        self.volumes.show_frame(table, _volume_columns(unit), ["class"])

    def show_ablation(self, table: DataFrame, sentence: str) -> None:
        """Show what every gate is worth, and say it in a sentence; saved is the whole table."""
        self.ablation_note.say(sentence)
        classes = table[table["class"] != FOREGROUND].groupby(["gate", "switch"], sort=False)
        shown = DataFrame({"gate": table["gate"].unique()})
        columns = {"gate": Column("gate")}
        for value, words in (("dice", ""), ("reference_change", " · gain")):
            if value not in table:
                continue
            means = classes[value].mean()
            for switch in table["switch"].unique():
                name = f"{switch}{words}"
                shown[name] = [means[gate, switch] for gate in shown["gate"]]
                columns[name] = Column(name, _ABLATED[value].format(switch=switch), 3)
        self.ablation.show_frame(shown, columns, ["gate"], lambda _: plain_csv(table))


_ABLATED = {
    "dice": "Mean Dice of the classes against the unchanged mask, the gate {switch}: 1 is alike",
    "reference_change": "By how much Dice against the reference is better, the gate {switch}",
}


def _volume_columns(unit: str) -> dict[str, Column]:
    return {
        "dice": Column("Dice", "Of the mask before and after: 1 is alike, 0 is apart", 4),
        "change_percent": Column("change (%)", "Change of the volume, of that before", 1),
        "change": Column(f"change ({unit})", "Volume after less that before"),
        "before": Column(f"before ({unit})", "Volume as computed"),
        "after": Column(f"after ({unit})", "Volume with the gates set as chosen"),
        "gained": Column("gained (voxels)", "Voxels that the class gained"),
        "lost": Column("lost (voxels)", "Voxels that the class lost"),
    }
