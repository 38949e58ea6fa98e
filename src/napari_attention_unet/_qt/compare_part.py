"""Two runs against each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from magicgui.widgets import ComboBox
from pandas import DataFrame
from qtpy.QtWidgets import QPushButton

from .fold import Fold
from .form import Form, Note, beside, describe, native
from .frame_table import Column, FrameTable

if TYPE_CHECKING:
    from napari_attention_unet.inspect.compare import Comparison

ABOUT = (
    "Two runs on one image: of two models, or of one with other settings. Untick 'replace earlier "
    "results' in Run to keep the first."
)


class CompareFold(Fold):
    """Choice of two runs, and what differs."""

    def __init__(self) -> None:
        self.first, self.second = ComboBox(choices=()), ComboBox(choices=())
        self.run, self.side = QPushButton("Show what differs"), QPushButton("Side by side")
        describe(self.run, "compare", "")
        describe(self.side, "side_by_side", "")
        self.side.setCheckable(True)
        self.note = Note()
        form = Form()
        form.add("first", native(self.first), "compare_first", "The run to compare with")
        form.add("second", native(self.second), "compare_second", "The run that is compared")
        buttons = beside(self.run, self.side)
        self.classes = FrameTable(
            "compare_classes", "Masks", "Volume of every class in both, and Dice of the two masks"
        )
        self.gates = FrameTable(
            "compare_gates", "Gates", "How alike the maps of gates of equal names or grids are"
        )
        self.measures = FrameTable(
            "compare_measures", "Measures side by side", "Those of the first run, then the second's"
        )
        super().__init__(
            "Compare two runs",
            "compare_fold",
            "What differs between the masks and gates of two runs",
            Note(ABOUT),
            form,
            buttons,
            self.note,
            self.classes,
            self.gates,
            self.measures,
        )
        self.clear()

    def clear(self) -> None:
        """Show nothing."""
        self.note.say("")
        for table in (self.classes, self.gates, self.measures):
            table.clear()

    def set_runs(self, titles: Sequence[tuple[str, str]]) -> None:
        """Offer runs as pairs of title and key; the latest is set against the one before."""
        for box, place in ((self.first, -2), (self.second, -1)):
            box.choices = tuple(titles)
            if titles:
                box.value = titles[max(place, -len(titles))][1]

    def show_comparison(self, found: Comparison) -> None:
        """Show what differs."""
        unit = str(found.classes.attrs.get("unit", ""))
        self.classes.show_frame(
            found.classes,
            {
                "class": Column("class"),
                "dice": Column("Dice", "Of the two masks: 1 is alike", 3),
                "change_percent": Column("change (%)", "Of the volume, from first to second", 1),
                "before": Column(f"first ({unit})", "Volume in the first run"),
                "after": Column(f"second ({unit})", "Volume in the second run"),
            },
            ["class"],
        )
        self.gates.show_frame(
            found.gates,
            {
                "first": Column("gate"),
                "second": Column("with", "Gate of the second run"),
                "rank_correlation": Column("rank corr.", "Spearman's, −1 to 1", 2),
                "ssim": Column("SSIM", "Structural similarity, −1 to 1", 2),
                "mean_abs_difference": Column("mean |diff.|", "Of the coefficients", 3),
                "max_abs_difference": Column("largest", "Largest difference of coefficients", 3),
            },
            ["first"],
        )
        self.measures.show_frame(found.measures, _measures(found.measures), ["gate", "region"])
        left = ", ".join(found.unpaired)
        self.note.say(f"Without a counterpart: {left}." if left else "", "warning")


def _measures(table: DataFrame) -> dict[str, Column]:
    shown = {"gate": Column("gate"), "region": Column("class")}
    names = {"inside": "inside", "outside": "outside", "auc": "AUC", "median": "median"}
    for name, title in names.items():
        for number in (1, 2):
            column = f"{name}_{number}"
            if column in table:
                shown[column] = Column(f"{title} {number}", f"Of run {number}", 3)
    return shown
