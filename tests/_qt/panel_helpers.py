"""What a person does with the panel, for the journeys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication, QWidget

from napari_attention_unet.io.layers import RESULT_KEY
from napari_attention_unet.model import load_model

#: Longer than any step of a journey takes on a loaded machine.
PATIENCE = 60_000

#: Models that tests share, by path.
LOADED: dict[str, Any] = {}


def load_once(path: str, **card: Any) -> Any:
    """`load_model`, once a path: tracing takes a second."""
    if path not in LOADED:
        LOADED[path] = load_model(path, **card)
    return LOADED[path]


def drop(panel: QWidget, paths: Sequence[Path | str]) -> None:
    """Drag files over the panel and let go of them."""
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(path)) for path in paths])
    point, copy = QPointF(20, 20), Qt.DropAction.CopyAction
    left, none = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    enter = QDragEnterEvent(point.toPoint(), copy, mime, left, none)
    QApplication.sendEvent(panel, enter)
    assert enter.isAccepted(), "the panel refuses these files"
    QApplication.sendEvent(panel, QDropEvent(point, copy, mime, left, none))


def named(panel: QWidget, name: str) -> Any:
    """The widget of that object name."""
    found = panel.findChild(QWidget, name)
    assert found is not None, f"no widget named '{name}'"
    return found


def message(panel: QWidget) -> str:
    """The line beneath the buttons."""
    return str(named(panel, "message").text())


def wait_ready(qtbot: Any, panel: Any) -> None:
    """Wait until Run is enabled."""
    run = named(panel, "run")
    qtbot.waitUntil(run.isEnabled, timeout=PATIENCE)


def wait_said(qtbot: Any, panel: Any, words: str) -> None:
    """Wait until the line beneath the buttons contains these words."""

    def said() -> None:
        assert words in message(panel)

    qtbot.waitUntil(said, timeout=PATIENCE)


def settle(qtbot: Any, panel: Any) -> None:
    """Wait until the model is read and the devices are found."""
    qtbot.waitUntil(
        lambda: panel.model.facts is not None and panel.model.device.native.count() > 1,
        timeout=PATIENCE,
    )


def use_model(qtbot: Any, panel: Any, path: Path) -> None:
    """Drop a checkpoint and wait until it is read."""
    drop(panel, [path])
    qtbot.waitUntil(lambda: panel.model.facts is not None, timeout=PATIENCE)


def run(qtbot: Any, panel: Any, before_answer: Callable[[], None] | None = None) -> None:
    """Click Run and wait for the answer."""
    wait_ready(qtbot, panel)
    with qtbot.waitSignal(panel.controller.runner.answered, timeout=PATIENCE):
        named(panel, "run").click()
        if before_answer is not None:
            before_answer()


def results(viewer: Any, role: str | None = None) -> list[Any]:
    """Our result layers in a viewer, from bottom to top."""
    return [
        layer
        for layer in viewer.layers
        if RESULT_KEY in layer.metadata
        and (role is None or layer.metadata[RESULT_KEY]["role"] == role)
    ]
