"""A training's checkpoints on one volume: order, resuming, what is left out and refused."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import napari_attention_unet as nau
from napari_attention_unet import io
from napari_attention_unet.graph.lower import finished
from napari_attention_unet.inspect import history as module
from napari_attention_unet.inspect.history import history_steps
from napari_attention_unet.models import ModelCard, default_classes, save_checkpoint
from napari_attention_unet.models.attention_unet_3d import AttentionUNet3D

FLOAT = nau.Settings(precision="float32", device="cpu")
VOLUME = np.random.default_rng(0).normal(size=(9, 12, 10)).astype(np.float32)


def write(path: Path, network: nn.Module, widths=(4, 6), classes=2) -> Path:
    arguments = {"in_channels": 1, "out_channels": classes, "widths": list(widths)}
    card = ModelCard(
        name=path.stem,
        architecture="AttentionUNet3D",
        arguments=arguments,
        classes=default_classes(classes),
    )
    return save_checkpoint(path, network.eval(), card)


@pytest.fixture(scope="module")
def training(tmp_path_factory) -> Path:
    """A tiny network and two disturbances of it, as a training would save them."""
    folder = tmp_path_factory.mktemp("training")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = AttentionUNet3D(1, 2, widths=(4, 6))
        for epoch in (2, 10, 1):
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter += 0.2 * torch.randn_like(parameter)
            write(folder / f"epoch={epoch}.safetensors", network)
    return folder


@pytest.fixture
def runs(monkeypatch):
    """Names of the checkpoints that were loaded."""
    seen = []

    def load(path, **options):
        seen.append(Path(path).name)
        return nau.load_model(path, **options)

    monkeypatch.setattr(module, "load_model", load)
    return seen


@pytest.fixture(scope="module")
def plain(training):
    """The history of it, held in memory."""
    return finished(history_steps(training, VOLUME, FLOAT))


def test_each_checkpoint_in_order(plain):
    history = plain
    assert history.word == "epoch"
    assert history.numbers == (1, 2, 10)
    for index, (number, path) in enumerate(zip(history.numbers, history.paths, strict=True)):
        expected = nau.predict(nau.load_model(path), VOLUME, FLOAT)
        np.testing.assert_array_equal(history.masks[index], expected.mask)
        for gate in history.gates:
            truth = expected.gate(gate.name)
            np.testing.assert_array_equal(gate.maps[index], truth.coefficients)
            assert (gate.scale, gate.translate) == (truth.scale, truth.translate)
            rows = history.measures[history.measures["epoch"] == number]
            rows = rows[rows["gate"] == gate.name]
            assert rows["mean"].iloc[0] == pytest.approx(truth.coefficients.mean())
            assert set(rows["checkpoint"]) == {path.name}
    assert [gate.name for gate in history.gates] == ["att2", "att1"]
    assert {gate.maps.shape[0] for gate in history.gates} == {3}


def test_goes_on_where_it_was_stopped(training, plain, tmp_path, runs):
    work = history_steps(training, VOLUME, FLOAT, cache=tmp_path)
    for step in work:
        if step.done > 1.5:  # in the middle of the second
            break
    work.close()
    assert runs == ["epoch=1.safetensors", "epoch=2.safetensors"]
    runs.clear()
    history = finished(history_steps(training, VOLUME, FLOAT, cache=tmp_path))
    assert runs == ["epoch=2.safetensors", "epoch=10.safetensors"]
    np.testing.assert_array_equal(history.masks, plain.masks)
    for gate, expected in zip(history.gates, plain.gates, strict=True):
        np.testing.assert_array_equal(gate.maps, expected.maps)
    pd.testing.assert_frame_equal(history.measures, plain.measures)
    assert not list(tmp_path.glob(".part-*"))


def test_what_was_kept_is_used_for_nothing_else(training, tmp_path, runs):
    def again(volume=VOLUME, settings=FLOAT, **more):
        runs.clear()
        finished(history_steps([path], volume, settings, cache=tmp_path, **more))
        return len(runs)

    path = training / "epoch=1.safetensors"
    assert again() == 1
    assert again() == 0
    other = VOLUME.copy()
    other[0, 0, 0] += 1
    assert again(other) == 1
    assert again(settings=nau.Settings(precision="float32", device="cpu", normalize="minmax")) == 1
    assert again(options={"activation": "sigmoid"}) == 1
    for damaged in tmp_path.glob("*/mask.npy"):
        damaged.write_bytes(b"not an array")
    assert again() == 1
    assert again() == 0


def test_bad_files_are_named_and_left_out(training, tmp_path):
    for path in training.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "epoch=3.safetensors").write_bytes(b"\0" * 100)
    steps = []
    work = history_steps(tmp_path, VOLUME, FLOAT)
    while True:
        try:
            steps.append(next(work))
        except StopIteration as end:
            history = end.value
            break
    assert history.numbers == (1, 2, 10)
    ((path, reason),) = history.skipped
    assert path.name == "epoch=3.safetensors"
    assert reason
    assert any("epoch=3.safetensors cannot be used" in step.message for step in steps)
    assert [s.done for s in steps] == sorted(s.done for s in steps)


def test_nothing_but_bad_files_is_an_error(tmp_path):
    (tmp_path / "epoch1.pth").write_bytes(b"nothing")
    with pytest.raises(nau.AttentionUNetError, match="epoch1"):
        finished(history_steps(tmp_path, VOLUME, FLOAT))


def test_different_networks_are_refused(training, tmp_path):
    first = tmp_path / "epoch=1.safetensors"
    first.write_bytes((training / first.name).read_bytes())
    write(tmp_path / "epoch=2.safetensors", AttentionUNet3D(1, 2, (4, 6, 8)), (4, 6, 8))
    with pytest.raises(nau.InputError, match=r"different networks: .* att3"):
        finished(history_steps(tmp_path, VOLUME, FLOAT))
    write(tmp_path / "epoch=2.safetensors", AttentionUNet3D(1, 3, (4, 6)), classes=3)
    with pytest.raises(nau.InputError, match="the classes"):
        finished(history_steps(tmp_path, VOLUME, FLOAT))


def test_one_model_at_a_time(training, monkeypatch):
    alive: weakref.WeakSet = weakref.WeakSet()
    most = 0

    def load(path, **options):
        nonlocal most
        gc.collect()
        model = nau.load_model(path, **options)
        alive.add(model)
        most = max(most, len(alive))
        return model

    monkeypatch.setattr(module, "load_model", load)
    finished(history_steps(training, VOLUME, FLOAT))
    assert most == 1


def test_saved_as_one_file_a_gate_with_a_time_axis(plain, tmp_path):
    io.save(plain.predictions, tmp_path / "out", "tiff")
    volumes = io.read(tmp_path / "out" / "gate-att2.ome.tif")
    assert len(volumes) == 3
    maps = plain.gates[0].maps.compute()
    for volume, expected in zip(volumes, maps, strict=True):
        np.testing.assert_array_equal(np.asarray(volume.data)[0], expected)
