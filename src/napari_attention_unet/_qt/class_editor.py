"""Names and colours of a model's classes, to be read and to be changed."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPainter, QPixmap
from qtpy.QtWidgets import (
    QColorDialog,
    QGridLayout,
    QHBoxLayout,
    QLineEdit,
    QSizePolicy,
    QToolButton,
    QWidget,
)

from napari_attention_unet.models import ClassInfo

from .form import describe

_COLUMNS = 2
_SWATCH = 14  # pixels


def pick_colour(parent: QWidget, colour: str, name: str) -> str:
    """Let the person choose a colour.

    Returns
    -------
    str
        ``"#rrggbb"``; the one given if the person cancelled.
    """
    picked = QColorDialog.getColor(QColor(colour), parent, f"Colour of {name}")
    return str(picked.name()) if picked.isValid() else colour


class ClassEditor(QWidget):
    """A colour and a name for every class but the background."""

    edited = Signal()  #: the person changed a name or a colour

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._classes: tuple[ClassInfo, ...] = ()
        self.rows: list[ClassRow] = []
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(8)
        self._grid.setVerticalSpacing(4)
        for column in range(_COLUMNS):
            self._grid.setColumnStretch(column, 1)

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """All classes as the rows say, the background first."""
        return (*self._classes[:1], *(row.info for row in self.rows))

    def show_classes(self, classes: Sequence[ClassInfo]) -> None:
        """Show these, the background first; rows stay where they are if they say the same."""
        if tuple(classes) == self.classes:
            return
        while self.rows:
            row = self.rows.pop()
            self._grid.removeWidget(row)
            row.hide()
            row.deleteLater()
        self._classes = tuple(classes)
        for index, info in enumerate(classes[1:], start=1):
            row = ClassRow(index, info)
            row.edited.connect(self.edited)
            place = index - 1
            self._grid.addWidget(row, place // _COLUMNS, place % _COLUMNS)
            self.rows.append(row)


class ClassRow(QWidget):
    """One class: a button with its colour, and a field with its name."""

    edited = Signal()

    def __init__(self, index: int, info: ClassInfo) -> None:
        super().__init__()
        self._info = info
        self.colour = QToolButton()
        self.colour.setProperty("role", "swatch")
        self.colour.setIconSize(QSize(_SWATCH, _SWATCH))
        describe(self.colour, f"class_{index}_colour", f"Colour of label {index} in the mask")
        self.colour.clicked.connect(self._pick)
        self.name = QLineEdit(info.name)
        self.name.setAcceptDrops(False)  # it would take a dropped file as text
        self.name.setMinimumWidth(0)
        self.name.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.name.setCursorPosition(0)
        describe(self.name, f"class_{index}_name", f"Name of label {index} in the mask")
        self.name.editingFinished.connect(self._rename)
        line = QHBoxLayout(self)
        line.setContentsMargins(0, 0, 0, 0)
        line.setSpacing(4)
        line.addWidget(self.colour)
        line.addWidget(self.name, 1)
        self._paint()

    @property
    def info(self) -> ClassInfo:
        """The class as it is now."""
        return self._info

    def _rename(self) -> None:
        name = self.name.text().strip()
        if not name:  # a class without a name could not be told from the others
            self.name.setText(self._info.name)
        elif name != self._info.name:
            self._info = ClassInfo(name, self._info.color)
            self.edited.emit()

    def _pick(self) -> None:
        colour = pick_colour(self, self._info.color, self._info.name)
        if colour != self._info.color:
            self._info = ClassInfo(self._info.name, colour)
            self._paint()
            self.edited.emit()

    def _paint(self) -> None:
        ratio = self.devicePixelRatioF()
        picture = QPixmap(round(_SWATCH * ratio), round(_SWATCH * ratio))
        picture.setDevicePixelRatio(ratio)
        picture.fill(Qt.GlobalColor.transparent)
        painter = QPainter(picture)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QColor("#80808080"))
        painter.setBrush(QColor(self._info.color))
        painter.drawRoundedRect(1, 1, _SWATCH - 2, _SWATCH - 2, 3, 3)
        painter.end()
        self.colour.setIcon(QIcon(picture))
