"""Bad input, cancelling and closing: one clear sentence, and the viewer as it was."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import torch
from napari.utils import progress
from panel_helpers import (
    LOADED,
    PATIENCE,
    drop,
    message,
    named,
    results,
    run,
    use_model,
    wait_ready,
    wait_said,
)
from qtpy.QtCore import QThreadPool
from torch import nn

from napari_attention_unet._qt.controller import Controller
from napari_attention_unet._qt.worker import Runner
from napari_attention_unet.errors import CheckpointError
from napari_attention_unet.model import load_model
from napari_attention_unet.prediction import Prediction

VOXELS = np.random.default_rng(0).normal(size=(16, 16, 16)).astype(np.float32)


def with_value(value: float) -> np.ndarray:
    data = VOXELS.copy()
    data[3, 4, 5] = value
    return data


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (np.zeros((30, 30)), "two spatial axes (2D)"),
        (np.zeros((64, 64, 3), np.uint8), "is a colour (RGB) image"),
        (VOXELS[:1], "at least 2 along each axis"),
        (VOXELS[:2, :3, :3], "too small"),
    ],
    ids=["2D", "RGB", "thin", "tiny"],
)
def test_what_cannot_be_run_disables_run_and_says_why(docked, data, words):
    viewer, panel = docked
    viewer.add_image(data, name="it")
    assert not named(panel, "run").isEnabled()
    assert words in message(panel)
    assert named(panel, "run").toolTip() in message(panel)
    assert not results(viewer)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (with_value(np.nan), "NaN"),
        (with_value(np.inf), "infinite"),
        (np.full((16, 16, 16), 7, np.uint8), "nothing to tell apart"),
    ],
    ids=["nan", "infinite", "constant"],
)
def test_bad_voxels_leave_the_viewer_as_it_was(docked, qtbot, data, words):
    viewer, panel = docked
    image = viewer.add_image(data, name="it", contrast_limits=(0, 1))
    run(qtbot, panel)
    assert words.lower() in message(panel).lower(), message(panel)
    assert named(panel, "message").property("role") == "error"
    assert list(viewer.layers) == [image]
    assert panel.gates.rows == ()
    assert named(panel, "run").isEnabled()


@pytest.mark.parametrize(
    "data",
    [
        (VOXELS * 50 + 100).astype(np.uint8),
        (VOXELS * 1000).astype(">i2"),
        VOXELS.astype(">f8"),
        da.from_array(VOXELS, chunks=(5, 16, 7)),
    ],
    ids=["uint8", "big-endian int16", "big-endian float64", "dask"],
)
def test_other_kinds_of_arrays_work(docked, qtbot, data):
    viewer, panel = docked
    viewer.add_image(data, name="it", contrast_limits=(0, 1))
    run(qtbot, panel)
    assert "Done in" in message(panel)
    assert results(viewer, "mask")[0].data.shape == (16, 16, 16)


def test_wrong_number_of_channels(docked, qtbot, two_channel_checkpoint):
    viewer, panel = docked
    viewer.add_image(VOXELS[None], name="it", axis_labels=("c", "z", "y", "x"))
    use_model(qtbot, panel, two_channel_checkpoint)
    assert not named(panel, "run").isEnabled()
    assert message(panel).startswith("two.safetensors takes 2 channels; 'it' has 1.")


def test_a_checkpoint_that_is_none(docked, qtbot, tmp_path, checkpoint):
    viewer, panel = docked
    viewer.add_image(VOXELS, name="it")
    path = tmp_path / "page.pth"
    path.write_text("<!doctype html><title>404</title>")
    drop(panel, [path])
    wait_said(qtbot, panel, "'page.pth' looks like an HTML page")
    assert not named(panel, "run").isEnabled()
    assert named(panel, "model_note").text() == "cannot be used"
    use_model(qtbot, panel, checkpoint)
    wait_ready(qtbot, panel)
    assert "page.pth" not in [
        named(panel, "model").itemText(i) for i in range(named(panel, "model").count())
    ]


def test_a_model_that_changes_on_disk_is_read_again(docked, qtbot, tmp_path, checkpoint):
    _viewer, panel = docked
    path = tmp_path / "mine.safetensors"
    path.write_bytes(checkpoint.read_bytes())
    store = panel.controller.models
    first = store.get(str(path))
    assert store.get(str(path)) is first
    path.write_bytes(b"cut short")
    LOADED.pop(str(path))  # the tests' own cache goes by path alone
    with pytest.raises(CheckpointError, match=r"mine\.safetensors"):
        store.get(str(path))


def test_out_of_memory_says_what_would_work(docked, qtbot):
    viewer, panel = docked
    noise = np.random.default_rng(0).normal(size=(160, 160, 160)).astype(np.float32)
    image = viewer.add_image(noise, name="it")
    panel.advanced.memory.value = 0.01
    run(qtbot, panel)
    assert named(panel, "message").property("role") == "error"
    assert "memory" in message(panel).lower() or "GiB" in message(panel)
    assert list(viewer.layers) == [image]


class Plain(nn.Module):
    """A network without gates."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 2, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


