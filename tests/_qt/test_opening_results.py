"""A saved result that is dropped on the panel: shown, measured and changed as if just run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from inspect_helpers import about, finish, of_role, page, press
from panel_helpers import PATIENCE, drop, load_once, named, results, run, wait_said

from napari_attention_unet import io, predict
from napari_attention_unet.io.placement import index_to_world


@pytest.fixture
def head(tmp_path: Path, blob: np.ndarray) -> Path:
    """The ball as a NIfTI file of 2 x 1.5 x 1 mm."""
    affine = np.diag([-1.0, 1.5, 2.0, 1.0])
    nib.save(nib.Nifti1Image(blob.transpose(2, 1, 0), affine), tmp_path / "ball.nii.gz")
    return tmp_path / "ball.nii.gz"


@pytest.fixture
def saved(tmp_path: Path, head: Path, checkpoint: Path) -> Path:
    """The folder of a result of it."""
    (volume,) = io.read(head)
    return predict(load_once(str(checkpoint)), volume).save(tmp_path / "result")


def open_result(qtbot: Any, panel: Any, path: Path) -> Any:
    """Drop a result, wait until it is shown, and give the run that the tabs are about."""
    drop(panel, [path])
    wait_said(qtbot, panel, "Opened '")
    return panel.controller.inspection.runs.latest


def test_it_is_shown_as_the_run_that_made_it(docked, qtbot, head, saved):
    viewer, panel = docked
    opened = open_result(qtbot, panel, saved)
    assert "Opened 'result': small, saved " in named(panel, "message").text()
    assert panel.tabs.page == "gates"
    rows = [(r.gate.name, r.numbers.text(), r.extent.text()) for r in panel.gates.rows]
    layers = {layer.name: layer for layer in results(viewer)}
    assert viewer.layers[0].name == "ball"
    assert panel.image.layer is viewer.layers["ball"]
    assert opened.closed == ""
    data = {name: np.array(layer.data) for name, layer in layers.items()}
    world = {name: index_to_world(layer) for name, layer in layers.items()}
    shown = [layer.name for layer in results(viewer, "gate") if layer.visible]
    assert len(shown) == 1

    for layer in list(viewer.layers):
        viewer.layers.remove(layer)
    assert panel.controller.inspection.runs.latest is None
    drop(panel, [head])
    qtbot.waitUntil(lambda: len(viewer.layers) == 1, timeout=PATIENCE)
    run(qtbot, panel)
    assert [(r.gate.name, r.numbers.text(), r.extent.text()) for r in panel.gates.rows] == rows
    assert {layer.name for layer in results(viewer)} == set(data)
    for layer in results(viewer):
        np.testing.assert_array_equal(layer.data, data[layer.name])
        np.testing.assert_allclose(index_to_world(layer), world[layer.name])
    assert [layer.name for layer in results(viewer, "gate") if layer.visible] == shown


def test_its_image_is_not_opened_twice(docked, qtbot, head, saved):
    viewer, panel = docked
    drop(panel, [head])
    qtbot.waitUntil(lambda: len(viewer.layers) == 1, timeout=PATIENCE)
    opened = open_result(qtbot, panel, saved / "prediction.json")
    assert [layer.name for layer in viewer.layers].count("ball") == 1
    assert opened.source_id == str(viewer.layers["ball"].unique_id)
    viewer.layers["ball"].translate = (9.0, 9.0, 9.0)  # they no longer lie over it
    assert all(layer.name.endswith("(outdated)") for layer in results(viewer))


def test_the_tabs_measure_it_and_change_its_gates(docked, qtbot, head, saved, checkpoint):
    viewer, panel = docked
    open_result(qtbot, panel, saved)
    page(panel, "measure")
    qtbot.waitUntil(
        lambda: not panel.measure.note.isVisible() or "Measuring" not in panel.measure.note.text(),
        timeout=PATIENCE,
    )
    assert named(panel, "measure_by").isEnabled()
    page(panel, "intervene")
    row = panel.intervene.rows[0]
    row.switch.value = "closed"
    press(qtbot, panel, "intervene_run")
    (difference,) = of_role(viewer, "difference")
    (volume,) = io.read(head)
    model = load_once(str(checkpoint))
    closed = predict(model, volume, gates={row.gate.name: 0.0}).mask
    before = predict(model, volume).mask
    shown = np.asarray(difference.data)
    np.testing.assert_array_equal(shown == 2, (closed > 0) & (before == 0))
    np.testing.assert_array_equal(shown == 3, (closed == 0) & (before > 0))
    assert (shown > 1).any()


def test_without_its_image_it_is_shown_and_says_what_cannot_be_done(
    docked, qtbot, head, saved, tmp_path
):
    viewer, panel = docked
    head.unlink()
    opened = open_result(qtbot, panel, saved)
    assert len(viewer.layers) == len(results(viewer)) == 3
    assert len(panel.gates.rows) == 2
    page(panel, "intervene")
    panel.intervene.rows[0].switch.value = "closed"
    for name in ("intervene_run", "ablate", "gradcam", "sanity"):
        assert not named(panel, name).isEnabled()
        assert "is not where it was" in named(panel, name).toolTip()
    assert not opened.has_image
    panel.controller.report.write(tmp_path / "report.html")
    finish(qtbot, panel)
    assert (tmp_path / "report.html").exists(), named(panel, "message").text()


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("source", "", "does not say where its model"),
        ("source", "gone.pth", "cannot be used"),
        ("sha256", "00" * 32, "not the model of this result any more"),
        ("checkpoint_options", {"norm": {"value": "batch", "stated": True}}, "other options"),
    ],
)
def test_with_another_model_its_gates_cannot_be_changed(docked, qtbot, saved, key, value, reason):
    _viewer, panel = docked
    path = saved / "prediction.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), key: value}), "utf-8")
    opened = open_result(qtbot, panel, saved)
    assert reason in opened.closed
    assert not named(panel, "ablate").isEnabled()
    assert named(panel, "ablate").toolTip() == opened.closed


def test_a_damaged_result_is_refused_in_a_sentence(docked, qtbot, saved):
    viewer, panel = docked
    (saved / "mask.nii.gz").unlink()
    drop(panel, [saved])
    wait_said(qtbot, panel, "is missing from the result")
    assert not viewer.layers


def test_layers_opened_by_napari_itself_have_their_metadata(docked, saved):
    viewer, _panel = docked
    added = viewer.open(str(saved), plugin="napari-attention-unet")
    assert [about(layer)["role"] for layer in added[1:]] == ["mask", "gate", "gate"]
