"""Orientation letters at the four edges of the canvas."""

from __future__ import annotations

from typing import Any

from napari.components.overlays import TextOverlay

from napari_attention_unet.volume import OPPOSITE, edge_letters

_PLACES = {
    "top": "top_center",
    "bottom": "bottom_center",
    "left": "middle_left",
    "right": "middle_right",
}
_PREFIX = "attention_unet_"


class Letters:
    """Four text overlays of a viewer that say which way the patient lies.

    They follow the order of the axes and the direction of the camera, and are there in 2D alone.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._orientation: str | None = None
        self._shown = True
        self._events = (
            viewer.dims.events.order,
            viewer.dims.events.ndisplay,
            viewer.dims.events.ndim,
            viewer.scene.camera.events.orientation,
        )
        for event in self._events:
            event.connect(self.refresh)

    @property
    def texts(self) -> dict[str, str]:
        """Letter at each edge as shown; empty when none is."""
        overlays = self._viewer.canvas.overlays
        found = {edge: overlays.get(_PREFIX + edge) for edge in _PLACES}
        return {edge: o.text for edge, o in found.items() if o is not None and o.visible}

    def set_orientation(self, orientation: str | None) -> None:
        """Set the directions towards which the last three world axes grow; None for none."""
        self._orientation = orientation
        self.refresh()

    def show(self, shown: bool) -> None:
        """Show or hide the letters."""
        self._shown = shown
        self.refresh()

    def close(self) -> None:
        """Take the letters away and stop listening."""
        for event in self._events:
            event.disconnect(self.refresh)
        overlays = self._viewer.canvas.overlays
        for edge in _PLACES:
            if _PREFIX + edge in overlays:
                del overlays[_PREFIX + edge]

    def refresh(self, event: object = None) -> None:
        """Work out the letters anew."""
        letters = self._letters()
        overlays = self._viewer.canvas.overlays
        for edge, place in _PLACES.items():
            overlay = overlays.get(_PREFIX + edge)
            if overlay is None:
                if not letters:
                    continue
                overlay = TextOverlay(position=place, font_size=13, box=True)
                overlays[_PREFIX + edge] = overlay
            overlay.text = letters.get(edge, "")
            overlay.visible = bool(letters)

    def _letters(self) -> dict[str, str]:
        dims = self._viewer.dims
        if not self._shown or self._orientation is None or dims.ndisplay != 2 or dims.ndim < 3:
            return {}
        order = [axis - (dims.ndim - 3) for axis in dims.order[-3:]]
        if sorted(order) != [0, 1, 2]:  # a time axis is on display
            return {}
        letters = edge_letters(self._orientation, (order[0], order[1], order[2]))
        vertical, horizontal = self._viewer.scene.camera.orientation2d
        if str(vertical) == "up":
            letters["top"], letters["bottom"] = letters["bottom"], letters["top"]
        if str(horizontal) == "left":
            letters["left"], letters["right"] = letters["right"], letters["left"]
        return letters


def convention(orientation: str | None) -> str:
    """Which side of the patient is on the left of the screen, in words, for the axial view."""
    if orientation is None:
        return ""
    right = edge_letters(orientation, (0, 1, 2))["right"]
    if right == "L":
        return "Radiological convention: the patient's left is on the right of the screen."
    if right == "R":
        return "Neurological convention: the patient's left is on the left of the screen."
    return f"{OPPOSITE[right]} is on the left of the screen, {right} on the right."
