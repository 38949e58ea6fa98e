"""What a person does in the real viewer, from the first click to the layers."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
from napari.layers import Image, Labels
from napari.utils import progress
from panel_helpers import (
    drop,
    message,
    named,
    results,
    run,
    settle,
    use_model,
    wait_ready,
    wait_said,
)
from qtpy.QtCore import Qt

from napari_attention_unet.io.layers import RESULT_KEY
from napari_attention_unet.predict import load_model, predict

PARTS = ("image", "model", "device", "run", "cancel", "progress", "gates")


def test_panel_opens_from_the_menu_and_says_what_is_missing(docked):
    _viewer, panel = docked
    for name in PARTS:
        assert named(panel, name).toolTip() or name == "gates"
    assert not named(panel, "run").isEnabled()
    assert not named(panel, "cancel").isEnabled()
    assert message(panel) == "Open a 3D image, or drop a file here."
    assert named(panel, "run").toolTip() == message(panel)
    assert "every attention gate" in named(panel, "gates_message").text()
    assert 320 <= panel.width() <= 360


def test_every_control_has_a_tip_and_nothing_is_cut_off(docked, qtbot):
    from qtpy.QtWidgets import QAbstractButton, QAbstractSpinBox, QComboBox, QLineEdit

    _viewer, panel = docked
    panel.advanced.fold.setChecked(True)
    for kind in (QAbstractButton, QComboBox, QAbstractSpinBox, QLineEdit):
        for widget in panel.findChildren(kind):
            if widget.isVisible() and widget.objectName() != "qt_spinbox_lineedit":
                assert widget.toolTip(), f"no tip: {widget.objectName()} {widget}"
    scroll = named(panel, "run_page")
    content = scroll.widget()
    assert content.minimumSizeHint().width() <= scroll.viewport().width()


def test_drop_a_head_and_a_checkpoint_and_run(docked, qtbot, tmp_path, checkpoint, blob):
    viewer, panel = docked
    affine = np.diag([1.5, 2.0, 2.5, 1.0])
    affine[:3, 3] = (-20, -30, 10)
    path = tmp_path / "head.nii.gz"
    nib.save(nib.Nifti1Image(blob, affine), path)

    drop(panel, [path, checkpoint])
    assert panel.model.facts is None, "the checkpoint is read anew on a thread"
    wait_ready(qtbot, panel)
    (image,) = viewer.layers
    assert panel.image.layer is image
    assert named(panel, "image").currentText() == "head"
    assert "28 × 24 × 20" in named(panel, "image_note").text()
    assert named(panel, "model").currentText() == "small.safetensors"
    assert "core, shell" in named(panel, "model_note").text()
    assert "2 gates" in named(panel, "model_note").text()

    run(qtbot, panel)
    assert "Done in" in message(panel)
    assert not progress._all_instances, "the activity dock still shows the run"
    assert not named(panel, "cancel").isEnabled()
    assert named(panel, "progress").isHidden()

    volume = panel.image.volume()
    expected = predict(load_model(checkpoint), volume)
    (mask,) = results(viewer, "mask")
    assert isinstance(mask, Labels)
    np.testing.assert_array_equal(mask.data, expected.mask)
    assert list(mask.features["class"]) == ["background", "core", "shell"]
    np.testing.assert_allclose(mask.colormap.map(1), [1, 128 / 255, 0, 1], atol=1e-6)

    gates = results(viewer, "gate")
    assert [layer.metadata[RESULT_KEY]["gate"] for layer in gates] == [
        gate.name for gate in expected.gates
    ]
    for layer, gate in zip(gates, expected.gates, strict=True):
        assert isinstance(layer, Image)
        np.testing.assert_allclose(layer.data, gate.coefficients, atol=1e-6)
        assert layer.units == image.units
        assert layer.axis_labels == image.axis_labels
        assert tuple(layer.contrast_limits) == (0, 1)
        assert layer.interpolation2d == "linear"
        assert layer.name.startswith("small")
        for corner in ((0, 0, 0), tuple(n - 1 for n in layer.data.shape)):
            at_voxel = np.array(gate.translate) + np.array(gate.scale) * corner
            np.testing.assert_allclose(
                layer.data_to_world(corner), image.data_to_world(at_voxel), atol=1e-9
            )
    about = gates[0].metadata[RESULT_KEY]
    assert about["sha256"] == expected.provenance["sha256"]
    assert named(panel, "image").count() == 1, "gate layers are offered as images"

    rows = panel.gates.rows
    assert [row.gate.name for row in rows] == [gate.name for gate in expected.gates]
    best = max(rows, key=lambda row: row.gate.measures[0].auc)
    assert [layer.visible for layer in gates] == [row is best for row in rows]
    assert viewer.layers.selection.active is best.gate.layer


def test_running_again_replaces_by_metadata_or_adds(docked, qtbot, checkpoint, blob):
    viewer, panel = docked
    viewer.add_image(blob, name="ball")
    run(qtbot, panel)
    first = results(viewer)
    assert len(first) == 3
    for index, layer in enumerate(first):
        layer.name = f"my own name {index}"
    other = viewer.add_image(blob[::-1], name="other")
    run(qtbot, panel)
    assert len(results(viewer)) == 3
    assert not set(first) & set(viewer.layers)

    named(panel, "replace").setChecked(False)
    run(qtbot, panel)
    assert len(results(viewer)) == 6

    named(panel, "replace").setChecked(True)
    panel.image.image.value = other
    run(qtbot, panel)
    assert len(results(viewer)) == 9, "results of another image were replaced"


def test_results_are_outdated_when_their_image_changes(docked, qtbot, checkpoint, blob):
    viewer, panel = docked
    image = viewer.add_image(blob, name="ball")
    run(qtbot, panel)
    image.visible = False
    image.opacity = 0.5
    image.name = "ball 2"
    assert not [layer for layer in results(viewer) if "outdated" in layer.name]
    image.scale = (2, 1, 1)
    assert all(layer.name.endswith(" (outdated)") for layer in results(viewer))
    assert "outdated" in message(panel)
    run(qtbot, panel)
    fresh = results(viewer)
    assert len(fresh) == 3
    assert not [layer for layer in fresh if "outdated" in layer.name]
    np.testing.assert_allclose(fresh[0].scale, (2, 1, 1))
    image.data = blob * 2
    assert all(layer.name.endswith(" (outdated)") for layer in results(viewer))
    run(qtbot, panel)
    viewer.layers.remove(image)
    assert len(results(viewer)) == 3
    assert all(layer.name.endswith(" (outdated)") for layer in results(viewer))


def test_gates_are_shown_alone_hidden_and_scaled(docked, qtbot, checkpoint, blob):
    viewer, panel = docked
    viewer.add_image(blob, name="ball")
    run(qtbot, panel)
    rows = panel.gates.rows
    layers = [row.gate.layer for row in rows]
    shown = next(i for i, layer in enumerate(layers) if layer.visible)
    hidden = 1 - shown

    rows[hidden].eye.click()
    assert [layer.visible for layer in layers] == [True, True]
    (mask,) = results(viewer, "mask")
    qtbot.mouseClick(rows[hidden].solo_button, Qt.MouseButton.LeftButton)
    assert [layer.visible for layer in layers] == [i == hidden for i in range(2)]
    assert not mask.visible
    qtbot.mouseClick(rows[shown].solo_button, Qt.MouseButton.LeftButton)
    assert [layer.visible for layer in layers] == [i == shown for i in range(2)]
    assert rows[shown].solo_button.isChecked()
    assert not rows[hidden].solo_button.isChecked()
    qtbot.mouseClick(rows[shown].solo_button, Qt.MouseButton.LeftButton)
    assert [layer.visible for layer in layers] == [True, True]
    assert mask.visible

    named(panel, "scaling_percentile").click()
    for row, layer in zip(rows, layers, strict=True):
        m = row.gate.measures[0]
        np.testing.assert_allclose(layer.contrast_limits, (m.low, m.high))
        np.testing.assert_allclose(row.bar.limits, (m.low, m.high))
    named(panel, "scaling_full").click()
    assert all(tuple(layer.contrast_limits) == (0, 1) for layer in layers)

    named(panel, "opacity").setValue(40)
    assert [layer.opacity for layer in layers] == [0.4, 0.4]

    qtbot.mouseClick(rows[0], Qt.MouseButton.LeftButton)
    assert viewer.layers.selection.active is layers[0]
    viewer.layers.remove(layers[0])
    assert [row.gate.layer for row in panel.gates.rows] == [layers[1]]


def test_views_turn_upright_with_letters(docked, qtbot):
    viewer, panel = docked
    viewer.open_sample("napari-attention-unet", "t1-head")
    letters = panel.view.letters
    assert letters.texts == {"top": "A", "bottom": "P", "left": "R", "right": "L"}
    named(panel, "coronal").click()
    assert viewer.dims.order == (1, 0, 2)
    assert letters.texts == {"top": "S", "bottom": "I", "left": "R", "right": "L"}
    named(panel, "sagittal").click()
    assert viewer.dims.order == (2, 0, 1)
    assert letters.texts == {"top": "S", "bottom": "I", "left": "A", "right": "P"}
    assert "patient's left is on the right" in named(panel, "axial").toolTip()
    viewer.scene.camera.orientation2d = ("down", "left")
    assert letters.texts["left"] == "P"
    viewer.dims.ndisplay = 3
    assert letters.texts == {}
    named(panel, "axial").click()
    assert viewer.dims.ndisplay == 2
    named(panel, "letters").click()
    assert letters.texts == {}
    viewer.layers.clear()
    viewer.add_image(np.zeros((5, 6, 7)))
    assert named(panel, "axial").text() == "xy"
    assert not named(panel, "letters").isEnabled()


def test_time_points_one_or_all(docked, qtbot, checkpoint, blob):
    viewer, panel = docked
    series = np.stack([blob, np.sqrt(blob), np.roll(blob, 5, axis=2) ** 2])
    viewer.add_image(series, axis_labels=("t", "z", "y", "x"), scale=(10, 2, 1, 1), name="film")
    time = named(panel, "time")
    assert time.isVisible()
    viewer.dims.set_current_step(0, 1)
    run(qtbot, panel)
    (mask,) = results(viewer, "mask")
    assert mask.data.shape == (1, *blob.shape)
    np.testing.assert_allclose(mask.data_to_world((0, 0, 0, 0)), (10, 0, 0, 0))
    panel.image.time.value = "all"
    run(qtbot, panel)
    (mask,) = results(viewer, "mask")
    assert mask.data.shape == series.shape
    model = load_model(checkpoint)
    for index in range(3):
        np.testing.assert_array_equal(
            mask.data[index], predict(model, panel.image.volume(index)).mask
        )
    texts = []
    for index in range(3):
        viewer.dims.set_current_step(0, index)
        texts.append(tuple(row.numbers.text() for row in panel.gates.rows))
    assert len(set(texts)) > 1, "the numbers do not follow the time point"


def test_a_level_of_a_multiscale_image(docked, qtbot, checkpoint, blob):
    viewer, panel = docked
    big = np.kron(blob, np.ones((2, 2, 2), np.float32))
    image = viewer.add_image([big, blob], multiscale=True, scale=(1, 0.5, 0.5), name="pyramid")
    level = named(panel, "level")
    assert level.isVisible()
    assert [level.itemText(i) for i in range(2)] == ["0 · 40 × 48 × 56", "1 · 20 × 24 × 28"]
    panel.image.level.value = 1
    assert "20 × 24 × 28" in named(panel, "image_note").text()
    run(qtbot, panel)
    (mask,) = results(viewer, "mask")
    assert mask.data.shape == blob.shape
    # voxel j of the level lies at (j + 0.5) * 2 - 0.5 of the finest one
    np.testing.assert_allclose(mask.data_to_world((3, 4, 5)), image.data_to_world((6.5, 8.5, 10.5)))


def test_the_drawn_box_and_the_visible_slab(docked, qtbot, checkpoint, blob):
    viewer, panel = docked
    image = viewer.add_image(blob, scale=(2, 1, 1), name="ball")
    wait_ready(qtbot, panel)
    panel.image.region.value = "box"
    assert not named(panel, "run").isEnabled()
    assert "Add a Shapes layer" in message(panel)
    shapes = viewer.add_shapes(name="box", ndim=3)
    assert "Draw a rectangle" in message(panel)
    corners = [(0, 4, 6), (0, 4, 21), (0, 19, 21), (0, 19, 6)]
    shapes.add_rectangles([np.array(corners, float)])
    assert "20 × 16 × 16" in named(panel, "image_note").text()
    run(qtbot, panel)
    (mask,) = results(viewer, "mask")
    assert mask.data.shape == (20, 16, 16)
    np.testing.assert_allclose(mask.data_to_world((0, 0, 0)), image.data_to_world((0, 4, 6)))

    panel.image.region.value = "slab"
    panel.image.slab.value = 8
    viewer.dims.set_point(0, 20)  # slice 10
    run(qtbot, panel)
    (mask,) = results(viewer, "mask")
    assert mask.data.shape == (8, 24, 28)
    np.testing.assert_allclose(mask.data_to_world((0, 0, 0)), image.data_to_world((6, 0, 0)))
    viewer.dims.ndisplay = 3
    panel.image.slab.value = 9
    assert "needs the 2D view" in message(panel)


def test_one_layer_a_channel(docked, qtbot, two_channel_checkpoint, blob):
    viewer, panel = docked
    other = viewer.add_image(blob[::-1].copy(), name="sub-1 flair")
    first = viewer.add_image(blob, name="sub-1 t1")
    use_model(qtbot, panel, two_channel_checkpoint)
    assert panel.image.layers == [first, other], "channels are found by their names"
    run(qtbot, panel)
    (mask,) = results(viewer, "mask")
    both = np.stack([blob, blob[::-1]])
    np.testing.assert_array_equal(mask.data, predict(load_model(two_channel_checkpoint), both).mask)
    wrong = viewer.add_image(blob[:, :10], name="small")
    panel.image.channels.boxes[0].value = wrong
    assert not named(panel, "run").isEnabled()
    assert "differ in shape" in message(panel)
    stacked = viewer.add_image(both, name="stack")
    panel.image.image.value = stacked
    assert panel.image.channels.boxes == []
    run(qtbot, panel)
    assert results(viewer, "mask")[-1].data.shape[-3:] == blob.shape


def test_choices_persist_and_reset(docked, qtbot, checkpoint):
    viewer, panel = docked
    assert panel.model.name == str(checkpoint)
    panel.advanced.plan.value = "tiles"
    panel.advanced.spacing.value = "2, 1, 1"
    panel.advanced.rule.value = "threshold"
    panel.model.add_probabilities.value = True
    named(panel, "advanced_fold").setChecked(True)
    viewer.window.remove_dock_widget(panel)
    _dock, again = viewer.window.add_plugin_dock_widget("napari-attention-unet", "Attention U-Net")
    assert again is not panel
    assert again.model.name == str(checkpoint)
    assert again.advanced.plan.value == "tiles"
    assert again.advanced.spacing.value == "2, 1, 1"
    assert again.advanced.rule.value == "threshold"
    qtbot.waitUntil(named(again, "threshold").isVisible)
    assert again.model.outputs == ("mask", "probabilities", "gates")
    named(again, "reset").click()
    assert again.advanced.plan.value == "auto"
    assert again.advanced.spacing.value == ""
    assert again.model.outputs == ("mask", "gates")
    assert again.model.name == "brain-t1"
    settle(qtbot, again)


def test_a_tiff_with_time_and_channels_opens_by_a_drop(docked, qtbot, tmp_path):
    viewer, panel = docked
    path = tmp_path / "cells.tif"
    data = np.random.default_rng(0).integers(0, 255, (2, 5, 2, 16, 18), dtype=np.uint8)
    tifffile.imwrite(
        path, data, imagej=True, metadata={"axes": "TZCYX", "spacing": 2.0, "unit": "um"}
    )
    drop(panel, [path])
    qtbot.waitUntil(lambda: len(viewer.layers) == 2, timeout=10_000)
    assert [layer.data.shape for layer in viewer.layers] == [(2, 5, 16, 18)] * 2
    assert viewer.layers[0].scale[1] == 2.0


@pytest.mark.parametrize("name", ["notes.txt", "broken.nii.gz", "cut.tif"])
def test_files_that_cannot_be_used_are_named(docked, qtbot, tmp_path: Path, name):
    viewer, panel = docked
    path = tmp_path / name
    path.write_bytes(b"II*\x00nonsense")
    drop(panel, [path])
    wait_said(qtbot, panel, name)
    assert len(viewer.layers) == 0


def test_the_bundled_model_on_a_part_of_the_bundled_head(docked, qtbot):
    viewer, panel = docked
    viewer.open_sample("napari-attention-unet", "t1-head")
    (head,) = viewer.layers
    panel.model.model.value = "brain-t1"
    settle(qtbot, panel)
    shapes = viewer.add_shapes(name="box", ndim=3, units=head.units)
    corners = head.data_to_world((45, 30, 25)), head.data_to_world((45, 69, 64))
    (z, y0, x0), (_, y1, x1) = corners
    shapes.add_rectangles([np.array([(z, y0, x0), (z, y0, x1), (z, y1, x1), (z, y1, x0)])])
    panel.image.region.value = "box"
    panel.advanced.keep_largest.value = True
    run(qtbot, panel)
    assert "Done in" in message(panel)
    (mask,) = results(viewer, "mask")
    assert mask.data.shape == (91, 40, 40)
    np.testing.assert_allclose(mask.data_to_world((0, 0, 0)), head.data_to_world((0, 30, 25)))
    assert list(mask.features["class"])[1:] == ["grey matter", "white matter", "CSF"]
    assert {1, 2} <= set(np.unique(mask.data)), "neither grey nor white matter in a brain"
    assert mask.metadata[RESULT_KEY]["options"]["keep_largest"]
    assert [row.gate.name for row in panel.gates.rows] == ["att4", "att3", "att2", "att1"]
    assert [row.gate.grid for row in panel.gates.rows] == ["1/8", "1/4", "1/2", "1/1"]
    assert sum(layer.visible for layer in results(viewer, "gate")) == 1


def test_an_oblique_head_is_shown_at_its_exact_place_on_request(docked, qtbot, tmp_path, blob):
    viewer, panel = docked
    angle = np.deg2rad(20)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine[:3, :3] *= 2
    affine[:3, 3] = (-10, 20, 30)
    path = tmp_path / "tilted.nii.gz"
    nib.save(nib.Nifti1Image(blob, affine), path)
    drop(panel, [path])
    qtbot.waitUntil(lambda: len(viewer.layers) == 1)
    (image,) = viewer.layers
    oblique = named(panel, "oblique")
    assert not oblique.isHidden()
    np.testing.assert_array_equal(np.asarray(image.affine), np.eye(4))
    run(qtbot, panel)

    oblique.click()
    assert viewer.dims.ndisplay == 3
    # world is z, y, x growing to inferior, posterior, left; the file's is x, y, z to right,
    # anterior, superior
    for voxel in ((0, 0, 0), (5, 6, 7)):
        exact = -(affine @ [*voxel, 1])[:3][::-1]
        index = np.array(voxel)[::-1]
        shown = np.array([n - 1 for n in image.data.shape]) - index
        np.testing.assert_allclose(image.data_to_world(shown), exact, atol=1e-4)
    for layer in results(viewer):
        np.testing.assert_array_equal(np.asarray(layer.affine), np.asarray(image.affine))
        assert "outdated" not in layer.name
    oblique.click()
    assert viewer.dims.ndisplay == 2
    for layer in viewer.layers:
        np.testing.assert_array_equal(np.asarray(layer.affine), np.eye(4))
