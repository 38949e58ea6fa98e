"""The probe: what is under the cursor, at pins and along lines is what the arrays have."""

from __future__ import annotations

import time

import numpy as np
import pytest
from inspect_helpers import of_role, page, ran
from napari.layers import Points
from panel_helpers import named, run
from qtpy.QtWidgets import QMainWindow

from napari_attention_unet._qt.place import place_of
from napari_attention_unet.io.layers import RESULT_KEY, layers_from_prediction
from napari_attention_unet.models import ClassInfo
from napari_attention_unet.prediction import GateMap, Prediction
from napari_attention_unet.volume import Volume


def nearest(gate: GateMap, voxel) -> float:
    """Coefficient at a voxel, by the definition of a gate's grid."""
    index = [
        int(np.clip(np.floor((v - t) / s + 0.5), 0, n - 1))
        for v, t, s, n in zip(
            voxel, gate.translate, gate.scale, gate.coefficients.shape, strict=True
        )
    ]
    return float(gate.coefficients[tuple(index)])


def status(panel) -> str:
    label = panel.window().findChild(object, "attention_unet_status")
    return "" if label is None else label.text()


def test_every_value_under_the_cursor(docked, qtbot, blob):
    viewer, panel = docked
    panel.model.add_probabilities.value = True
    finished = ran(qtbot, viewer, panel, blob, scale=(2, 1, 0.5), translate=(-7, 3, 1))
    (prediction,) = finished.predictions
    rng = np.random.default_rng(0)
    for voxel in rng.integers(0, blob.shape, (20, 3)):
        world = np.array((-7, 3, 1)) + np.array((2, 1, 0.5)) * voxel
        viewer.dims.set_point(range(3), world)
        viewer.cursor.position = tuple(world)
        for row, gate in zip(panel.gates.rows, prediction.gates, strict=True):
            expected = nearest(gate, voxel)
            assert row.bar._needle == pytest.approx(expected, abs=1e-6)
            assert float(row.reading.text()) == pytest.approx(expected, abs=0.006)
            assert gate.name in status(panel)
        name = prediction.classes[int(prediction.mask[tuple(voxel)])].name
        assert panel.probe.where.text().startswith(name)
        shown = panel.probe.bars._values
        for index, info in enumerate(prediction.classes):
            assert shown[info.name] == pytest.approx(
                float(prediction.probabilities[(index, *voxel)]), abs=1e-6
            )
        assert f"{world[0]:.1f}".replace("-", "\u2212") in status(panel)
    viewer.cursor.position = (-7, 1e4, 0)
    assert status(panel) == ""
    assert panel.gates.rows[0].reading.text() == ""
    viewer.dims.ndisplay = 3
    assert "2D" in panel.probe.where.text()


def test_a_move_takes_less_than_ten_milliseconds(docked, qtbot, blob, capsys):
    viewer, panel = docked
    panel.model.add_probabilities.value = True
    ran(qtbot, viewer, panel, blob)
    panel.probe.profile.setChecked(True)
    viewer.dims.set_point(0, 10)
    taken = []
    for index in range(60):
        position = (10.0, 12.0 + index / 10, 14.0)
        started = time.perf_counter()
        viewer.cursor.position = position
        taken.append(time.perf_counter() - started)
    assert status(panel)
    with capsys.disabled():
        print(f"\nprobe: {1e3 * np.median(taken):.2f} ms a move (median of {len(taken)})")
    # the quickest: other work on the machine adds to the rest
    assert min(taken) < 0.010


