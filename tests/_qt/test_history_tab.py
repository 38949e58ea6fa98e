"""A training's checkpoints as layers with a slider, and two runs against each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from inspect_helpers import about, finish, of_role, page, press, ran
from panel_helpers import PATIENCE, message, named, run

from napari_attention_unet._qt import history_control
from napari_attention_unet.inspect.compare import compare
from napari_attention_unet.model import load_model
from napari_attention_unet.models import save_checkpoint
from napari_attention_unet.models.checkpoint import open_checkpoint
from napari_attention_unet.predict import predict

EPOCHS = (0, 10, 20, 30)


@pytest.fixture
def training(tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four checkpoints of one network, each a step further from the first."""
    monkeypatch.setattr(history_control, "user_cache_path", lambda name: tmp_path / "cache")
    folder = tmp_path / "training"
    folder.mkdir()
    opened = open_checkpoint(checkpoint)
    network = opened.module
    for step, epoch in enumerate(EPOCHS):
        generator = torch.Generator().manual_seed(step)
        with torch.no_grad():
            for parameter in network.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter += 0.1 * step * noise * parameter.abs().mean()
        save_checkpoint(folder / f"epoch={epoch:03d}.safetensors", network, opened.card)
    return folder


def test_the_slider_goes_through_the_epochs(docked, qtbot, blob, training):
    viewer, panel = docked
    place = {"scale": (2, 1, 1), "translate": (4, 0, 0), "units": ("mm",) * 3}
    image = viewer.add_image(blob, name="ball", **place)
    panel.advanced.precision.value = "float32"
    page(panel, "history")
    named(panel, "history_folder").setText(str(training / "nothing"))
    assert "There is no folder" in named(panel, "history_run").toolTip()
    named(panel, "history_folder").setText(str(training))
    press(qtbot, panel, "history_run")
    assert "4 checkpoints from epoch 0 to 30" in message(panel)
    layers = of_role(viewer, "history")
    assert len(layers) == 3
    assert viewer.dims.ndim == 4
    for index, epoch in enumerate(EPOCHS):
        path = training / f"epoch={epoch:03d}.safetensors"
        expected = predict(load_model(path), blob, precision="float32")
        np.testing.assert_array_equal(np.asarray(layers[0].data[index]), expected.mask)
        for layer, gate in zip(layers[1:], expected.gates, strict=True):
            assert about(layer)["gate"] == gate.name
            np.testing.assert_allclose(np.asarray(layer.data[index]), gate.coefficients, atol=1e-5)
            at = np.add(gate.translate, gate.scale)
            np.testing.assert_allclose(
                layer.data_to_world((index, 1, 1, 1)), (epoch, *image.data_to_world(at))
            )
            assert str(layer.units[1]) == "millimeter"
    assert layers[1].axis_labels[0] == "epoch"

    viewer.dims.set_point(0, 20)
    curves = panel.history.plot.curves
    assert curves.here == 20
    np.testing.assert_array_equal(curves.distance, EPOCHS)
    table = panel.controller.history._history.measures
    panel.history.region.value = "shell"
    panel.history.measure.value = "outside"
    gate = about(layers[1])["gate"]
    rows = table[(table["gate"] == gate) & (table["region"] == "shell")]
    np.testing.assert_allclose(panel.history.plot.curves.values[gate], rows["outside"])
    assert named(panel, "history_table").isVisible()

    for layer in layers:
        viewer.layers.remove(layer)
    assert panel.controller.history._history is None
    assert not named(panel, "history_table").isVisible()


def test_a_cancelled_history_goes_on_where_it_stopped(docked, qtbot, blob, training):
    viewer, panel = docked
    big = np.tile(blob, (4, 4, 4))
    viewer.add_image(big, name="big")
    page(panel, "history")
    named(panel, "history_folder").setText(str(training))
    named(panel, "history_run").click()
    kept = training.parent / "cache"
    qtbot.waitUntil(
        lambda: (kept.is_dir() and any(kept.rglob("*.json"))) or not _busy(panel), timeout=PATIENCE
    )
    named(panel, "cancel").click()
    finish(qtbot, panel)
    assert "The history was cancelled" in message(panel)
    assert not of_role(viewer, "history")
    before = {path: path.stat().st_mtime_ns for path in kept.rglob("*") if path.is_file()}
    assert before
    press(qtbot, panel, "history_run")
    assert len(of_role(viewer, "history")) == 3
    assert all(path.stat().st_mtime_ns == time for path, time in before.items()), "run again"


def _busy(panel) -> bool:
    return bool(panel.controller.inspection.busy)


def test_a_folder_without_checkpoints(docked, qtbot, blob, tmp_path):
    viewer, panel = docked
    viewer.add_image(blob, name="ball")
    page(panel, "history")
    named(panel, "history_folder").setText(str(tmp_path))
    press(qtbot, panel, "history_run", fails=True)
    assert named(panel, "message").property("role") == "error"
    assert "checkpoint" in message(panel)


def test_two_runs_differ_and_stand_side_by_side(docked, qtbot, blob):
    viewer, panel = docked
    first = ran(qtbot, viewer, panel, blob)
    named(panel, "replace").setChecked(False)
    panel.advanced.normalize.value = "minmax"
    run(qtbot, panel)
    second = panel.controller.inspection.runs.latest
    assert second is not first
    page(panel, "history")
    panel.compare.open()
    press(qtbot, panel, "compare")
    expected = compare(first.predictions[0], second.predictions[0])
    (difference,) = of_role(viewer, "difference")
    np.testing.assert_array_equal(difference.data, expected.difference)
    gates = of_role(viewer, "difference of gates")
    for layer, pair in zip(gates, expected.pairs, strict=True):
        np.testing.assert_allclose(layer.data, pair.difference.coefficients, atol=1e-6)
    assert len(panel.compare.gates.model.frame) == len(expected.pairs)
    assert not panel.compare.measures.model.frame.empty

    before = [(layer, layer.visible) for layer in viewer.layers]
    side = named(panel, "side_by_side")
    side.click()
    grid = viewer.canvas.grid
    assert grid.enabled
    assert grid.actual_shape(viewer.layers) == (1, 2)
    copies = of_role(viewer, "side")
    assert len(copies) == 6
    for index, layer in enumerate(viewer.layers):
        if layer.visible:
            assert layer in copies
            assert grid.position(index, viewer.layers) == (0, copies.index(layer) // 3)
    masks = [copies[1].data, copies[4].data]
    assert np.shares_memory(masks[0], of_role(viewer, "mask")[0].data)
    assert not np.array_equal(*masks)
    side.click()
    assert not grid.enabled
    assert [(layer, layer.visible) for layer in viewer.layers] == before

    panel.compare.first.value = panel.compare.second.value
    assert not named(panel, "compare").isEnabled()
    assert "different runs" in named(panel, "compare").toolTip()
