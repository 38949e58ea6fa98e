"""A light plot of coefficients along a line, quick enough to follow the cursor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

from .legend import number
from .style import Palette

_HEIGHT, _TOP, _STRIP = 148, 6, 5


@dataclass(frozen=True)
class Curves:
    """What is plotted.

    Attributes
    ----------
    distance : array, shape (n,)
        Along the line, ascending.
    values : dict
        Coefficients by name of the gate, shape (n,); nan where there is none.
    colours : sequence of str or None
        Colour of the mask's class at each point, shown as a strip; None for the background.
    axis : str
        What `distance` is, with its unit.
    here : float or None
        Distance of the point that the line goes through.
    """

    distance: npt.NDArray[np.floating[Any]]
    values: dict[str, npt.NDArray[np.floating[Any]]]
    colours: Sequence[str | None]
    axis: str
    here: float | None = None


class ProfilePlot(QWidget):
    """One line a gate over the distance, with the mask as a strip beneath."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.curves: Curves | None = None
        self.message = ""
        self._palette: Palette | None = None
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def show_curves(self, curves: Curves | None, message: str = "") -> None:
        """Plot these; the message stands where there are none."""
        self.curves, self.message = curves, message
        self.update()

    def set_palette(self, palette: Palette) -> None:
        """Follow napari's theme."""
        self._palette = palette
        self.update()

    def sizeHint(self) -> QSize:  # noqa: N802
        return QSize(240, _HEIGHT + 2 * self.fontMetrics().height())

    def minimumSizeHint(self) -> QSize:  # noqa: N802
        return QSize(200, self.sizeHint().height())

    def paintEvent(self, event: QPaintEvent | None) -> None:  # noqa: N802
        if self._palette is None:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if self.curves is None:
            painter.setPen(QColor(self._palette.dim))
            area = QRectF(self.rect())
            flags = Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap
            painter.drawText(area, int(flags), self.message)
        else:
            self._paint(painter, self.curves, self._palette)
        painter.end()

    def _paint(self, painter: QPainter, curves: Curves, palette: Palette) -> None:
        metrics = self.fontMetrics()
        low, high = _range(curves)
        ends = [number(v, high - low) for v in (low, high)]
        left: float = max(metrics.horizontalAdvance(text) for text in ends) + 6
        legend = metrics.height() + 4
        area = QRectF(left, _TOP + legend, self.width() - left - 2, _HEIGHT - _TOP - legend)
        painter.setPen(QPen(QColor(palette.line), 1))
        for share in (0.0, 0.5, 1.0):
            y = area.bottom() - share * area.height()
            painter.drawLine(QPointF(area.left(), y), QPointF(area.right(), y))
        painter.setPen(QColor(palette.dim))
        side = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        for text, y in zip(ends, (area.bottom(), area.top()), strict=True):
            painter.drawText(QRectF(0, y - 8, left - 6, 16), side, text)

        start, stop = float(curves.distance[0]), float(curves.distance[-1])
        span = max(stop - start, 1e-12)
        xs = area.left() + (curves.distance - start) / span * area.width()
        self._strip(painter, curves, xs, area)
        if curves.here is not None and start <= curves.here <= stop:
            x = area.left() + (curves.here - start) / span * area.width()
            painter.setPen(QPen(QColor(palette.dim), 1, Qt.PenStyle.DashLine))
            painter.drawLine(QPointF(x, area.top()), QPointF(x, area.bottom()))
        for (name, values), colour in zip(
            curves.values.items(), palette.curves(len(curves.values)), strict=True
        ):
            ys = area.bottom() - (np.clip(values, low, high) - low) / (high - low) * area.height()
            known = np.isfinite(ys)
            pairs = zip(xs[known].tolist(), ys[known].tolist(), strict=True)
            points = [QPointF(x, y) for x, y in pairs]
            painter.setPen(QPen(QColor(colour), 1.6))
            painter.drawPolyline(QPolygonF(points))
            left += self._name(painter, name, left, legend)
        painter.setPen(QColor(palette.dim))
        below = QRectF(area.left(), area.bottom() + _STRIP + 3, area.width(), metrics.height())
        words = (
            (f"{start:.4g}", Qt.AlignmentFlag.AlignLeft),
            (curves.axis, Qt.AlignmentFlag.AlignHCenter),
            (f"{stop:.4g}", Qt.AlignmentFlag.AlignRight),
        )
        for text, flag in words:
            painter.drawText(below, flag, text)

    def _name(self, painter: QPainter, name: str, left: float, height: float) -> float:
        """Write a gate's name in the colour of the pen; gives the room that it takes."""
        room = self.width() - left
        text = self.fontMetrics().elidedText(name, Qt.TextElideMode.ElideMiddle, int(room))
        painter.drawText(QRectF(left, _TOP - 4, room, height), Qt.AlignmentFlag.AlignLeft, text)
        return float(self.fontMetrics().horizontalAdvance(text) + 10)

    def _strip(self, painter: QPainter, curves: Curves, xs: npt.NDArray[Any], area: QRectF) -> None:
        edges = np.concatenate([xs[:1], (xs[1:] + xs[:-1]) / 2, xs[-1:]])
        for colour, start, stop in zip(curves.colours, edges[:-1], edges[1:], strict=True):
            if colour is not None:
                box = QRectF(start, area.bottom() + 1, stop - start + 0.5, _STRIP)
                painter.fillRect(box, QColor(colour))


def _range(curves: Curves) -> tuple[float, float]:
    """0 to 1, or to the largest where all are small, as those of a spatial softmax are."""
    known = np.concatenate([v[np.isfinite(v)] for v in curves.values.values()])
    low, high = min(0.0, float(known.min(initial=0))), float(known.max(initial=0))
    return low, 1.0 if 0.05 < high <= 1.0 else max(high, low + 1e-9)