def test_pins_keep_what_was_read_and_nobody_loses_units(docked, qtbot, blob):
    viewer, panel = docked
    panel.model.add_probabilities.value = True
    units = ("mm", "mm", "mm")
    finished = ran(qtbot, viewer, panel, blob, scale=(2, 1, 1), units=units)
    viewer.dims.set_point(0, 20)
    probe = panel.controller.probe
    assert probe.pins.add((20, 12, 14))
    assert probe.pins.add((20, 3, 4))
    assert not probe.pins.add((20, -50, 4)), "a pin outside of the volume"
    (layer,) = of_role(viewer, "pins")
    assert isinstance(layer, Points)
    assert layer.units == viewer.layers["ball"].units
    assert layer.axis_labels == viewer.layers["ball"].axis_labels
    assert viewer.dims.units is not None
    np.testing.assert_allclose(layer.data_to_world(layer.data[0]), (20, 12, 14))
    (prediction,) = finished.predictions
    for row, voxel in ((0, (10, 12, 14)), (1, (10, 3, 4))):
        kept = layer.features.iloc[row]
        for gate in prediction.gates:
            assert kept[gate.name] == pytest.approx(nearest(gate, voxel), abs=1e-6)
        assert kept["label"] == prediction.mask[voxel]
        assert kept["z (mm)"] == pytest.approx(20)
        assert kept["p core"] == pytest.approx(float(prediction.probabilities[(1, *voxel)]))
    run(qtbot, panel)
    assert layer in viewer.layers, "another run took the person's pins"
    assert len(of_role(viewer, "mask")) == 1


class Click:
    """A mouse event as napari hands it to callbacks."""

    def __init__(self, position, modifiers=(), button: int = 1) -> None:
        self.position, self.modifiers, self.button = position, modifiers, button
        self.type, self.camera_zoom = "mouse_press", 1.0


def click(viewer, event: Click, moved_to=None) -> None:
    (on_press,) = [c for c in viewer.mouse_drag_callbacks if "Pins" in repr(c)]
    steps = on_press(viewer, event)
    if next(steps, "end") == "end":
        return
    if moved_to is not None:
        event.type, event.position = "mouse_move", moved_to
        next(steps, None)
    event.type = "mouse_release"
    next(steps, None)


def test_clicks_pin_in_pin_mode_or_with_shift(docked, qtbot, blob):
    viewer, panel = docked
    ran(qtbot, viewer, panel, blob)
    viewer.dims.set_point(0, 10)
    click(viewer, Click((10, 12, 14)))
    assert not of_role(viewer, "pins")
    click(viewer, Click((10, 12, 14), ("Shift",)))
    (layer,) = of_role(viewer, "pins")
    named(panel, "pin").click()
    click(viewer, Click((10, 10, 10)))
    assert len(layer.data) == 2
    click(viewer, Click((10, 10, 10)), moved_to=(10, 18, 10))
    assert len(layer.data) == 2, "dragging the camera pinned a point"
    viewer.layers.selection.active = of_role(viewer, "mask")[0]
    of_role(viewer, "mask")[0].mode = "paint"
    click(viewer, Click((10, 9, 9)))
    assert len(layer.data) == 2, "painting pinned a point"


def test_the_profile_goes_through_the_pin_else_the_cursor_or_along_a_line(docked, qtbot, blob):
    viewer, panel = docked
    finished = ran(qtbot, viewer, panel, blob, scale=(2, 1, 1))
    (prediction,) = finished.predictions
    page(panel, "gates")
    named(panel, "profile").click()
    viewer.dims.set_point(0, 20)
    viewer.cursor.position = (20, 12, 14)
    curves = panel.profile.plot.curves
    for gate in prediction.gates:
        expected = [nearest(gate, (z, 12, 14)) for z in range(20)]
        np.testing.assert_allclose(curves.values[gate.name], expected, atol=1e-6)
    np.testing.assert_allclose(curves.distance, 2 * np.arange(20))
    assert curves.here == pytest.approx(20)
    panel.controller.probe.pins.add((20, 5, 6))
    viewer.cursor.position = (20, 20, 20)
    panel.profile.along.value = "x"
    curves = panel.profile.plot.curves
    gate = prediction.gates[-1]
    expected = [nearest(gate, (10, 5, x)) for x in range(28)]
    np.testing.assert_allclose(curves.values[gate.name], expected, atol=1e-6)

    panel.profile.along.value = "drawn"
    assert panel.profile.plot.curves is None
    assert "Draw a line" in panel.profile.plot.message
    shapes = viewer.layers["profile line"]
    assert shapes.units == viewer.layers["ball"].units
    shapes.add_lines([np.array([(20, 2, 3), (20, 2, 23)])])
    curves = panel.profile.plot.curves
    expected = [nearest(gate, (10, 2, x)) for x in range(3, 24)]
    np.testing.assert_allclose(curves.values[gate.name], expected, atol=1e-6)
    np.testing.assert_allclose(curves.distance[-1], 20)


