"""The tabs of the panel: a page each, scrolled by itself."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, QSize, Qt
from qtpy.QtWidgets import QFrame, QScrollArea, QTabWidget, QVBoxLayout, QWidget


class Tabs(QTabWidget):
    """Pages as wide as the panel, object name ``tabs``; each scrolls up and down alone."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("tabs")
        self.setDocumentMode(True)
        self.setUsesScrollButtons(False)
        self._pages: list[tuple[QScrollArea, QWidget]] = []
        bar = self.tabBar()
        if bar is not None:
            bar.setExpanding(True)
            bar.setDrawBase(False)
            bar.setElideMode(Qt.TextElideMode.ElideNone)
            bar.setAccessibleName("parts of the panel")

    def add_page(self, name: str, title: str, tip: str, *widgets: QWidget) -> None:
        """Add a page with these widgets from top to bottom."""
        content = QWidget()
        content.installEventFilter(self)
        column = QVBoxLayout(content)
        column.setContentsMargins(10, 8, 8, 8)
        column.setSpacing(8)
        for widget in widgets:
            column.addWidget(widget)
        column.addStretch(1)
        scroll = QScrollArea()
        scroll.setObjectName(f"{name}_page")
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        scroll.setWidget(content)
        self._pages.append((scroll, content))
        self.setTabToolTip(self.addTab(scroll, title), tip)

    def show_page(self, name: str) -> None:
        """Bring a page to the front."""
        for scroll, _ in self._pages:
            if scroll.objectName() == f"{name}_page":
                self.setCurrentWidget(scroll)

    @property
    def page(self) -> str:
        """Name of the page in front."""
        current = self.currentWidget()
        return "" if current is None else current.objectName().removesuffix("_page")

    def minimumSizeHint(self) -> QSize:  # noqa: N802
        """The narrowest at which no page is cut off, scroll bar included."""
        padding = 6  # napari's style sheet: a pixel on either side of frame, tabs and scroll area
        bar = self.tabBar()
        width = 0 if bar is None else bar.minimumSizeHint().width()
        for scroll, content in self._pages:
            side = scroll.verticalScrollBar()
            beside = side.sizeHint().width() if side is not None else 0
            width = max(width, content.minimumSizeHint().width() + beside + padding)
        return QSize(width, 160)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:  # noqa: N802
        """Follow the width that the scrolled contents need."""
        if event is not None and event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return super().eventFilter(watched, event)
