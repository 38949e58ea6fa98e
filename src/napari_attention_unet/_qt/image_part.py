"""The image part: which layer, which time points, which level, which region."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from magicgui.widgets import ComboBox, FloatSpinBox
from napari.layers import Image, Shapes
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_attention_unet.errors import InputError
from napari_attention_unet.io.layers import time_points, volume_from_layers
from napari_attention_unet.io.placement import LayerAxes, layer_axes, layer_shape
from napari_attention_unet.volume import Box, Volume

from .channel_boxes import ChannelBoxes
from .choices import Choices
from .form import Form, Note, native
from .regions import box_of_shape, visible_slab
from .request import shape_text
from .results import is_result

_REGIONS = [("whole volume", "whole"), ("drawn box", "box"), ("visible slab", "slab")]
NO_IMAGE = "Open a 3D image, or drop a file here."


class ImagePart(QWidget):
    """Controls for what is run; choices that the image does not offer are hidden."""

    changed = Signal()  #: the person chose
    refreshed = Signal()  #: the viewer's layers or the model's channels changed

    def __init__(self, viewer: Any, choices: Choices, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._channel_names: tuple[str, ...] = ()
        self._in_channels = 1
        self._chosen_by_person = False

        self.image = ComboBox(choices=self._image_choices, nullable=False)
        self.time = ComboBox(choices=[("on display", "this"), ("all", "all")])
        self.time.value = "all" if choices.all_times else "this"
        self.level = ComboBox(choices=[("0", 0)])
        self.region = ComboBox(choices=_REGIONS, value=choices.region)
        self.slab = FloatSpinBox(min=2, max=4096, step=1, value=choices.slab)
        self.slab.native.setDecimals(0)
        self.slab.native.setSuffix(" slices")
        self.note = Note()
        self.note.setObjectName("image_note")

        self._form = form = Form()
        form.add(
            "image",
            native(self.image),
            "image",
            "The 3D image to run the network on. Files can be dropped anywhere on this panel.",
        )
        self.image.native.setPlaceholderText("none yet")
        self.channels = ChannelBoxes(self._image_choices)
        form.add_note(self.note)
        form.add_wide(self.channels)
        form.add("time", native(self.time), "time", "Run the time point on display, or all of them")
        form.add(
            "level",
            native(self.level),
            "level",
            "Resolution level of this multiscale image to run; results lie on the finest one's "
            "place",
        )
        form.add(
            "region",
            native(self.region),
            "region",
            "The whole volume, the box drawn in a Shapes layer (through all slices where it is\n"
            "flat), or what the canvas shows with some slices around it",
        )
        form.add(
            "slab",
            native(self.slab),
            "slab",
            "Thickness of the visible slab, about the slice on display",
        )
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(form)
        self.refresh()
        for control in (self.time, self.level, self.slab):
            control.changed.connect(self._on_change)
        self.region.changed.connect(self._on_region)
        self.channels.changed.connect(self._on_change)
        self.image.changed.connect(self._on_image)

    # --- what is chosen -------------------------------------------------------------------------

    @property
    def layer(self) -> Any | None:
        """The chosen layer."""
        return self.image.value

    @property
    def layers(self) -> list[Any]:
        """The chosen layers, one a channel, or a single one with a channel axis."""
        return [] if self.layer is None else [self.layer, *self.channels.layers]

    @property
    def leading(self) -> str:
        """What an unlabelled axis before z, y, x is taken as."""
        layer = self.layer
        if layer is None or self._in_channels == 1:
            return "time"
        shape = layer_shape(layer)
        return "channel" if len(shape) == 4 and shape[0] == self._in_channels else "time"

    @property
    def level_index(self) -> int:
        """The chosen level of a multiscale layer; 0 of others."""
        return int(self.level.value) if self.layer is not None and self.layer.multiscale else 0

    def volume(self, time_index: int | None = None) -> Volume:
        """The chosen volume at a time point, by default the one on display.

        Raises
        ------
        InputError
            Saying why there is none.
        """
        if self.layer is None:
            raise InputError(NO_IMAGE)
        axes = self._axes()
        if time_index is None:
            time_index = self.time_on_display()
        return volume_from_layers(
            self.layers,
            time_index=time_index,
            level=self.level_index,
            region=self._box(axes),
            leading=self.leading,  # type: ignore[arg-type]
        )

    def volumes(self) -> tuple[Volume, ...]:
        """All volumes to run, one a time point.

        Raises
        ------
        InputError
            Saying why there is none.
        """
        if self.layer is not None and self.time.value == "all":
            count = self._time_points()
            if count > 1:
                return tuple(self.volume(index) for index in range(count))
        return (self.volume(),)

    def time_on_display(self) -> int:
        """Index of the time point that the viewer shows."""
        layer = self.layer
        axes = _axes_or_none(layer, self.leading)
        if layer is None or axes is None or axes.time is None:
            return 0
        n = len(layer_shape(layer))
        index = round(float(layer.world_to_data(self._viewer.dims.point[-n:])[axes.time]))
        return max(0, min(layer_shape(layer)[axes.time] - 1, index))

    def read_into(self, choices: Choices) -> None:
        """Write the settings into the choices."""
        choices.region = self.region.value
        choices.slab = int(self.slab.value)
        choices.all_times = self.time.value == "all"

    def write(self, choices: Choices) -> None:
        """Show the choices."""
        self.region.value = choices.region
        self.slab.value = choices.slab
        self.time.value = "all" if choices.all_times else "this"

    # --- following the viewer and the model -----------------------------------------------------

    def refresh(self) -> None:
        """Follow the viewer's layers; the person's choice stays while its layer does."""
        kept = self.image.value
        with self.image.changed.blocked():
            self.image.reset_choices()
            choices = self.image.choices
            if kept in choices and (self._chosen_by_person or _is_volume(kept)):
                self.image.value = kept
            elif choices:
                self.image.value = next((c for c in reversed(choices) if _is_volume(c)), choices[0])
        self.channels.refresh(self.layer)
        self._adapt()
        self.refreshed.emit()

    def set_channels(self, count: int, names: Sequence[str]) -> None:
        """Offer one layer a channel where the network takes several."""
        if (count, tuple(names)) == (self._in_channels, self._channel_names):
            return
        self._in_channels, self._channel_names = count, tuple(names)
        if count > 1 and not self._chosen_by_person and self.image.choices:
            with self.image.changed.blocked():
                self.image.value = self.channels.guess(0, None, names)
        self._adapt()
        self.refreshed.emit()

    def choose(self, layer: Any) -> None:
        """Choose a layer, as the person would."""
        if layer in self.image.choices:
            self.image.value = layer

    def show_facts(self, volume: Volume | None) -> None:
        """Say what the chosen image is."""
        if volume is None:
            self.note.setText("")
            self.note.setVisible(False)
            return
        words = [shape_text(volume.shape), spacing_text(volume)]
        if volume.orientation:
            words.append(f"axes to {', '.join(volume.orientation)}")
        self.note.setText(" · ".join(words))
        self.note.setToolTip(
            "Voxels along z, y, x; voxel size"
            + (
                f"; axes grow towards {', '.join(_DIRECTIONS[c] for c in volume.orientation)}"
                if volume.orientation
                else ""
            )
        )
        self.note.setVisible(True)

    def _image_choices(self, _widget: Any = None) -> list[Any]:
        return [
            layer
            for layer in self._viewer.layers
            if isinstance(layer, Image) and not is_result(layer)
        ]

    def _on_image(self) -> None:
        self._chosen_by_person = True
        self._adapt()
        self._on_change()

    def _adapt(self) -> None:
        """Show the rows that the chosen image calls for."""
        layer = self.layer
        axes = _axes_or_none(layer, self.leading)
        several = axes is not None and axes.time is not None
        self._form.show_row(self.time.native, several)
        self._form.show_row(self.level.native, layer is not None and layer.multiscale)
        if layer is not None and layer.multiscale:
            levels = [(f"{i} · {shape_text(d.shape[-3:])}", i) for i, d in enumerate(layer.data)]
            if [c for _, c in levels] != list(self.level.choices) or self.level.native.count() == 1:
                self.level.choices = levels
        wanted = 0
        if axes is not None and axes.channel is None:
            wanted = self._in_channels - 1
        self.channels.set_count(wanted, self._channel_names, layer)
        self._form.show_row(self.channels, wanted > 0)
        named = self._channel_names[:1] if wanted else ()
        self._form.set_label(self.image.native, named[0] if named else "image")
        self._form.show_row(self.slab.native, self.region.value == "slab")

    def _on_region(self) -> None:
        self._form.show_row(self.slab.native, self.region.value == "slab")
        self._on_change()

    def _on_change(self) -> None:
        self.changed.emit()

    def _axes(self) -> LayerAxes:
        return layer_axes(self.layer, self.leading)  # type: ignore[arg-type]

    def _time_points(self) -> int:
        return time_points(self.layer, self.leading)  # type: ignore[arg-type]

    def _box(self, axes: LayerAxes) -> Box | None:
        if self.region.value == "slab":
            return visible_slab(self._viewer, self.layer, axes, int(self.slab.value))
        if self.region.value == "box":
            drawn = [layer for layer in self._viewer.layers if isinstance(layer, Shapes)]
            if not drawn:
                raise InputError(
                    "Add a Shapes layer and draw a rectangle around what is to be run, or choose "
                    "the whole volume."
                )
            active = self._viewer.layers.selection.active
            return box_of_shape(active if active in drawn else drawn[-1], self.layer, axes)
        return None


_DIRECTIONS = {
    "I": "inferior",
    "S": "superior",
    "P": "posterior",
    "A": "anterior",
    "L": "the patient's left",
    "R": "the patient's right",
}


def spacing_text(volume: Volume) -> str:
    """``"2 mm"`` or ``"3 × 0.5 × 0.5 µm"``."""
    sizes = [f"{size:.4g}" for size in volume.spacing]
    return f"{sizes[0] if len(set(sizes)) == 1 else ' × '.join(sizes)} {volume.units}"


def _axes_or_none(layer: Any, leading: str) -> LayerAxes | None:
    try:
        return None if layer is None else layer_axes(layer, leading)  # type: ignore[arg-type]
    except InputError:
        return None


def _is_volume(layer: Any) -> bool:
    return _axes_or_none(layer, "time") is not None
