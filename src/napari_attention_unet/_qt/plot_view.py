"""A matplotlib figure as a picture: drawn on a worker thread, shown here."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QAction, QContextMenuEvent, QPixmap
from qtpy.QtWidgets import QFileDialog, QLabel, QMenu, QSizePolicy, QWidget

from .style import Palette


class Picture(NamedTuple):
    """A drawn figure.

    Attributes
    ----------
    png : bytes
        As a file would have it.
    ratio : float
        Pixels of the picture per pixel of the screen's coordinates.
    """

    png: bytes
    ratio: float


class Look(NamedTuple):
    """How a figure is to look.

    Attributes
    ----------
    palette : Palette
        Of the panel.
    width : float
        Of the figure, in pixels of the screen's coordinates.
    ratio : float
        As in `Picture`.
    points : float
        Size of text, at 100 pixels to the inch.
    """

    palette: Palette
    width: float
    ratio: float
    points: float


class PlotView(QLabel):
    """Shows a picture of a figure; hidden while there is none.

    Parameters
    ----------
    name : str
        Object name.
    tip : str
        What is plotted.
    """

    def __init__(self, name: str, tip: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName(name)
        self.setToolTip(f"{tip}.\nRight click saves it.")
        self.setAccessibleName(name.replace("_", " "))
        self.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._picture: Picture | None = None
        self.clear()

    @property
    def drawn(self) -> Picture | None:
        """What is shown."""
        return self._picture

    def look(self, palette: Palette, width: int) -> Look:
        """How a figure is to look that is so wide, in pixels."""
        points = 0.6 * self.fontMetrics().height() * 72 / 100
        return Look(palette, max(width, 200), self.devicePixelRatioF(), points)

    def show_picture(self, picture: Picture) -> None:
        """Show a picture."""
        self._picture = picture
        pixmap = QPixmap()
        pixmap.loadFromData(picture.png)
        pixmap.setDevicePixelRatio(picture.ratio)
        self.setPixmap(pixmap)
        self.setFixedHeight(round(pixmap.height() / picture.ratio))
        self.setVisible(True)

    def clear(self) -> None:
        """Show nothing."""
        super().clear()
        self._picture = None
        self.setVisible(False)

    def sizeHint(self) -> QSize:  # noqa: N802
        return QSize(200, 160)

    def minimumSizeHint(self) -> QSize:  # noqa: N802
        return QSize(100, 40)

    def contextMenuEvent(self, event: QContextMenuEvent | None) -> None:  # noqa: N802
        """Offer to save the picture."""
        if event is None or self._picture is None:
            return
        menu = QMenu(self)
        save = QAction("Save picture …", menu)
        save.triggered.connect(self._save)
        menu.addAction(save)
        menu.exec(event.globalPos())
        menu.deleteLater()

    def _save(self) -> None:
        if self._picture is None:
            return
        suggested = str(Path.home() / f"{self.objectName()}.png")
        path, _ = QFileDialog.getSaveFileName(self, "Save the plot", suggested, "PNG (*.png)")
        if path:
            Path(path).write_bytes(self._picture.png)
