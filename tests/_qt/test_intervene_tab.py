"""Interventions in the viewer give what the core gives; the layers say what changed."""

from __future__ import annotations

import numpy as np
import pytest
from inspect_helpers import about, finish, of_role, page, press, ran
from napari.layers import Labels
from panel_helpers import PATIENCE, message, named, run

from napari_attention_unet.inspect.difference import difference_labels
from napari_attention_unet.model import load_model
from napari_attention_unet.predict import predict


def test_an_open_gate_gives_the_difference_that_the_core_gives(docked, qtbot, blob, checkpoint):
    viewer, panel = docked
    panel.advanced.precision.value = "float32"
    (prediction,) = ran(qtbot, viewer, panel, blob, scale=(2, 1, 1)).predictions
    page(panel, "intervene")
    button = named(panel, "intervene_run")
    assert not button.isEnabled()
    assert "other than as computed" in button.toolTip()
    gate = prediction.gates[1].name
    row = panel.intervene.rows[1]
    row.switch.value = "closed"
    press(qtbot, panel, "intervene_run")

    changed = predict(load_model(checkpoint), blob, precision="float32", gates={gate: 0.0})
    expected = difference_labels(prediction.mask, changed.mask)
    (layer,) = of_role(viewer, "difference")
    np.testing.assert_array_equal(layer.data, expected)
    assert set(np.unique(expected)) - {0, 1}, "closing the gate changes nothing"
    np.testing.assert_allclose(
        layer.data_to_world((3, 4, 5)), viewer.layers["ball"].data_to_world((3, 4, 5))
    )
    assert list(layer.features["change"])[1:4] == ["unchanged", "gained", "lost"]
    assert about(layer)["set"][gate] == "closed (0)"
    volumes = panel.intervene.volumes.model.frame.set_index("class")
    for index, name in ((1, "core"), (2, "shell")):
        before, after = (2.0 * (m == index).sum() for m in (prediction.mask, changed.mask))
        assert volumes.loc[name, "before"] == pytest.approx(before)
        assert volumes.loc[name, "after"] == pytest.approx(after)
    assert f"{gate} closed" in message(panel)
    named(panel, "intervene_back").click()
    assert row.switch.value == "computed"
    assert not button.isEnabled()


def test_what_is_held_is_said_and_freed(docked, qtbot, blob):
    viewer, panel = docked
    ran(qtbot, viewer, panel, blob)
    page(panel, "intervene")
    panel.intervene.rows[0].switch.value = "open"
    press(qtbot, panel, "intervene_run")
    control = panel.controller.intervene
    _time, baseline = control._baseline
    assert baseline.held > 0
    assert "held" in panel.intervene.held.text()
    named(panel, "intervene_free").click()
    assert control._baseline is None
    assert not named(panel, "intervene_free").isVisible()


def test_a_painted_gate(docked, qtbot, blob, checkpoint):
    viewer, panel = docked
    panel.advanced.precision.value = "float32"
    (prediction,) = ran(qtbot, viewer, panel, blob).predictions
    page(panel, "intervene")
    row, gate = panel.intervene.rows[0], prediction.gates[0]
    row.switch.value = "painted"
    assert f"painted for {gate.name}" in named(panel, "intervene_run").toolTip()
    named(panel, f"new_paint_{gate.name}").click()
    (paint,) = of_role(viewer, "painted")
    assert isinstance(paint, Labels)
    assert paint.mode == "paint"
    assert paint.data.shape == gate.coefficients.shape
    np.testing.assert_allclose(
        paint.data_to_world((1, 1, 1)), np.add(gate.translate, gate.scale), atol=1e-9
    )
    paint.data[:, :3] = 1
    paint.data[:, -2:] = 2
    paint.refresh()
    press(qtbot, panel, "intervene_run")
    forced = np.full(paint.data.shape, np.nan, np.float32)
    forced[:, :3], forced[:, -2:] = 0, 1
    changed = predict(load_model(checkpoint), blob, precision="float32", gates={gate.name: forced})
    (layer,) = of_role(viewer, "difference")
    np.testing.assert_array_equal(layer.data, difference_labels(prediction.mask, changed.mask))

    paint.data[0] = 3
    press(qtbot, panel, "intervene_run", fails=True)
    assert "have the value 3" in message(panel)
    assert len(of_role(viewer, "difference")) == 1
    run(qtbot, panel)
    assert paint in viewer.layers, "another run took what was painted"
    assert not of_role(viewer, "difference")


