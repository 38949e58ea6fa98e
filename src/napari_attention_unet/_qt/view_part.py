"""The view part: axial, coronal and sagittal slices, the letters, and the true oblique view."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QToolButton, QVBoxLayout, QWidget

from napari_attention_unet.volume import VIEW_ORDERS

from .letters import Letters, convention

#: What the three views are called where nothing is known of anatomy: the plane on the screen.
_PLANES = {"axial": "xy", "coronal": "xz", "sagittal": "yz"}


class ViewPart(QWidget):
    """Three buttons that turn the slices of the viewer, object name ``view``."""

    letters_changed = Signal(bool)
    oblique_changed = Signal(bool)

    def __init__(self, viewer: Any, letters_shown: bool, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("view")
        self._viewer = viewer
        self.letters = Letters(viewer)
        self.letters.show(letters_shown)

        self.letters_box = QCheckBox("letters")
        self.letters_box.setObjectName("letters")
        self.letters_box.setChecked(letters_shown)
        self.letters_box.toggled.connect(self._show_letters)

        line = QHBoxLayout()
        line.setContentsMargins(0, 0, 0, 0)
        line.setSpacing(2)
        self.buttons: dict[str, QToolButton] = {}
        for name in VIEW_ORDERS:
            button = QToolButton()
            button.setObjectName(name)
            button.setCheckable(True)
            button.setSizePolicy(self.sizePolicy().Policy.Expanding, self.sizePolicy().Policy.Fixed)
            button.clicked.connect(
                {
                    "axial": self.show_axial,
                    "coronal": self.show_coronal,
                    "sagittal": self.show_sagittal,
                }[name]
            )
            self.buttons[name] = button
            line.addWidget(button, 1)
        line.addSpacing(6)
        line.addWidget(self.letters_box)
        self.oblique = QToolButton()
        self.oblique.setObjectName("oblique")
        self.oblique.setText("true oblique 3D")
        self.oblique.setCheckable(True)
        self.oblique.setToolTip(
            "Show image and results in 3D at the exact oblique position of the scan;\n"
            "off, they lie along the nearest axes, which 2D slices need"
        )
        self.oblique.toggled.connect(self.oblique_changed)
        self.oblique.hide()

        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addLayout(line)
        column.addWidget(self.oblique)
        self.setTabOrder(self.buttons["sagittal"], self.letters_box)
        self._events = (viewer.dims.events.order, viewer.dims.events.ndisplay)
        for event in self._events:
            event.connect(self._check_current)
        self.set_orientation(None)

    def set_orientation(self, orientation: str | None) -> None:
        """Follow the image: anatomical names and letters where anatomy is known."""
        self.letters.set_orientation(orientation)
        stated = convention(orientation)
        for name, button in self.buttons.items():
            plane = _PLANES[name]
            button.setText(name if orientation else plane)
            tip = f"{name} slices, upright" if orientation else f"Slices in the {plane} plane"
            button.setToolTip(f"{tip}.\n{stated}".strip())
        self.letters_box.setEnabled(orientation is not None)
        self.letters_box.setToolTip(
            f"Letters at the edges of the canvas say which way the patient lies.\n{stated}"
            if orientation
            else "The image says nothing of a patient's orientation, so there are no letters"
        )
        self._check_current()

    def set_oblique(self, available: bool, on: bool) -> None:
        """Offer the true oblique view where the image is oblique."""
        self.oblique.setVisible(available)
        self.oblique.blockSignals(True)
        self.oblique.setChecked(on)
        self.oblique.blockSignals(False)

    def show_axial(self) -> None:
        """Slice along z."""
        self._turn("axial")

    def show_coronal(self) -> None:
        """Slice along y."""
        self._turn("coronal")

    def show_sagittal(self) -> None:
        """Slice along x."""
        self._turn("sagittal")

    def close_events(self) -> None:
        """Stop listening to the viewer and take the letters away."""
        for event in self._events:
            event.disconnect(self._check_current)
        self.letters.close()

    def _turn(self, name: str) -> None:
        dims = self._viewer.dims
        first = dims.ndim - 3
        if first >= 0:
            dims.ndisplay = 2
            dims.order = (*range(first), *(first + axis for axis in VIEW_ORDERS[name]))
            self._viewer.reset_view()
        self._check_current()

    def _check_current(self, event: object = None) -> None:
        dims = self._viewer.dims
        first = dims.ndim - 3
        for name, order in VIEW_ORDERS.items():
            current = tuple(dims.order[-3:]) == tuple(first + axis for axis in order)
            self.buttons[name].setChecked(dims.ndisplay == 2 and first >= 0 and current)

    def _show_letters(self, shown: bool) -> None:
        self.letters.show(shown)
        self.letters_changed.emit(shown)
