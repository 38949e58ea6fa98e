"""Results that appear as they are computed, and what stays of a run that is stopped."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest
from panel_helpers import PATIENCE, message, named, results, run, wait_ready
from qtpy.QtCore import QThreadPool

from napari_attention_unet._qt import growing as module
from napari_attention_unet._qt.growing import PARTIAL, RUNNING, Growing, key_of
from napari_attention_unet._qt.request import together
from napari_attention_unet.io.layers import RESULT_KEY, layers_from_prediction
from napari_attention_unet.io.placement import layer_axes
from napari_attention_unet.models.card import default_classes
from napari_attention_unet.predict import predict_steps
from napari_attention_unet.prediction import GateMap, Prediction, Region
from napari_attention_unet.volume import Volume

SHAPE = (260, 24, 20)


@pytest.fixture
def deep() -> np.ndarray:
    rng = np.random.default_rng(1)
    z, y, x = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    tube = (y - 12) ** 2 + (x - 10 - 5 * np.sin(z / 20)) ** 2 < 25
    return (rng.normal(100, 10, SHAPE) + 200 * tube).astype(np.float32)


@pytest.fixture
def streaming(docked, deep, qtbot):
    """The panel, set to stream an image that takes many steps."""
    viewer, panel = docked
    image = viewer.add_image(deep, name="it")
    panel.advanced.plan.value = "stream"
    panel.advanced.precision.value = "float32"
    wait_ready(qtbot, panel)
    return viewer, panel, image


@pytest.fixture
def slowly(monkeypatch):
    """Every step with a region takes a while, and is reported."""
    predict = sys.modules["napari_attention_unet.predict"]

    def slow(*args):
        for step in predict_steps(*args):
            if step.region is not None:
                time.sleep(0.05)
            yield step

    monkeypatch.setattr(predict, "predict_steps", slow)
    monkeypatch.setattr("napari_attention_unet._qt.worker.REPORT_EVERY", 0.03)


def grown(panel) -> int:
    """Planes of the mask that are there while a run is under way."""
    growth = panel.controller.results._growing
    if growth is None or ("mask", "") not in growth.layers:
        return 0
    gate = growth.layers[next(key for key in growth.layers if key[0] == "gate")]
    return int(np.asarray(gate.data).any(axis=(1, 2)).sum())


def start(qtbot, panel) -> None:
    named(panel, "run").click()
    qtbot.waitUntil(lambda: grown(panel) > 2, timeout=PATIENCE)


def test_layers_grow_and_stay(streaming, slowly, qtbot):
    viewer, panel, image = streaming
    start(qtbot, panel)
    layers = results(viewer)
    assert [layer.metadata[RESULT_KEY]["role"] for layer in layers] == ["mask", "gate", "gate"]
    assert all(layer.name.endswith(RUNNING) for layer in layers)
    assert all(layer.metadata[RESULT_KEY]["state"] == "running" for layer in layers)
    assert list(viewer.layers).index(layers[0]) == list(viewer.layers).index(image) + 1
    before = grown(panel)
    with qtbot.waitSignal(panel.controller.runner.answered, timeout=PATIENCE):
        qtbot.waitUntil(lambda: grown(panel) > before, timeout=PATIENCE)
    assert "Done in" in message(panel)
    assert results(viewer) == layers, "the layers that grew are the results"
    assert not any(RUNNING in layer.name for layer in layers)
    assert not any("state" in layer.metadata[RESULT_KEY] for layer in layers)
    assert [row.gate.layer for row in panel.gates.rows] == layers[1:]
    streamed = [np.array(layer.data) for layer in layers]
    panel.advanced.plan.value = "whole"
    run(qtbot, panel)
    whole = results(viewer)
    assert len(whole) == 3
    for layer, values in zip(whole, streamed, strict=True):
        np.testing.assert_allclose(layer.data, values, atol=1e-5)
        assert layer.metadata[RESULT_KEY]["plan"] == "whole"


@pytest.mark.parametrize("how", ["cancel", "error"])
def test_what_was_computed_stays_marked(streaming, slowly, qtbot, how, monkeypatch):
    viewer, panel, _ = streaming
    start(qtbot, panel)
    layers = results(viewer)
    if how == "error":
        collect = sys.modules["napari_attention_unet.collect"]

        def broken(*args):
            raise OSError("the disk is gone")

        monkeypatch.setattr(collect.Collector, "__call__", broken)
    with qtbot.waitSignal(panel.controller.runner.answered, timeout=PATIENCE):
        if how == "cancel":
            named(panel, "cancel").click()
    expected = "Cancelled after" if how == "cancel" else "the disk is gone"
    assert expected in message(panel)
    assert "What was computed until then is kept, marked as partial." in message(panel)
    assert results(viewer) == layers
    assert all(layer.name.endswith(PARTIAL) for layer in layers)
    assert all(layer.metadata[RESULT_KEY]["state"] == "partial" for layer in layers)
    planes = np.asarray(layers[1].data).any(axis=(1, 2))
    assert 2 < planes.sum() < len(planes)
    assert panel.gates.rows == (), "measures of a part would be taken for those of the whole"
    monkeypatch.undo()
    panel.advanced.plan.value = "whole"
    run(qtbot, panel)  # a run that comes to its end takes their place
    assert not any(layer in viewer.layers for layer in layers)
    assert not any(PARTIAL in layer.name for layer in viewer.layers)


def test_earlier_results_step_aside(streaming, slowly, qtbot):
    viewer, panel, _ = streaming
    panel.advanced.plan.value = "whole"
    run(qtbot, panel)
    earlier = results(viewer)
    assert any(layer.visible for layer in earlier)
    panel.advanced.plan.value = "stream"
    start(qtbot, panel)
    assert all(layer in viewer.layers and not layer.visible for layer in earlier)
    with qtbot.waitSignal(panel.controller.runner.answered, timeout=PATIENCE):
        named(panel, "cancel").click()
    assert all(layer in viewer.layers for layer in earlier), "a stopped run takes nothing away"


def test_an_image_that_is_removed_leaves_marked_parts(streaming, slowly, qtbot):
    viewer, panel, image = streaming
    start(qtbot, panel)
    viewer.layers.remove(image)
    layers = results(viewer)
    assert layers
    assert all(PARTIAL in layer.name for layer in layers)
    qtbot.waitUntil(lambda: QThreadPool.globalInstance().activeThreadCount() == 0, timeout=PATIENCE)


def test_what_a_person_hides_meanwhile_stays_hidden(streaming, slowly, qtbot):
    viewer, panel, _ = streaming
    start(qtbot, panel)
    mask = results(viewer, "mask")[0]
    mask.visible = False
    removed = results(viewer, "gate")[0]
    viewer.layers.remove(removed)
    with qtbot.waitSignal(panel.controller.runner.answered, timeout=PATIENCE):
        pass
    assert results(viewer, "mask") == [mask]
    assert not mask.visible
    assert len(results(viewer, "gate")) == 2


def test_a_stopped_series_leaves_what_it_computed(docked, deep, slowly, qtbot):
    viewer, panel = docked
    film = np.stack([deep, deep[::-1]])[:, ::2]
    viewer.add_image(film, name="film", axis_labels=("t", "z", "y", "x"))
    panel.advanced.plan.value = "stream"
    panel.image.time.value = "all"
    wait_ready(qtbot, panel)
    begun = set()
    panel.controller.runner.progressed.connect(
        lambda progress: begun.add(progress.index) if progress.region else None
    )
    named(panel, "run").click()
    qtbot.waitUntil(lambda: 1 in begun, timeout=3 * PATIENCE)
    assert not results(viewer, "mask")  # layers of a series come at the end
    with qtbot.waitSignal(panel.controller.runner.answered, timeout=PATIENCE):
        named(panel, "cancel").click()
    (mask,) = results(viewer, "mask")
    assert mask.data.shape == film.shape
    assert mask.name.endswith(PARTIAL)
    gate = results(viewer, "gate")[0]
    there = np.asarray(gate.data).any(axis=(2, 3))
    assert there[0].all()
    assert not there[1].all()


# --- what is drawn when -------------------------------------------------------------------------


class Counted:
    """How often each layer was drawn."""

    def __init__(self, layers, monkeypatch):
        self.count = dict.fromkeys(map(key_of, (layer.metadata for layer in layers)), 0)
        for layer in layers:
            monkeypatch.setattr(layer, "refresh", self.counting(key_of(layer.metadata)))

    def counting(self, key):
        def refresh(*args, **kwargs):
            self.count[key] += 1

        return refresh


@pytest.fixture
def in_sight(viewer, monkeypatch):
    """Mask and gate in a viewer, growing, and how often they are drawn."""
    from napari.layers import Layer

    image = viewer.add_image(np.zeros((40, 12, 10), np.float32), name="it")
    gate = GateMap("att1", np.zeros((20, 6, 5), np.float32), (2.0,) * 3, (0.5,) * 3)
    mask = np.zeros((40, 12, 10), np.uint8)
    volume = Volume.from_array(np.zeros(mask.shape))
    made = layers_from_prediction(
        Prediction(mask, (gate,), default_classes(2), volume), image, show="att1"
    )
    layers = [viewer.add_layer(Layer.create(*layer)) for layer in made]
    return Growing(viewer, layers, layer_axes(image)), Counted(layers, monkeypatch), viewer


def planes(start, stop):
    return slice(start, stop), slice(0, 12), slice(0, 10)


def test_only_what_is_in_sight_is_drawn(in_sight, monkeypatch):
    growing, drawn, viewer = in_sight
    monkeypatch.setattr(module, "REDRAW_EVERY", 0.0)
    viewer.dims.set_point(0, 20)
    growing.grow({("mask", ""): planes(0, 10), ("gate", "att1"): planes(0, 5)})
    assert set(drawn.count.values()) == {0}
    growing.grow({("mask", ""): planes(10, 30), ("gate", "att1"): planes(5, 9)})
    assert drawn.count == {("mask", ""): 1, ("gate", "att1"): 0}
    growing.grow({("gate", "att1"): planes(9, 12)})  # plane 20 is sample 9.75, shown as 10
    assert drawn.count == {("mask", ""): 1, ("gate", "att1"): 1}
    viewer.dims.order = (1, 0, 2)  # all planes are in sight from the side
    growing.grow({("mask", ""): planes(30, 31)})
    assert drawn.count["mask", ""] == 2
    viewer.layers[1].visible = False
    growing.grow({("mask", ""): planes(31, 32)})
    assert drawn.count["mask", ""] == 2


def test_a_few_drawings_a_second_at_most(in_sight, monkeypatch):
    growing, drawn, viewer = in_sight
    clock = [100.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])
    viewer.dims.set_point(0, 20)
    for _ in range(100):
        clock[0] += 0.01
        growing.grow({("mask", ""): planes(18, 22)})
    assert 4 <= drawn.count["mask", ""] <= 6
    before = drawn.count["mask", ""]
    growing.grow({("mask", ""): planes(18, 22)})
    clock[0] += 1
    growing.grow({})  # what was put off is drawn later
    assert drawn.count["mask", ""] == before + 1


def test_in_3d_nothing_is_drawn_before_the_end(in_sight, monkeypatch):
    growing, drawn, viewer = in_sight
    monkeypatch.setattr(module, "REDRAW_EVERY", 0.0)
    viewer.dims.ndisplay = 3
    growing.grow({("mask", ""): planes(0, 40)})
    assert drawn.count["mask", ""] == 0
    growing.stop()
    assert drawn.count["mask", ""] == 1


def test_regions_that_are_reported_together():
    volume = Volume.from_array(np.zeros((9, 9, 9)))
    one, other = (
        Prediction(np.zeros((9, 9, 9), np.uint8), (), default_classes(2), volume) for _ in range(2)
    )

    def box(start, stop):
        return slice(start, stop), slice(0, 9), slice(0, 9)

    first = Region(one, box(0, 2), {"a": box(0, 1)})
    second = Region(one, None, {"a": box(1, 3), "b": box(0, 4)})
    third = Region(one, box(2, 3), {})
    merged = together(together(first, second), third)
    assert merged.mask == box(0, 3)
    assert merged.gates == {"a": box(0, 3), "b": box(0, 4)}
    assert together(None, first) is first
    assert together(first, None) is first
    assert together(first, Region(other, None, {})).partial is other