def test_the_time_point_on_display_is_read(docked, qtbot, blob):
    viewer, panel = docked
    series = np.stack([blob, np.roll(blob, 6, axis=2)])
    panel.image.time.value = "all"
    finished = ran(qtbot, viewer, panel, series, axis_labels=("t", "z", "y", "x"))
    seen = []
    for index in range(2):
        viewer.dims.set_point((0, 1), (index, 10))
        viewer.cursor.position = (index, 10, 12, 14)
        gate = finished.predictions[index].gates[-1]
        seen.append(panel.gates.rows[-1].bar._needle)
        assert seen[-1] == pytest.approx(nearest(gate, (10, 12, 14)), abs=1e-6)
    assert seen[0] != seen[1]


def test_nothing_of_it_stays_in_the_window(docked, qtbot, blob):
    viewer, panel = docked
    ran(qtbot, viewer, panel, blob)
    viewer.cursor.position = (10, 12, 14)
    window = panel.window()
    assert isinstance(window, QMainWindow)
    before = len(viewer.mouse_drag_callbacks)
    viewer.window.remove_dock_widget(panel)
    assert len(viewer.mouse_drag_callbacks) == before - 1
    assert window.findChild(object, "attention_unet_status") is None
    viewer.cursor.position = (10, 13, 14)


# --- places -------------------------------------------------------------------------------------


@pytest.mark.parametrize("flipped", [(1, 1, 1), (-1, 1, -1)])
@pytest.mark.parametrize("role", ["mask", "gate"])
def test_a_place_undoes_the_layer_whatever_its_transform(viewer, role, flipped):
    """Against napari's own transforms, for layers that were cropped, mirrored and moved."""
    scale = np.array((2.0, 0.7, 1.3)) * flipped
    source = viewer.add_image(np.zeros((12, 10, 8)), scale=scale, translate=(5, -3, 2))
    gate = GateMap("g", np.zeros((3, 2, 4), np.float32), (4, 5, 2), (1.5, 2, 0.5))
    volume = Volume(np.zeros((1, 12, 10, 8), np.float32))
    classes = (ClassInfo("background", "#000000"), ClassInfo("thing", "#ff0000"))
    made = Prediction(np.zeros((12, 10, 8), np.uint8), (gate,), classes, volume)
    for data, arguments, kind in layers_from_prediction(made, source):
        if arguments["metadata"][RESULT_KEY]["role"] == role:
            layer = getattr(viewer, f"add_{kind}")(data, **arguments)
    layer.translate = np.add(layer.translate, (10, 0, 0))  # moved by the person
    source.translate = np.add(source.translate, (10, 0, 0))
    place = place_of(layer, "time", viewer.dims.units)
    for voxel in np.random.default_rng(1).uniform(-2, 12, (10, 3)):
        world = source.data_to_world(voxel)
        time_index, found = place.voxel(world)
        assert time_index == 0
        np.testing.assert_allclose(found, voxel, atol=1e-9)
        np.testing.assert_allclose(place.world(voxel), world, atol=1e-9)
    other = viewer.add_labels(
        np.zeros((3, 2, 4), np.uint8), **place.arguments(gate.scale, gate.translate)
    )
    np.testing.assert_allclose(
        other.data_to_world((2, 1, 3)),
        source.data_to_world(np.add(gate.translate, np.multiply(gate.scale, (2, 1, 3)))),
    )
    data, matrix = place.indices_in(other, viewer.dims.units)
    assert data.shape == (3, 2, 4)
    at = np.add(gate.translate, np.multiply(gate.scale, (2, 1, 3)))
    np.testing.assert_allclose(matrix @ [*at, 1], (2, 1, 3, 1), atol=1e-9)
