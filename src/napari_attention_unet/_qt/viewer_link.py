"""What the panel hears of the viewer: layers come and go, shapes are drawn, time moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari.layers import Shapes
from qtpy.QtCore import QObject, Signal


class ViewerLink(QObject):
    """Listens to a viewer until it is closed."""

    layers_changed = Signal()  #: added, removed, moved or renamed
    removed = Signal(object)  #: a layer; comes before `layers_changed`
    drawn = Signal()  #: a Shapes layer changed
    stepped = Signal()  #: another slice or time point is on display

    def __init__(self, viewer: Any, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        events = viewer.layers.events
        self._events: list[tuple[Any, Callable[..., None]]] = [
            (events.inserted, self._on_inserted),
            (events.removed, self._on_removed),
            (events.reordered, self._on_layers),
            (events.renamed, self._on_layers),
            (viewer.dims.events.current_step, self._on_step),
        ]
        for event, slot in self._events:
            event.connect(slot)
        for layer in viewer.layers:
            self._watch(layer)

    def close(self) -> None:
        """Stop listening."""
        for event, slot in self._events:
            event.disconnect(slot)
        for layer in self._viewer.layers:
            self._unwatch(layer)

    def _watch(self, layer: Any) -> None:
        if isinstance(layer, Shapes):
            layer.events.data.connect(self._on_drawn)

    def _unwatch(self, layer: Any) -> None:
        if isinstance(layer, Shapes):
            layer.events.data.disconnect(self._on_drawn)

    def _on_inserted(self, event: Any) -> None:
        self._watch(event.value)
        self.layers_changed.emit()

    def _on_removed(self, event: Any) -> None:
        self._unwatch(event.value)
        self.removed.emit(event.value)
        self.layers_changed.emit()

    def _on_layers(self, event: object = None) -> None:
        self.layers_changed.emit()

    def _on_drawn(self, event: object = None) -> None:
        self.drawn.emit()

    def _on_step(self, event: object = None) -> None:
        self.stepped.emit()
