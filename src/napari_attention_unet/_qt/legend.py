"""The colour bar of one gate: its colours, the numbers at their ends, and two marks."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QImage, QPainter, QPaintEvent, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

_BAR = 9  # height of the colours in pixels
_MARK = 5  # height of a mark
_NUMBERS = 34  # least width kept for the number at either end


class ColourBar(QWidget):
    """Colours from the lower to the upper end of the display range, over a mid grey.

    The filled mark beneath stands at the mean inside the mask, the hollow one at the mean outside,
    the needle at the coefficient under the cursor.
    """

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._colours = np.zeros((2, 4), np.uint8)
        self._low, self._high = 0.0, 1.0
        self._inside = self._outside = math.nan
        self._needle: float | None = None
        self._ink = self._strong = QColor("#808080")
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    @property
    def limits(self) -> tuple[float, float]:
        """The numbers at the ends."""
        return self._low, self._high

    @property
    def texts(self) -> tuple[str, str]:
        """The numbers at the ends, as written."""
        span = self._high - self._low
        return number(self._low, span), number(self._high, span)

    def set_colours(self, rgba: npt.NDArray[np.floating]) -> None:
        """Set the colours, shape (n, 4), floats 0..1, from the lower to the upper end."""
        self._colours = np.ascontiguousarray(np.round(np.clip(rgba, 0, 1) * 255).astype(np.uint8))
        self.update()

    def set_range(self, low: float, high: float) -> None:
        """Set the coefficients at the ends."""
        self._low, self._high = float(low), float(high)
        self.update()

    def set_marks(self, inside: float, outside: float) -> None:
        """Set the mean coefficients inside and outside the mask; nan for none."""
        self._inside, self._outside = inside, outside
        self.update()

    def set_needle(self, value: float | None) -> None:
        """Set the coefficient under the cursor; None for none."""
        if value != self._needle:
            self._needle = value
            self.update()

    def set_ink(self, colour: str, strong: str) -> None:
        """Set the colour of numbers and marks, and that of the needle."""
        self._ink, self._strong = QColor(colour), QColor(strong)
        self.update()

    def sizeHint(self) -> QSize:  # noqa: N802
        return QSize(200, max(_BAR + _MARK + 4, self.fontMetrics().height()))

    def minimumSizeHint(self) -> QSize:  # noqa: N802
        return QSize(2 * _NUMBERS + 40, self.sizeHint().height())

    def paintEvent(self, event: QPaintEvent | None) -> None:  # noqa: N802
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        low, high = self.texts
        metrics = self.fontMetrics()
        side = max(_NUMBERS, *(metrics.horizontalAdvance(text) for text in (low, high))) + 6
        bar = QRectF(side, 2, self.width() - 2 * side, _BAR)
        painter.fillRect(bar, QColor("#4a4a4a"))
        n = len(self._colours)
        image = QImage(self._colours.tobytes(), n, 1, 4 * n, QImage.Format.Format_RGBA8888)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        painter.drawImage(bar, image)
        painter.setPen(self._ink)
        middle = Qt.AlignmentFlag.AlignVCenter
        painter.drawText(
            QRectF(0, 0, side - 6, _BAR + 4), middle | Qt.AlignmentFlag.AlignRight, low
        )
        painter.drawText(
            QRectF(bar.right() + 6, 0, side - 6, _BAR + 4),
            middle | Qt.AlignmentFlag.AlignLeft,
            high,
        )
        for value, filled in ((self._outside, False), (self._inside, True)):
            self._mark(painter, bar, value, filled)
        if self._needle is not None:
            x = self._place(bar, self._needle)
            painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
            painter.fillRect(QRectF(x - 1, bar.top() - 2, 2, bar.height() + 4), self._strong)
        painter.end()

    def _place(self, bar: QRectF, value: float) -> float:
        part = min(1.0, max(0.0, (value - self._low) / (self._high - self._low)))
        return bar.left() + part * bar.width()

    def _mark(self, painter: QPainter, bar: QRectF, value: float, filled: bool) -> None:
        if math.isnan(value):
            return
        x, top = self._place(bar, value), bar.bottom() + 1
        points = (QPointF(x, top), QPointF(x - 4, top + _MARK), QPointF(x + 4, top + _MARK))
        painter.setBrush(self._ink if filled else Qt.BrushStyle.NoBrush)
        painter.drawPolygon(QPolygonF(points))


def number(value: float, span: float = 1.0) -> str:
    """A coefficient with as many digits as tell it from others `span` away.

    ``0.07`` at a span of 1, ``0.512`` at a span of 0.05, ``1.2e-5`` at a span of 0.0001.
    """
    if math.isnan(value):
        return "–"
    digits = 2 if not span > 0 else max(2, 1 - math.floor(math.log10(span)))
    if value == 0 or digits <= 4 or abs(value) >= 0.1:
        return f"{value:.{min(digits, 4)}f}"
    return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e+")