def test_the_ablation_table_and_its_sentence(docked, qtbot, blob):
    viewer, panel = docked
    (prediction,) = ran(qtbot, viewer, panel, blob).predictions
    page(panel, "intervene")
    panel.intervene.ablation_fold.open()
    right = viewer.add_labels(prediction.mask.copy(), name="right")
    panel.intervene.reference.value = right
    press(qtbot, panel, "ablate")
    model = panel.intervene.ablation.model
    assert list(model.frame["gate"]) == [gate.name for gate in prediction.gates]
    for switch in ("closed", "open", "mean"):
        assert model.frame[switch].between(0, 1).all()
    assert (model.frame["closed · gain"] <= 0).all(), "better than right"
    assert "closed" in panel.intervene.ablation_note.text().lower()


def test_cancelled_in_the_middle_and_closed_in_the_middle(docked, qtbot):
    viewer, panel = docked
    noise = np.random.default_rng(0).normal(size=(96, 96, 96)).astype(np.float32)
    ran(qtbot, viewer, panel, noise)
    page(panel, "intervene")
    before = list(viewer.layers)
    named(panel, "ablate").click()
    assert not named(panel, "run").isEnabled()
    assert "ablation is under way" in named(panel, "run").toolTip()
    assert not named(panel, "gradcam").isEnabled()
    qtbot.waitUntil(lambda: named(panel, "progress").value() > 0, timeout=PATIENCE)
    named(panel, "cancel").click()
    finish(qtbot, panel)
    assert "The ablation was cancelled after" in message(panel)
    assert list(viewer.layers) == before
    assert named(panel, "run").isEnabled()
    named(panel, "ablate").click()
    qtbot.waitUntil(lambda: named(panel, "progress").value() > 0, timeout=PATIENCE)
    viewer.close()


def test_results_removed_in_the_middle(docked, qtbot, blob):
    viewer, panel = docked
    ran(qtbot, viewer, panel, blob)
    page(panel, "intervene")
    panel.intervene.rows[0].switch.value = "open"
    named(panel, "intervene_run").click()
    viewer.layers.clear()
    finish(qtbot, panel)
    assert "removed meanwhile" in message(panel)
    assert len(viewer.layers) == 0


def test_seg_grad_cam_and_the_sanity_check(docked, qtbot, blob):
    viewer, panel = docked
    (prediction,) = ran(qtbot, viewer, panel, blob, scale=(2, 1, 1)).predictions
    page(panel, "intervene")
    panel.gradcam.open()
    panel.sanity.open()
    panel.gradcam.target.value = "shell"
    press(qtbot, panel, "gradcam")
    layers = of_role(viewer, "gradcam")
    assert [about(layer)["gate"] for layer in layers] == [g.name for g in prediction.gates]
    assert sum(layer.visible for layer in layers) == 1
    for layer in layers:
        assert np.nanmax(layer.data) <= 1
        np.testing.assert_allclose(
            layer.data_to_world(np.subtract(layer.data.shape, 1)),
            layer.data_to_world((0, 0, 0))
            + np.multiply(layer.scale, np.subtract(layer.data.shape, 1)),
        )
    table = panel.gradcam.table.model.frame
    assert list(table["gate"]) == [gate.name for gate in prediction.gates]
    assert table["rank_correlation"].abs().max() <= 1
    press(qtbot, panel, "sanity")
    shown = panel.sanity.table.model.frame
    assert set(shown["gate"]) == {gate.name for gate in prediction.gates}
    assert panel.sanity.note.text()
