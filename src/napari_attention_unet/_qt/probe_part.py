"""What is under the cursor: class, probabilities, position; and what can be made of a point."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent
from qtpy.QtWidgets import QHBoxLayout, QLabel, QSizePolicy, QToolButton, QVBoxLayout, QWidget

from napari_attention_unet.inspect.probe import Reading
from napari_attention_unet.models import ClassInfo

from .form import Note, describe
from .style import Palette

NOWHERE = "move it over the image"
IN_3D = "switch to 2D to read values"
NO_PROBABILITIES = "Tick 'probabilities' in Run to read them here."


class ProbePart(QWidget):
    """The live panel beneath the gates, object name ``probe``."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("probe")
        heading = QLabel("Cursor")
        heading.setProperty("role", "heading")
        self.where = QLabel(NOWHERE)
        self.where.setProperty("role", "dim")
        self.where.setObjectName("probe_where")
        self.where.setToolTip("Class of the mask and position (z, y, x) in world units")
        self.where.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.where.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        head = QHBoxLayout()
        head.setContentsMargins(0, 0, 0, 0)
        head.setSpacing(8)
        head.addWidget(heading)
        head.addWidget(self.where, 1)
        self.bars = ClassBars()
        self.bars.setToolTip("Probability of every class at the voxel under the cursor, 0 to 1")
        self.note = Note(NO_PROBABILITIES)

        self.pin = QToolButton()
        self.pin.setText("pin points")
        self.pin.setCheckable(True)
        describe(
            self.pin,
            "pin",
            "A click on the canvas keeps the point and its values in a Points layer;\n"
            "Shift+click does so at any time",
        )
        self.profile = QToolButton()
        self.profile.setText("profile")
        self.profile.setCheckable(True)
        describe(
            self.profile,
            "profile",
            "Plot every gate along a line through the last pin, else through the cursor",
        )
        self.overlay = QToolButton()
        self.overlay.setText("overlays")
        self.overlay.setCheckable(True)
        describe(
            self.overlay,
            "overlay",
            "Layers made of the gates: contours, products, agreement, projections;\n"
            "the coefficients themselves stay untouched",
        )
        line = QHBoxLayout()
        line.setContentsMargins(0, 0, 0, 0)
        line.setSpacing(4)
        for button in (self.pin, self.profile, self.overlay):
            button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
            line.addWidget(button, 1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addLayout(head)
        column.addWidget(self.bars)
        column.addWidget(self.note)
        column.addLayout(line)
        self.set_classes((), False)

    def set_classes(self, classes: Sequence[ClassInfo], probabilities: bool) -> None:
        """Make room for the classes of a run; without probabilities, say how to get them."""
        self.bars.set_classes(classes if probabilities else ())
        self.bars.setVisible(probabilities)
        self.note.setVisible(not probabilities)

    def show_reading(self, reading: Reading | None, instead: str = NOWHERE) -> None:
        """Show what is at a point; `instead` where there is nothing."""
        self.where.setText(instead if reading is None else reading_text(reading))
        self.bars.set_values(reading.probabilities if reading is not None else None)

    def set_palette(self, palette: Palette) -> None:
        """Follow napari's theme."""
        self.bars.set_palette(palette)


class ClassBars(QWidget):
    """A bar a class, as long as its probability."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._classes: tuple[ClassInfo, ...] = ()
        self._values: dict[str, float] | None = None
        self._palette: Palette | None = None
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def set_classes(self, classes: Sequence[ClassInfo]) -> None:
        """The classes, in the order of the mask's values."""
        self._classes, self._values = tuple(classes), None
        self.updateGeometry()
        self.update()

    def set_values(self, values: dict[str, float] | None) -> None:
        """Probabilities by name of the class; None where there are none."""
        if values != self._values:
            self._values = values
            self.update()

    def set_palette(self, palette: Palette) -> None:
        """Follow napari's theme."""
        self._palette = palette
        self.update()

    def sizeHint(self) -> QSize:  # noqa: N802
        return QSize(200, len(self._classes) * self._line())

    def minimumSizeHint(self) -> QSize:  # noqa: N802
        return QSize(160, self.sizeHint().height())

    def paintEvent(self, event: QPaintEvent | None) -> None:  # noqa: N802
        if self._palette is None:
            return
        painter = QPainter(self)
        metrics, line = self.fontMetrics(), self._line()
        names = max((metrics.horizontalAdvance(c.name) for c in self._classes), default=0)
        left = min(names + 2, self.width() // 2) + 8
        right = self.width() - metrics.horizontalAdvance("0.00") - 8
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        for index, info in enumerate(self._classes):
            top = index * line
            value = None if self._values is None else self._values.get(info.name)
            painter.setPen(QColor(self._palette.dim))
            middle = Qt.AlignmentFlag.AlignVCenter
            name = metrics.elidedText(info.name, Qt.TextElideMode.ElideRight, left - 8)
            painter.drawText(QRectF(0, top, left, line), middle, name)
            if value is not None:
                edge = QRectF(right, top, self.width() - right, line)
                painter.drawText(edge, middle | Qt.AlignmentFlag.AlignRight, f"{value:.2f}")
            bar = QRectF(left, top + line / 2 - 3, right - left, 6)
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(self._palette.line))
            painter.drawRoundedRect(bar, 2, 2)
            if value:
                bar.setWidth(bar.width() * min(1.0, max(0.0, value)))
                painter.setPen(QColor(self._palette.dim))  # a pale colour is seen on a light theme
                painter.setBrush(QColor(self._palette.dim if index == 0 else info.color))
                painter.drawRoundedRect(bar, 2, 2)
        painter.end()

    def _line(self) -> int:
        return self.fontMetrics().height() + 1


def reading_text(reading: Reading) -> str:
    """``"white matter · −18.2, 0.0, 12.0 mm"``: class and position (z, y, x)."""
    return f"{reading.class_name} · {position_text(reading)}"


def position_text(reading: Reading) -> str:
    """``"−18.2, 0.0, 12.0 mm"`` along z, y, x."""
    return f"{', '.join(f'{c:.1f}' for c in reading.world)} {reading.units}".replace("-", "\u2212")
