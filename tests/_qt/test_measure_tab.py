"""The tab *Measure* shows what the core computes, and takes it further."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from inspect_helpers import of_role, page, ran
from panel_helpers import PATIENCE, message, named
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from napari_attention_unet.inspect.reference import compare_with_reference
from napari_attention_unet.inspect.table import measures_table, object_labels

_HORIZONTAL, _VERTICAL = Qt.Orientation.Horizontal, Qt.Orientation.Vertical


def settled(qtbot, panel) -> None:
    """Wait until nothing is measured, compared or drawn any more."""
    control = panel.controller.measure
    jobs = (control._measuring, control._comparing, control._plotting, control._numbering)
    qtbot.waitUntil(lambda: not any(job.busy for job in jobs), timeout=PATIENCE)


@pytest.mark.parametrize("by", ["class", "object", "foreground"])
def test_the_table_is_that_of_the_core(docked, qtbot, blob, by, tmp_path):
    viewer, panel = docked
    (prediction,) = ran(qtbot, viewer, panel, blob, units=("mm",) * 3).predictions
    assert panel.measure.table.model.frame.empty, "measured without being looked at"
    page(panel, "measure")
    panel.measure.by.value = by
    settled(qtbot, panel)
    expected = measures_table(prediction, by)
    model = panel.measure.table.model
    pd.testing.assert_frame_equal(model.frame, expected)
    view = named(panel, "measures")
    assert view.isVisible()
    titles = [model.headerData(i, _HORIZONTAL) for i in range(model.columnCount())]
    assert titles[0] == "Mean inside"
    assert "Volume (mm³)" in titles
    names = [model.headerData(i, _VERTICAL) for i in range(model.rowCount())]
    assert names[0] == f"{expected['gate'][0]} · {expected['region'][0]}"
    assert model.index(0, 0).data() == f"{expected['inside'][0]:.4g}"

    named(panel, "copy_measures").click()
    copied = pd.read_csv(io.StringIO(QApplication.clipboard().text()))
    np.testing.assert_allclose(copied["inside"], expected["inside"], rtol=1e-5)
    assert "volume (mm³)" in copied
    panel.measure.table.write(tmp_path / "measures.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "measures.csv"), copied)


def test_features_of_the_mask_and_of_numbered_objects(docked, qtbot, blob):
    viewer, panel = docked
    (prediction,) = ran(qtbot, viewer, panel, blob).predictions
    (mask,) = of_role(viewer, "mask")
    page(panel, "measure")
    settled(qtbot, panel)
    named(panel, "features").click()
    expected = measures_table(prediction)
    gate = prediction.gates[0].name
    rows = expected[expected["gate"] == gate].set_index("label")
    features = mask.features.set_index("index")
    for label in (1, 2):
        assert features.loc[label, f"inside {gate}"] == pytest.approx(rows.loc[label, "inside"])
        assert features.loc[label, "class"] == rows.loc[label, "region"]
    assert "features" in message(panel)

    panel.measure.by.value = "object"
    settled(qtbot, panel)
    named(panel, "features").click()
    settled(qtbot, panel)
    (objects,) = of_role(viewer, "objects")
    np.testing.assert_array_equal(objects.data, object_labels(prediction.mask)[0])
    assert len(objects.features) == objects.data.max()

    panel.measure.by.value = "foreground"
    settled(qtbot, panel)
    assert not named(panel, "features").isEnabled()
    assert "no label of its own" in named(panel, "features").toolTip()


def test_reference_labels_on_the_same_and_on_another_grid(docked, qtbot, blob):
    viewer, panel = docked
    place = {"scale": (2, 1, 1), "translate": (5, 0, 0)}
    (prediction,) = ran(qtbot, viewer, panel, blob, **place).predictions
    page(panel, "measure")
    same = viewer.add_labels(prediction.mask.copy(), name="same", **place)
    wrong = viewer.add_labels(np.roll(prediction.mask, 3, axis=2), name="wrong", **place)
    inner = viewer.add_labels(
        prediction.mask[2:, 3:].copy(), name="inner", scale=(2, 1, 1), translate=(9, 3, 0)
    )
    box = named(panel, "reference")
    offered = [box.itemText(i) for i in range(box.count())]
    assert offered == ["none", "same", "wrong", "inner"], "results are offered as reference"
    panel.measure.reference.value = same
    settled(qtbot, panel)
    shown = panel.measure.classes.model.frame
    np.testing.assert_allclose(shown["dice"], 1)
    np.testing.assert_allclose(shown["surface_distance"], 0)

    panel.measure.reference.value = wrong
    settled(qtbot, panel)
    expected = compare_with_reference(prediction, wrong.data)
    pd.testing.assert_frame_equal(panel.measure.classes.model.frame, expected.classes)
    pd.testing.assert_frame_equal(panel.measure.errors.model.frame, expected.gates)

    panel.measure.reference.value = inner
    settled(qtbot, panel)
    cut = np.zeros_like(prediction.mask)
    cut[2:, 3:] = prediction.mask[2:, 3:]
    expected = compare_with_reference(prediction, cut)
    pd.testing.assert_frame_equal(panel.measure.classes.model.frame, expected.classes)

    viewer.layers.remove(inner)
    settled(qtbot, panel)
    assert panel.measure.reference.value is None
    assert panel.measure.classes.model.frame.empty


def test_labels_of_another_kind_are_refused_in_words(docked, qtbot, blob):
    viewer, panel = docked
    ran(qtbot, viewer, panel, blob)
    page(panel, "measure")
    panel.measure.reference.value = viewer.add_labels(np.zeros((9, 9), int), name="flat")
    settled(qtbot, panel)
    assert "two spatial axes" in panel.measure.reference_note.text()


def test_plots_follow_choice_and_theme(docked, qtbot, blob):
    viewer, panel = docked
    ran(qtbot, viewer, panel, blob)
    page(panel, "measure")
    settled(qtbot, panel)
    pictures = []
    for change in (
        lambda: None,
        lambda: setattr(panel.measure.what, "value", "histogram"),
        lambda: setattr(viewer, "theme", "light"),
    ):
        change()
        settled(qtbot, panel)
        drawn = panel.measure.plot.drawn
        assert drawn is not None
        assert drawn.png.startswith(b"\x89PNG")
        assert panel.measure.plot.pixmap().width() / drawn.ratio <= panel.measure.width()
        pictures.append(drawn.png)
    assert len(set(pictures)) == 3


def test_measures_of_an_earlier_run_are_dropped(docked, qtbot, blob):
    viewer, panel = docked
    ran(qtbot, viewer, panel, blob)
    page(panel, "measure")
    control = panel.controller.measure
    qtbot.waitUntil(lambda: control._measuring.busy or control._table is not None)
    viewer.layers.clear()
    assert not control._measuring.busy
    settled(qtbot, panel)
    qtbot.wait(200)
    assert panel.measure.table.model.frame.empty
    assert named(panel, "measure_note").text().startswith("Press Run first")


def test_a_series_has_a_row_for_every_time(docked, qtbot, blob):
    viewer, panel = docked
    panel.image.time.value = "all"
    series = np.stack([blob, np.roll(blob, 6, axis=2)])
    finished = ran(qtbot, viewer, panel, series, axis_labels=("t", "z", "y", "x"))
    page(panel, "measure")
    settled(qtbot, panel)
    pd.testing.assert_frame_equal(
        panel.measure.table.model.frame, measures_table(finished.predictions)
    )
    assert "series" in named(panel, "features").toolTip()


def test_a_report_is_saved_as_one_page(docked, qtbot, blob, tmp_path):
    viewer, panel = docked
    assert not named(panel, "report").isEnabled()
    (prediction,) = ran(qtbot, viewer, panel, blob).predictions
    page(panel, "measure")
    opened = []
    assert named(panel, "report").isEnabled()
    panel.controller.report.write(tmp_path / "ball.html", opened.append)
    qtbot.waitUntil(lambda: bool(opened), timeout=PATIENCE)
    html = (tmp_path / "ball.html").read_text(encoding="utf-8")
    assert opened == [tmp_path / "ball.html"]
    for gate in prediction.gates:
        assert gate.name in html
    assert prediction.provenance["sha256"] in html
    assert "Saved ball.html" in message(panel)
