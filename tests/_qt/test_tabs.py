"""The tabs: what is in them, what can be used when, and that nothing is cut off."""

from __future__ import annotations

import pytest
from inspect_helpers import page, ran
from napari.settings import get_settings
from panel_helpers import named, run
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractButton, QAbstractSpinBox, QComboBox, QLineEdit, QTableView

PAGES = ("run", "gates", "measure", "intervene", "history")
#: Buttons that need a run, on their pages.
NEED_A_RUN = {
    "intervene": ("intervene_run", "ablate", "gradcam", "sanity"),
    "gates": ("overlay_region", "overlay_product"),
}


def test_five_tabs_and_a_foot_that_stays(docked, qtbot):
    _viewer, panel = docked
    assert [panel.tabs.tabText(i).lower() for i in range(panel.tabs.count())] == list(PAGES)
    for index, name in enumerate(PAGES):
        page(panel, name)
        assert panel.tabs.tabToolTip(index)
        for control in ("run", "cancel", "axial", "letters", "message"):
            assert named(panel, control).isVisible()
    named(panel, "tabs").tabBar().setFocus()
    qtbot.keyClick(panel.tabs.tabBar(), Qt.Key.Key_Left)
    assert panel.tabs.page == "intervene"


def test_before_a_run_nothing_can_be_inspected_and_it_says_why(docked):
    _viewer, panel = docked
    for name, buttons in NEED_A_RUN.items():
        page(panel, name)
        for button in buttons:
            assert not named(panel, button).isEnabled()
            assert named(panel, button).toolTip().startswith("Press Run first")
    page(panel, "measure")
    assert not named(panel, "measure_by").isEnabled()
    assert named(panel, "measure_note").text().startswith("Press Run first")
    page(panel, "gates")
    assert not named(panel, "probe").isVisible()
    page(panel, "history")
    assert named(panel, "history_run").toolTip() == "Choose a folder of checkpoints first."
    assert not named(panel, "compare").isEnabled()
    assert "no two runs" in named(panel, "compare").toolTip()


def test_the_first_run_shows_the_gates_and_later_ones_leave_the_tab(docked, qtbot, blob):
    viewer, panel = docked
    assert panel.tabs.page == "run"
    ran(qtbot, viewer, panel, blob)
    assert panel.tabs.page == "gates"
    assert named(panel, "probe").isVisible()
    page(panel, "measure")
    run(qtbot, panel)
    assert panel.tabs.page == "measure"


@pytest.mark.parametrize(("theme", "points"), [("dark", 11), ("light", 14)])
def test_no_page_is_cut_off_and_every_control_has_a_tip(docked, qtbot, blob, theme, points):
    viewer, panel = docked
    viewer.theme = theme
    get_settings().appearance.font_size = points
    ran(qtbot, viewer, panel, blob)
    panel.probe.profile.setChecked(True)
    panel.probe.overlay.setChecked(True)
    for fold in (panel.intervene.ablation_fold, panel.gradcam, panel.sanity, panel.compare):
        fold.open()
    for name in PAGES:
        page(panel, name)
        scroll = named(panel, f"{name}_page")
        qtbot.waitUntil(
            lambda s=scroll: s.widget().minimumSizeHint().width() <= s.viewport().width(),
            timeout=2000,
        )
        for kind in (QAbstractButton, QComboBox, QAbstractSpinBox, QLineEdit, QTableView):
            for widget in scroll.widget().findChildren(kind):
                inner = widget.objectName() == "qt_spinbox_lineedit" or isinstance(
                    widget.parent(), QTableView
                )
                if widget.isVisible() and not inner:
                    assert widget.toolTip(), f"no tip: {widget.objectName()} {widget}"


def test_what_is_gone_from_the_viewer_is_not_offered_any_more(docked, qtbot, blob):
    viewer, panel = docked
    ran(qtbot, viewer, panel, blob)
    viewer.layers.clear()
    assert panel.controller.inspection.runs.latest is None
    assert not named(panel, "intervene_run").isEnabled()
    assert not named(panel, "probe").isVisible()
    assert panel.intervene.rows == []
