"""The folded 'Advanced' part: how exactly a volume is run."""

from __future__ import annotations

from magicgui.widgets import CheckBox, ComboBox, FloatSpinBox, LineEdit
from napari.settings import get_settings
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QToolButton, QVBoxLayout, QWidget

from .choices import Choices
from .form import Form, beside, describe, native
from .request import parse_spacing

PLUGIN = "napari-attention-unet"
#: File patterns that napari can be told to open with this plugin.
PATTERNS = ("*.tif", "*.tiff", "*.ome.tif", "*.ome.tiff", "*.nii", "*.nii.gz")

_PRECISIONS = [
    ("automatic", "auto"),
    ("float32, exact", "float32"),
    ("bfloat16", "bfloat16"),
    ("float16", "float16"),
]
_PLANS = [
    ("automatic", "auto"),
    ("whole volume", "whole"),
    ("stream, plane by plane", "stream"),
    ("tiles", "tiles"),
]
_NORMALIZATIONS = [
    ("as the model asks", "card"),
    ("z-score", "zscore"),
    ("percentiles 1–99", "percentile"),
    ("minimum–maximum", "minmax"),
    ("fixed window", "window"),
    ("none", "none"),
]
_RULES = [("most probable class", "argmax"), ("threshold", "threshold")]


class AdvancedPart(QWidget):
    """Controls that most runs leave alone, object name ``advanced``."""

    changed = Signal()
    folded = Signal(bool)

    def __init__(self, choices: Choices, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("advanced")
        self.fold = QToolButton()
        self.fold.setText("Advanced")
        self.fold.setProperty("role", "flat")
        self.fold.setCheckable(True)
        self.fold.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        describe(
            self.fold, "advanced_fold", "Precision, voxel size, normalisation, threshold, memory"
        )
        self.fold.toggled.connect(self._unfold)

        self.precision = ComboBox(choices=_PRECISIONS, value=choices.precision)
        self.plan = ComboBox(choices=_PLANS, value=choices.plan)
        self.memory = FloatSpinBox(min=0, max=4096, step=1, value=choices.memory)
        self.spacing = LineEdit(value=choices.spacing)
        self.normalize = ComboBox(choices=_NORMALIZATIONS, value=choices.normalize)
        low, high = choices.window or (0.0, 1000.0)
        self.low = FloatSpinBox(min=-1e9, max=1e9, step=1, value=low)
        self.high = FloatSpinBox(min=-1e9, max=1e9, step=1, value=high)
        self.rule = ComboBox(choices=_RULES, value=choices.rule)
        self.threshold = FloatSpinBox(min=0.01, max=0.99, step=0.05, value=choices.threshold)
        self.keep_largest = CheckBox(text="keep the largest component", value=choices.keep_largest)
        self.opens_files = CheckBox(text="open .tif and .nii with this plugin", value=opens_files())

        self.memory.native.setSpecialValueText("automatic")
        self.memory.native.setSuffix(" GiB")
        self.spacing.native.setPlaceholderText("of the image")
        self._window = beside(native(self.low), native(self.high))
        self._window.layout().setStretch(1, 1)  # type: ignore[union-attr]
        describe(self.low.native, "window_low", "Intensity that becomes 0")
        describe(self.high.native, "window_high", "Intensity that becomes 1")

        self._form = form = Form()
        form.add(
            "precision",
            native(self.precision),
            "precision",
            "Numbers that the network computes with. float32 equals the network's own forward\n"
            "to 1e-4; automatic takes the fastest that the device has for real.",
        )
        form.add(
            "plan",
            native(self.plan),
            "plan",
            "How the volume is run. Whole and stream give the same answer; a stream needs far\n"
            "less memory, and its results appear as they are computed. Tiles overlap, and may be\n"
            "an approximation. Automatic takes what fits the memory.",
        )
        form.add(
            "memory", native(self.memory), "memory", "Memory that a run may use; 0 is automatic"
        )
        form.add(
            "voxel size",
            native(self.spacing),
            "spacing",
            "Voxel size to assume instead of the image's own, along z, y, x in the image's unit:\n"
            "one number, or three such as 3, 1, 1",
        )
        form.add(
            "intensity",
            native(self.normalize),
            "normalize",
            "How intensities are brought to the network's range",
        )
        form.add("window", self._window, "window", "Intensities that become 0 and 1")
        form.add(
            "mask",
            native(self.rule),
            "rule",
            "How probabilities become a mask: the most probable class of each voxel, or every\n"
            "class above a threshold, the most probable where several are",
        )
        form.add(
            "threshold",
            native(self.threshold),
            "threshold",
            "Probability above which a voxel belongs to a class",
        )
        form.add_wide(native(self.keep_largest))
        describe(
            self.keep_largest.native,
            "keep_largest",
            "Clear every part of the mask that is not connected to its largest piece",
        )
        form.add_wide(native(self.opens_files))
        describe(
            self.opens_files.native,
            "opens_files",
            "Open TIFF and NIfTI files with this plugin wherever they are dropped, so that napari\n"
            "does not ask; stored in napari's own settings",
        )
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addWidget(self.fold)
        column.addWidget(form)

        for control in self._controls():
            control.changed.connect(self._on_change)
        self.opens_files.changed.connect(set_opens_files)
        self.fold.setChecked(choices.advanced)
        self._unfold(choices.advanced)
        self._show_rows()

    def problem(self) -> str:
        """Why these settings cannot be run; empty if they can."""
        try:
            parse_spacing(self.spacing.value)
        except ValueError as error:
            return str(error)
        if self.normalize.value == "window" and self.low.value >= self.high.value:
            return "The lower end of the intensity window must be below the upper one."
        return ""

    def read_into(self, choices: Choices) -> None:
        """Write the settings into the choices."""
        choices.precision = self.precision.value
        choices.plan = self.plan.value
        choices.memory = float(self.memory.value)
        choices.spacing = self.spacing.value
        choices.normalize = self.normalize.value
        choices.window = [float(self.low.value), float(self.high.value)]
        choices.rule = self.rule.value
        choices.threshold = float(self.threshold.value)
        choices.keep_largest = bool(self.keep_largest.value)
        choices.advanced = self.fold.isChecked()

    def write(self, choices: Choices) -> None:
        """Show the choices."""
        self.precision.value = choices.precision
        self.plan.value = choices.plan
        self.memory.value = choices.memory
        self.spacing.value = choices.spacing
        self.normalize.value = choices.normalize
        self.low.value, self.high.value = choices.window or (0.0, 1000.0)
        self.rule.value = choices.rule
        self.threshold.value = choices.threshold
        self.keep_largest.value = choices.keep_largest

    def _controls(self) -> tuple[ComboBox | LineEdit | FloatSpinBox | CheckBox, ...]:
        return (
            self.precision,
            self.plan,
            self.memory,
            self.spacing,
            self.normalize,
            self.low,
            self.high,
            self.rule,
            self.threshold,
            self.keep_largest,
        )

    def _on_change(self) -> None:
        self._show_rows()
        self.changed.emit()

    def _show_rows(self) -> None:
        self._form.show_row(self._window, self.normalize.value == "window")
        self._form.show_row(self.threshold.native, self.rule.value == "threshold")

    def _unfold(self, unfolded: bool) -> None:
        self.fold.setArrowType(Qt.ArrowType.DownArrow if unfolded else Qt.ArrowType.RightArrow)
        self._form.setVisible(unfolded)
        self.folded.emit(unfolded)


def opens_files() -> bool:
    """Whether napari opens all `PATTERNS` with this plugin without asking."""
    readers = get_settings().plugins.extension2reader
    return all(readers.get(pattern) == PLUGIN for pattern in PATTERNS)


def set_opens_files(on: bool) -> None:
    """Tell napari to open `PATTERNS` with this plugin, or to ask again.

    napari's own 'Remember' stores ``*.gz`` for a ``.nii.gz``, which would catch every archive.
    """
    plugins = get_settings().plugins
    readers = {
        p: r for p, r in plugins.extension2reader.items() if p not in PATTERNS or r != PLUGIN
    }
    plugins.extension2reader = {**readers, **dict.fromkeys(PATTERNS, PLUGIN)} if on else readers
