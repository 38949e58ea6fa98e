"""The panel as a widget: tab order, sizes, and what stays when it is closed."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from napari.settings import get_settings
from panel_helpers import PATIENCE, message, named, wait_ready
from qtpy.QtCore import QEvent, Qt
from qtpy.QtWidgets import QApplication

ORDER = (
    "image",
    "region",
    "model",
    "browse",
    "device",
    "add_mask",
    "add_gates",
    "add_probabilities",
    "advanced_fold",
    "precision",
    "plan",
    "memory",
    "spacing",
    "normalize",
    "rule",
    "keep_largest",
    "opens_files",
    "replace",
    "reset",
    "axial",
    "coronal",
    "sagittal",
    "letters",
    "run",
    "cancel",
)


def test_tab_goes_from_top_to_bottom(docked):
    _viewer, panel = docked
    first = named(panel, "image")
    names, widget = [], first
    while True:
        if widget.focusPolicy() & Qt.FocusPolicy.TabFocus and panel.isAncestorOf(widget):
            names.append(widget.objectName())
        widget = widget.nextInFocusChain()
        if widget is first:
            break
    assert [name for name in names if name in ORDER] == list(ORDER)


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("points", [9, 14])
def test_nothing_is_cut_off_in_any_theme_and_font_size(docked, qtbot, theme, points):
    viewer, panel = docked
    viewer.theme = theme
    get_settings().appearance.font_size = points
    panel.advanced.fold.setChecked(True)
    panel.advanced.normalize.value = "window"
    panel.advanced.rule.value = "threshold"
    panel.image.region.value = "slab"
    scroll = named(panel, "run_page")
    qtbot.waitUntil(
        lambda: scroll.widget().minimumSizeHint().width() <= scroll.viewport().width(), timeout=1000
    )
    assert f"{points}pt" in panel.styleSheet()


def test_keys_run_and_cancel(docked, qtbot):
    viewer, panel = docked
    keys = Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier
    viewer.window._qt_window.activateWindow()
    named(panel, "model").setFocus()
    qtbot.keyClick(named(panel, "model"), *keys)
    assert not panel.controller.runner.busy, "there is nothing to run"
    noise = np.random.default_rng(0).normal(size=(160, 160, 160)).astype(np.float32)
    viewer.add_image(noise)
    wait_ready(qtbot, panel)
    qtbot.keyClick(named(panel, "model"), *keys)
    assert panel.controller.runner.busy
    with qtbot.waitSignal(panel.controller.runner.answered, timeout=PATIENCE):
        qtbot.keyClick(named(panel, "model"), Qt.Key.Key_Escape)
    assert "Cancelled" in message(panel)


def test_a_closed_panel_is_let_go(docked, qtbot):
    viewer, panel = docked
    gone = []
    panel.destroyed.connect(lambda: gone.append(True))
    reference = weakref.ref(panel)
    viewer.window.remove_dock_widget(panel)
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    assert gone == [True]
    del panel
    docked = None
    gc.collect()
    QApplication.processEvents()
    get_settings().appearance.font_size = 11
    viewer.add_image(np.zeros((4, 4, 4)))
    assert reference() is None or reference()._closed
