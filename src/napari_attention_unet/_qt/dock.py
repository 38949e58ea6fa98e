"""The dock widget *Attention U-Net*: an image, a model, Run, and where every gate looked."""

from __future__ import annotations

from typing import Any

from napari.settings import get_settings
from qtpy.compat import isalive
from qtpy.QtCore import QEvent, QSize, Qt
from qtpy.QtGui import QDragEnterEvent, QDragLeaveEvent, QDropEvent, QKeyEvent
from qtpy.QtWidgets import QFrame, QLineEdit, QSizePolicy, QVBoxLayout, QWidget

from .advanced_part import AdvancedPart
from .checks_part import GradCamFold, SanityFold
from .choices import load
from .compare_part import CompareFold
from .controller import Controller
from .files import local_files
from .form import rule
from .gates_part import GatesPart
from .history_part import HistoryPart
from .image_part import ImagePart
from .intervene_part import IntervenePart
from .measure_part import MeasurePart
from .model_part import ModelPart
from .overlay_part import OverlayPart
from .probe_part import ProbePart
from .profile_part import ProfilePart
from .run_part import RunPart
from .style import palette, set_property, stylesheet
from .tabs import Tabs
from .view_part import ViewPart

WIDTH = 352


class AttentionUNetPanel(QWidget):
    """Lays out the parts, follows napari's theme, takes dropped files.

    Parameters
    ----------
    napari_viewer : napari viewer
        Which it serves. napari passes a proxy of it that hands out raw layers here and proxies
        there, so that one layer would be two; the panel unwraps it and keeps to public names.

    Attributes
    ----------
    image, model, advanced, view, gates, probe, profile, overlays, measure, intervene, gradcam
        Its parts, each a QWidget, as are `sanity`, `history`, `compare` and `foot`.
    tabs : Tabs
        In which they lie.
    controller : Controller
        Connects them.
    """

    _docked = False  # of the class: Qt sends events before __init__ is through
    _closed = False

    def __init__(self, napari_viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        viewer = getattr(napari_viewer, "__wrapped__", napari_viewer)
        self.setObjectName("attention_unet")
        self.setAcceptDrops(True)
        # else napari puts a stretch beneath it
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        self._viewer = viewer
        choices = load()
        self.image = ImagePart(viewer, choices)
        self.model = ModelPart(choices)
        self.advanced = AdvancedPart(choices)
        self.view = ViewPart(viewer, choices.letters)
        self.gates = GatesPart(choices.scaling)
        self.probe = ProbePart()
        self.profile = ProfilePart()
        self.overlays = OverlayPart()
        self.measure = MeasurePart(viewer)
        self.intervene = IntervenePart(viewer)
        self.gradcam, self.sanity = GradCamFold(viewer), SanityFold()
        self.history, self.compare = HistoryPart(), CompareFold()
        self.foot = RunPart(choices.replace)
        self._lay_out()
        self.controller = Controller(self, viewer)
        self._follow_theme()
        self._looks = (viewer.events.theme, get_settings().appearance.events.font_size)
        for event in self._looks:
            event.connect(self._follow_theme)
        for line in self.findChildren(QLineEdit):  # they would take a dropped file as text
            line.setAcceptDrops(False)

    def sizeHint(self) -> QSize:  # noqa: N802
        """Width of a dock that leaves room for the image; more where letters are larger."""
        return QSize(max(WIDTH, self.minimumSizeHint().width()), 640)

    def minimumSizeHint(self) -> QSize:  # noqa: N802
        """The narrowest at which nothing is cut off."""
        return QSize(self.tabs.minimumSizeHint().width(), 300)

    def close_panel(self) -> None:
        """Stop what runs and let go of the viewer; the panel is of no more use."""
        if not self._closed:
            self._closed = True
            for event in self._looks:
                event.disconnect(self._follow_theme)
            self.controller.close()

    def event(self, event: QEvent | None) -> bool:
        """Close when napari takes the panel out of its dock, or deletes it."""
        if event is not None and not self._closed:
            if event.type() == QEvent.Type.ParentChange:
                if self._docked and self.parent() is None:
                    self.close_panel()
                    self.deleteLater()
                self._docked = self.parent() is not None
            elif event.type() == QEvent.Type.DeferredDelete:
                self.close_panel()
        return super().event(event)

    def keyPressEvent(self, event: QKeyEvent | None) -> None:  # noqa: N802
        """Ctrl+Return runs, Escape cancels, wherever the focus is in the panel."""
        if event is None:
            return
        control = event.modifiers() & Qt.KeyboardModifier.ControlModifier
        if control and event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.controller.run()
        elif event.key() == Qt.Key.Key_Escape and self.controller.inspection.busy:
            self.controller.cancel()
        else:
            super().keyPressEvent(event)

    def dragEnterEvent(self, event: QDragEnterEvent | None) -> None:  # noqa: N802
        """Take files."""
        if event is not None and local_files(event.mimeData()):
            event.acceptProposedAction()
            set_property(self._frame, "dropping", "true")

    def dragLeaveEvent(self, event: QDragLeaveEvent | None) -> None:  # noqa: N802
        """The files went elsewhere."""
        set_property(self._frame, "dropping", "false")

    def dropEvent(self, event: QDropEvent | None) -> None:  # noqa: N802
        """Open volumes, choose a checkpoint."""
        set_property(self._frame, "dropping", "false")
        if event is not None:
            paths = local_files(event.mimeData())
            if paths:
                event.acceptProposedAction()
                self.controller.drops.open(paths)

    def _lay_out(self) -> None:
        self.tabs = Tabs()
        self.tabs.add_page(
            "run",
            "Run",
            "What is run, with which network, and how",
            self.image,
            rule(),
            self.model,
            self.advanced,
            rule(),
            self.foot.options,
        )
        self.tabs.add_page(
            "gates",
            "Gates",
            "Where every attention gate looks, and what it says under the cursor",
            self.gates,
            self.probe,
            self.profile,
            self.overlays,
        )
        self.tabs.add_page(
            "measure",
            "Measure",
            "Numbers of every gate against the mask, and against right labels",
            self.measure,
        )
        self.tabs.add_page(
            "intervene",
            "Intervene",
            "Set gates to something else and see what that does to the mask",
            self.intervene,
            self.gradcam,
            self.sanity,
        )
        self.tabs.add_page(
            "history",
            "History",
            "How attention came about in training, and how two runs differ",
            self.history,
            rule(),
            self.compare,
        )
        foot = QWidget()
        below = QVBoxLayout(foot)
        below.setContentsMargins(10, 6, 10, 6)
        below.setSpacing(6)
        below.addWidget(rule())
        below.addWidget(self.view)
        below.addWidget(self.foot)
        self._frame = QFrame()
        self._frame.setObjectName("drop_frame")
        inner = QVBoxLayout(self._frame)
        inner.setContentsMargins(0, 0, 0, 0)
        inner.setSpacing(0)
        inner.addWidget(self.tabs, 1)
        inner.addWidget(foot)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(self._frame)

    def _follow_theme(self, event: object = None) -> None:
        # napari's settings outlive a window and its widgets
        if not isalive(self):  # type: ignore[no-untyped-call]
            return
        theme = self._viewer.theme
        self.setStyleSheet(stylesheet(theme, get_settings().appearance.font_size))
        for part in (self.gates, self.probe, self.profile, self.history):
            part.set_palette(palette(theme))
        self.controller.measure.set_palette(palette(theme))
