"""Overlays: one click each, lying where the gates lie."""

from __future__ import annotations

import numpy as np
import pytest
from inspect_helpers import about, of_role, page, press, ran
from napari.layers import Image, Labels, Surface
from panel_helpers import message, named

from napari_attention_unet.inspect import combined, overlays


def added(viewer, name: str):
    (layer,) = of_role(viewer, f"overlay {name}")
    return layer


def test_overlays_of_one_gate_and_of_all(docked, qtbot, blob):
    viewer, panel = docked
    panel.model.add_probabilities.value = True
    finished = ran(qtbot, viewer, panel, blob, scale=(2, 1, 1), translate=(4, 0, -6))
    image = viewer.layers["ball"]
    (prediction,) = finished.predictions
    page(panel, "gates")
    named(panel, "overlay").click()
    gate = prediction.gates[0]
    panel.overlays.gate.value = gate.name
    level = float(np.round(np.median(gate.coefficients), 2))
    panel.overlays.coefficient.value = level

    press(qtbot, panel, "overlay_region")
    layer = added(viewer, "region")
    assert isinstance(layer, Labels)
    expected = overlays.region(prediction, gate.name, level)
    np.testing.assert_array_equal(layer.data, expected.data)
    np.testing.assert_allclose(layer.data_to_world((3, 4, 5)), image.data_to_world((3, 4, 5)))
    assert layer.contour > 0
    assert layer.units == image.units

    press(qtbot, panel, "overlay_ignored")
    layer = added(viewer, "ignored")
    assert isinstance(layer, Image)
    np.testing.assert_allclose(layer.data, 1 - gate.coefficients, atol=1e-6)
    np.testing.assert_allclose(
        layer.data_to_world((1, 1, 1)),
        image.data_to_world(np.add(gate.translate, gate.scale)),
    )

    press(qtbot, panel, "overlay_maximum")
    layer = added(viewer, "maximum")
    np.testing.assert_allclose(layer.data[0], gate.coefficients.max(0), atol=1e-6)

    for name in ("product", "consensus", "disagreement"):
        press(qtbot, panel, f"overlay_{name}")
        expected = combined.combined(prediction, name)
        np.testing.assert_allclose(added(viewer, name).data, expected.data, atol=1e-6)
    press(qtbot, panel, "overlay_conflict")
    np.testing.assert_array_equal(
        added(viewer, "conflict").data, combined.conflict(prediction).data
    )
    assert about(added(viewer, "conflict"))["meaning"]

    press(qtbot, panel, "overlay_surface")
    layer = added(viewer, "surface")
    assert isinstance(layer, Surface)
    assert viewer.dims.ndisplay == 3
    vertices, _ = overlays.isosurface(prediction, gate.name, level).data
    shown = layer.data_to_world(layer.data[0][0])
    np.testing.assert_allclose(shown, image.data_to_world(vertices[0]), atol=1e-3)  # float32
    maps = {about(layer)["gate"]: layer.data for layer in of_role(viewer, "gate")}
    np.testing.assert_array_equal(maps[gate.name], gate.coefficients)


def test_what_an_overlay_lacks_is_said(docked, qtbot, blob):
    viewer, panel = docked
    ran(qtbot, viewer, panel, blob)
    page(panel, "gates")
    named(panel, "overlay").click()
    conflict = named(panel, "overlay_conflict")
    assert not conflict.isEnabled()
    assert "probabilities" in conflict.toolTip()
    panel.overlays.coefficient.value = 1.0
    press(qtbot, panel, "overlay_surface", fails=True)
    assert "has no surface at 1" in message(panel)
    assert not of_role(viewer, "overlay surface")


@pytest.mark.parametrize("index", [0, 1])
def test_an_overlay_of_a_series_lies_at_its_time(docked, qtbot, blob, index):
    viewer, panel = docked
    panel.image.time.value = "all"
    series = np.stack([blob, np.roll(blob, 6, axis=2)])
    finished = ran(qtbot, viewer, panel, series, axis_labels=("t", "z", "y", "x"))
    viewer.dims.set_point(0, index)
    press(qtbot, panel, "overlay_consensus")
    layer = added(viewer, "consensus")
    expected = combined.combined(finished.predictions[index], "consensus").data
    np.testing.assert_allclose(layer.data, expected[None], atol=1e-6)
    np.testing.assert_allclose(layer.data_to_world((0, 0, 0, 0)), (index, 0, 0, 0))
