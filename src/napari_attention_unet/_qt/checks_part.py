"""Two folds of *Intervene*: a gradient map for reference, and the sanity check."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from magicgui.widgets import ComboBox
from pandas import DataFrame
from qtpy.QtWidgets import QPushButton

from .fold import Fold
from .form import Form, Note, describe, native
from .frame_table import Column, FrameTable, plain_csv
from .layer_box import LayerBox
from .measure_part import is_reference

ABOUT_GRADCAM = (
    "Seg-Grad-CAM says by the gradient what a class draws on, on each gate's own grid. Its rank "
    "correlation with the coefficients says whether the gate lets through what the class wants."
)
ABOUT_SANITY = (
    "The weights are shuffled layer by layer. A map that stays the same follows the image alone, "
    "not what was learned. It takes a run of the network a layer."
)
_CORRELATION = Column(
    "rank corr.", "Spearman's rank correlation with the coefficients, −1 to 1; 0 is unrelated", 2
)


class GradCamFold(Fold):
    """Seg-Grad-CAM of a class over a region."""

    def __init__(self, viewer: Any) -> None:
        self.target = ComboBox(choices=())
        self.region = LayerBox(viewer, is_reference)
        self.run = QPushButton("Map the gradient")
        describe(self.run, "gradcam", "")
        self.note = Note()
        self.table = FrameTable(
            "gradcam_table",
            "Agreement",
            "How the gradient map of each gate agrees with its coefficients",
        )
        form = Form()
        form.add(
            "class", native(self.target), "gradcam_class", "Class whose evidence is looked for"
        )
        form.add(
            "region",
            native(self.region),
            "gradcam_region",
            "Voxels whose evidence is looked for: where a Labels layer is not 0, or all that the\n"
            "mask gives the class",
        )
        super().__init__(
            "Seg-Grad-CAM",
            "gradcam_fold",
            "A gradient map on the gates' grids, to compare attention with",
            Note(ABOUT_GRADCAM),
            form,
            self.run,
            self.note,
            self.table,
        )
        self.note.say("")

    def set_classes(self, names: Sequence[str]) -> None:
        """Offer the classes of a run, without the background."""
        self.target.choices = tuple(names)
        self.table.clear()
        self.note.say("")

    def show_table(self, table: DataFrame) -> None:
        """Show how gradient and attention agree."""
        columns = {
            "gate": Column("gate"),
            "rank_correlation": _CORRELATION,
            "top_overlap": Column(
                "top overlap",
                "Dice of the tenth of samples where each is highest; 0.1 by chance",
                2,
            ),
        }
        self.table.show_frame(table, columns, ["gate"])


class SanityFold(Fold):
    """Weights shuffled layer by layer."""

    def __init__(self) -> None:
        self.run = QPushButton("Shuffle the weights")
        describe(self.run, "sanity", "")
        self.note = Note()
        self.table = FrameTable(
            "sanity_table",
            "Similarity to the trained map",
            "Of each gate's map once every layer that leads to it is shuffled; copied and saved\n"
            "are all steps on the way",
        )
        super().__init__(
            "Sanity check",
            "sanity_fold",
            "Whether the maps depend on what the network learned (Adebayo et al. 2018)",
            Note(ABOUT_SANITY),
            self.run,
            self.note,
            self.table,
        )
        self.clear()

    def clear(self) -> None:
        """Show nothing."""
        self.table.clear()
        self.note.say("")

    def show_table(self, table: DataFrame) -> None:
        """Show how alike the maps stayed."""
        ends = table[table["complete"]].groupby(["gate", "mode"], sort=False).last().reset_index()
        columns = {
            "gate": Column("gate"),
            "rank_correlation": Column(
                "rank corr.", "Spearman's, of the shuffled network's map with the trained one's", 2
            ),
            "ssim": Column("SSIM", "Structural similarity of the two maps, −1 to 1", 2),
        }
        self.table.show_frame(
            ends[ends["mode"] == "cascading"], columns, ["gate"], lambda _: plain_csv(table)
        )
