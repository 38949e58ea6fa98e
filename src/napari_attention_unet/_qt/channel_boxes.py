"""One image a channel, for networks that take several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from magicgui.widgets import ComboBox
from qtpy.QtCore import Signal

from .form import Form, native


class ChannelBoxes(Form):
    """Boxes for the second and later channels; the first one is the image itself."""

    changed = Signal()

    def __init__(self, choices: Callable[..., list[Any]]) -> None:
        super().__init__()
        self._choices = choices
        self._names: tuple[str, ...] = ()
        self.boxes: list[ComboBox] = []

    @property
    def layers(self) -> list[Any]:
        """The chosen layers."""
        return [box.value for box in self.boxes if box.value is not None]

    def set_count(self, count: int, names: Sequence[str], first: Any) -> None:
        """Offer `count` boxes, named like the channels that follow the first."""
        if tuple(names) != self._names:
            self._names = tuple(names)
            self._remove_down_to(0)
        self._remove_down_to(count)
        while len(self.boxes) < count:
            channel = len(self.boxes) + 1
            box = ComboBox(choices=self._choices)
            label = names[channel] if channel < len(names) else f"channel {channel + 1}"
            name = f"channel_{channel + 1}"
            self.add(label, native(box), name, f"The image of channel {channel + 1}: {label}")
            self.boxes.append(box)
            if box.choices:
                box.value = self.guess(channel, first)
            box.changed.connect(self._on_change)

    def refresh(self, first: Any) -> None:
        """Follow the viewer's layers; a choice stays while its layer does."""
        for index, box in enumerate(self.boxes):
            chosen = box.value
            with box.changed.blocked():
                box.reset_choices()
                if chosen in box.choices:
                    box.value = chosen
                elif box.choices:
                    box.value = self.guess(index + 1, first)

    def guess(self, channel: int, first: Any, names: Sequence[str] | None = None) -> Any:
        """The layer that most likely is a channel: by its name, else by its turn."""
        choices = self._choices()
        names = self._names if names is None else names
        if channel < len(names):
            word = names[channel].lower()
            for layer in choices:
                if word in layer.name.lower().replace("·", " ").replace("_", " ").split():
                    return layer
        start = choices.index(first) if first in choices else 0
        return choices[(start + channel) % len(choices)]

    def _remove_down_to(self, count: int) -> None:
        while len(self.boxes) > count:
            self.remove(self.boxes.pop().native)

    def _on_change(self) -> None:
        self.changed.emit()
