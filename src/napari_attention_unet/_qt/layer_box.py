"""A choice among some of the viewer's layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from magicgui.widgets import ComboBox


class LayerBox(ComboBox):
    """Offers the layers for which `fits` is true, and none of them.

    Parameters
    ----------
    viewer : napari viewer
        Whose layers are offered.
    fits : callable
        Whether a layer is offered.
    """

    null_string = "none"

    def __init__(self, viewer: Any, fits: Callable[[Any], bool]) -> None:
        self._viewer, self._fits = viewer, fits
        super().__init__(choices=self._layers, nullable=True)

    def refresh(self) -> None:
        """Follow the viewer's layers; the choice stays while its layer does."""
        chosen = self.value
        with self.changed.blocked():
            self.reset_choices()
            self.value = chosen if chosen in self.choices else None
        if self.value is not chosen:
            self.changed.emit(self.value)

    def _layers(self, _widget: Any = None) -> list[Any]:
        return [layer for layer in self._viewer.layers if self._fits(layer)]