def test_a_network_without_gates_gives_a_mask_and_says_so(docked, qtbot, monkeypatch, checkpoint):
    import sys

    viewer, panel = docked
    viewer.add_image(VOXELS, name="it")
    plain = load_model(Plain())
    monkeypatch.setattr(sys.modules["napari_attention_unet.predict"], "load_model", lambda _: plain)
    panel.controller.models.clear()
    use_model(qtbot, panel, checkpoint)
    assert "no attention gate" in named(panel, "model_note").text()
    run(qtbot, panel)
    assert "no attention gate found" in message(panel)
    assert len(results(viewer)) == len(results(viewer, "mask")) == 1
    assert "No attention gate was found" in named(panel, "gates_message").text()
    assert named(panel, "gates_message").isVisible()


# --- cancelling and closing ---------------------------------------------------------------------


def long_run(viewer, panel) -> None:
    """An image whose run takes long enough to be stopped in the middle."""
    viewer.add_image(
        np.random.default_rng(0).normal(size=(160, 160, 160)).astype(np.float32), name="big"
    )


def in_the_middle(qtbot, panel) -> None:
    qtbot.waitUntil(lambda: named(panel, "progress").value() > 0, timeout=PATIENCE)


def test_cancel_stops_within_a_second_and_says_so(docked, qtbot):
    viewer, panel = docked
    long_run(viewer, panel)
    wait_ready(qtbot, panel)
    before = list(viewer.layers)
    named(panel, "run").click()
    assert named(panel, "cancel").isEnabled()
    assert not named(panel, "run").isEnabled()
    in_the_middle(qtbot, panel)
    (activity,) = progress._all_instances
    assert activity.n > 0
    started = time.perf_counter()
    with qtbot.waitSignal(panel.controller.runner.answered, timeout=PATIENCE):
        named(panel, "cancel").click()
    assert time.perf_counter() - started < 1
    assert "Cancelled after" in message(panel)
    assert list(viewer.layers) == before
    assert not progress._all_instances
    assert named(panel, "run").isEnabled()


def test_cancel_in_the_activity_dock(docked, qtbot):
    viewer, panel = docked
    long_run(viewer, panel)
    wait_ready(qtbot, panel)
    named(panel, "run").click()
    in_the_middle(qtbot, panel)
    (activity,) = progress._all_instances
    with qtbot.waitSignal(panel.controller.runner.answered, timeout=PATIENCE):
        activity.cancel()
    assert "Cancelled after" in message(panel)


def test_a_layer_removed_in_the_middle_stops_the_run(docked, qtbot):
    viewer, panel = docked
    long_run(viewer, panel)
    wait_ready(qtbot, panel)
    named(panel, "run").click()
    in_the_middle(qtbot, panel)
    viewer.layers.clear()
    assert "'big' was removed while it was run; the run was stopped." in message(panel)
    assert not panel.controller.runner.busy
    assert not progress._all_instances
    qtbot.waitUntil(lambda: QThreadPool.globalInstance().activeThreadCount() == 0, timeout=PATIENCE)
    assert len(viewer.layers) == 0


def test_the_answer_of_an_earlier_run_is_dropped(docked, qtbot, monkeypatch):
    viewer, panel = docked
    viewer.add_image(VOXELS, name="it")
    wait_ready(qtbot, panel)
    controller: Controller = panel.controller
    request = controller.request()
    runner = Runner(controller.models)
    answers = []
    runner.answered.connect(answers.append)
    first = runner.start(request)
    second = runner.start(request)
    assert first != second
    qtbot.waitUntil(lambda: QThreadPool.globalInstance().activeThreadCount() == 0, timeout=PATIENCE)
    qtbot.waitUntil(lambda: bool(answers), timeout=PATIENCE)
    assert [answer.generation for answer in answers] == [second]


@pytest.mark.parametrize("how", ["panel", "viewer"])
def test_closing_in_the_middle_leaves_no_thread_and_no_panel(docked, qtbot, how):
    viewer, panel = docked
    long_run(viewer, panel)
    wait_ready(qtbot, panel)
    named(panel, "run").click()
    in_the_middle(qtbot, panel)
    if how == "panel":
        viewer.window.remove_dock_widget(panel)
        assert viewer.canvas.overlays.get("attention_unet_top") is None
    else:
        viewer.close()
    started = time.perf_counter()
    qtbot.waitUntil(lambda: QThreadPool.globalInstance().activeThreadCount() == 0, timeout=PATIENCE)
    assert time.perf_counter() - started < 2
    assert not progress._all_instances


def test_nothing_of_a_run_stays_in_memory(docked, qtbot):
    viewer, panel = docked
    image = viewer.add_image(VOXELS, name="it")
    predictions: list[weakref.ref[Prediction]] = []
    panel.controller.runner.answered.connect(
        lambda answer: predictions.append(weakref.ref(answer.predictions[0]))
    )
    run(qtbot, panel)
    for layer in results(viewer):
        viewer.layers.remove(layer)
    viewer.layers.remove(image)
    qtbot.wait(50)
    gc.collect()
    assert predictions[0]() is None
    assert threading.active_count() < 20


def test_a_dropped_path_is_only_accepted_if_it_is_a_file(docked, tmp_path: Path):
    from qtpy.QtCore import QMimeData, QPoint, Qt
    from qtpy.QtGui import QDragEnterEvent
    from qtpy.QtWidgets import QApplication

    _viewer, panel = docked
    mime = QMimeData()
    mime.setText("just words")
    event = QDragEnterEvent(
        QPoint(5, 5),
        Qt.DropAction.CopyAction,
        mime,
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )
    event.ignore()
    QApplication.sendEvent(panel, event)
    assert not event.isAccepted()
