"""The profile: every gate along an axis or a drawn line."""

from __future__ import annotations

from magicgui.widgets import ComboBox
from qtpy.QtWidgets import QVBoxLayout, QWidget

from .form import Form, native
from .profile_plot import ProfilePlot
from .style import Palette

DRAWN = "drawn"
_ALONG = [("z", "z"), ("y", "y"), ("x", "x"), ("drawn line", DRAWN)]


class ProfilePart(QWidget):
    """The plot and what it goes along, object name ``profile_part``."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("profile_part")
        self.along = ComboBox(choices=_ALONG, value="z")
        self.plot = ProfilePlot()
        self.plot.setToolTip(
            "Coefficient of every gate along the line; the strip beneath is the mask,\n"
            "the dashed line is the point"
        )
        form = Form()
        form.add(
            "along",
            native(self.along),
            "along",
            "The axis of the volume along which the gates are plotted, or a line drawn in a\n"
            "Shapes layer",
        )
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addWidget(form)
        column.addWidget(self.plot)

    def set_palette(self, palette: Palette) -> None:
        """Follow napari's theme."""
        self.plot.set_palette(palette)
