"""The script that *copy script* gives makes the run of the panel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import tifffile
from napari.layers import Image, Layer
from panel_helpers import PATIENCE, drop, load_once, message, named, run
from qtpy.QtWidgets import QApplication

import napari_attention_unet as nau
from napari_attention_unet._qt.request import Request
from napari_attention_unet._qt.script import script_of
from napari_attention_unet.io.layer_volume import volume_from_layers
from napari_attention_unet.io.napari_reader import read_layers
from napari_attention_unet.models.card import ClassInfo, Normalization
from napari_attention_unet.settings import Settings
from napari_attention_unet.volume import Volume


def executed(script: str, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], list[Volume]]:
    """Run a script with stand-ins for what is slow; keywords and volumes that they were given."""
    keywords: dict[str, Any] = {}
    volumes: list[Volume] = []

    def load_model(source: str, **said: Any) -> str:
        keywords["load_model"] = (source, said)
        return "model"

    def predict(model: str, volume: Volume, **said: Any) -> None:
        assert model == "model"
        keywords["predict"] = said
        volumes.append(volume)

    with monkeypatch.context() as patch:
        patch.setattr(nau, "load_model", load_model)
        patch.setattr(nau, "predict", predict)
        exec(script, {})
    return keywords, volumes


def assert_same(found: Volume, wanted: Volume) -> None:
    np.testing.assert_array_equal(np.asarray(found.data), np.asarray(wanted.data))
    np.testing.assert_allclose(found.index_to_world, wanted.index_to_world)
    np.testing.assert_allclose(found.spacing, wanted.spacing)
    assert (found.units, found.orientation) == (wanted.units, wanted.orientation)


def layers_of(path: Path) -> list[Any]:
    return [Layer.create(*each) for each in read_layers(path)]


def head(path: Path) -> Path:
    affine = np.array([[0, -1.5, 0.1, 7], [0.1, 0, 2, -3], [1, 0.2, 0, 5], [0, 0, 0, 1.0]])
    data = np.random.default_rng(1).normal(size=(8, 9, 10)).astype(np.float32)
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def movie(path: Path) -> Path:
    data = np.random.default_rng(0).integers(0, 99, (3, 5, 2, 6, 8)).astype(np.uint16)
    tifffile.imwrite(path, data, imagej=True, metadata={"axes": "TZCYX", "spacing": 2.0})
    return path


def test_a_whole_file_is_read_in_one_line(tmp_path, monkeypatch):
    (layer,) = layers_of(head(tmp_path / "head.nii.gz"))
    volume = volume_from_layers([layer])
    script = script_of(Request((volume,), "brain-t1"), [layer], 0, "time", {})
    assert script.splitlines() == [
        "import napari_attention_unet as nau",
        "from napari_attention_unet import io",
        "",
        "model = nau.load_model('brain-t1')",
        "",
        f"volume = io.read({str(tmp_path / 'head.nii.gz')!r})[0]",
        "prediction = nau.predict(model, volume)",
    ]
    _keywords, (found,) = executed(script, monkeypatch)
    assert_same(found, volume)


def test_everything_that_was_chosen_is_in_it(tmp_path, monkeypatch):
    first, second = layers_of(movie(tmp_path / "movie.tif"))
    box = ((1, 4), (0, 6), (2, 7))
    settings = Settings(
        spacing=(3.0, 1.0, 1.0),
        device="cpu",
        precision="float32",
        plan="tiles",
        normalize=(0.0, 99.0),
        outputs=("mask", "probabilities"),
        threshold=0.25,
        memory=2.0,
        keep_largest=True,
    )
    stated = {
        "activation": "sigmoid",
        "strides": (2, 2, 1),
        "normalization": Normalization("window", -1.0, 1.0),
        "classes": (ClassInfo("background", "#000000"), ClassInfo("cell", "#ff0000")),
    }
    volumes = [volume_from_layers([second], time_index=t, region=box) for t in range(3)]
    request = Request(tuple(volumes), str(tmp_path / "net.pth"), settings)
    script = script_of(request, [second], 0, "time", stated, "a TorchScript program")
    keywords, found = executed(script, monkeypatch)
    assert keywords["load_model"] == (str(tmp_path / "net.pth"), stated)
    assert Settings(**keywords["predict"]) == settings
    assert len(found) == 3
    for one, other in zip(found, volumes, strict=True):
        assert_same(one, other)
    assert "a TorchScript program runs" in script

    both = volume_from_layers([second, first], time_index=2)
    script = script_of(Request((both,), "brain-t1"), [second, first], 0, "time", {})
    assert_same(executed(script, monkeypatch)[1][0], both)
    both = volume_from_layers([first, second])
    script = script_of(Request((both,), "brain-t1"), [first, second], 0, "time", {})
    assert "replace" not in script
    assert_same(executed(script, monkeypatch)[1][0], both)


def test_channels_of_several_files(tmp_path, monkeypatch):
    layers = [layers_of(head(tmp_path / name))[0] for name in ("t1.nii.gz", "t2.nii.gz")]
    volume = volume_from_layers(layers, region=((2, 6), (1, 9), (0, 5)))
    script = script_of(Request((volume,), "brain-t1"), layers, 0, "time", {})
    assert_same(executed(script, monkeypatch)[1][0], volume)


def test_a_layer_that_was_given_another_voxel_size(tmp_path, monkeypatch):
    (layer,) = layers_of(head(tmp_path / "head.nii.gz"))
    layer.scale = (4.0, 3.0, 2.0)
    volume = volume_from_layers([layer], region=((2, 6), (1, 9), (0, 5)))
    script = script_of(Request((volume,), "brain-t1"), [layer], 0, "time", {})
    assert_same(executed(script, monkeypatch)[1][0], volume)


def test_a_coarser_level(tmp_path, monkeypatch):
    fine = np.random.default_rng(2).normal(size=(8, 16, 24)).astype(np.float32)
    with tifffile.TiffWriter(tmp_path / "p.ome.tif") as file:
        sizes = {"axes": "ZYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 2.0}
        file.write(fine, subifds=1, metadata=sizes)
        file.write(fine[:, ::2, ::2], subfiletype=1)
    (layer,) = layers_of(tmp_path / "p.ome.tif")
    assert layer.multiscale
    volume = volume_from_layers([layer], level=1, region=((2, 6), (2, 14), (4, 20)))
    script = script_of(Request((volume,), "brain-t1"), [layer], 1, "time", {})
    assert_same(executed(script, monkeypatch)[1][0], volume)


def test_what_came_from_no_file_is_asked_for(monkeypatch):
    data = np.random.default_rng(3).normal(size=(2, 6, 8, 10)).astype(np.float32)
    layer = Image(data, scale=(1, 2, 1, 0.5), name="ball")
    volume = volume_from_layers([layer], region=((0, 4), (0, 8), (0, 9)), leading="channel")
    script = script_of(Request((volume,), "brain-t1"), [layer], 0, "channel", {})
    assert "# The layer 'ball' was not read from a file:" in script
    assert "put its array here, (channel, z, y, x) = (2, 6, 8, 10)" in script
    script = script.replace("array = None", "import numpy; array = numpy.random.default_rng(3)"
                            ".normal(size=(2, 6, 8, 10)).astype('float32')")  # fmt: skip
    assert_same(executed(script, monkeypatch)[1][0], volume)


def test_the_button_gives_the_run_of_the_panel(docked, qtbot, blob, tmp_path, checkpoint):
    viewer, panel = docked
    button = named(panel, "copy_python")
    button.click()
    assert message(panel).startswith("There is nothing to copy yet.")
    nib.save(nib.Nifti1Image(blob, np.diag([2.0, 1.5, 1.0, 1.0])), tmp_path / "ball.nii.gz")
    drop(panel, [tmp_path / "ball.nii.gz"])
    qtbot.waitUntil(lambda: len(viewer.layers) == 1, timeout=PATIENCE)
    image = viewer.layers[0]
    place = {"scale": image.scale, "translate": image.translate, "units": image.units}
    viewer.add_shapes([[[4, 2, 3], [4, 20, 3], [4, 20, 18], [4, 2, 18]]], **place)
    panel.image.region.value = "box"
    panel.advanced.precision.value = "float32"
    panel.advanced.rule.value = "threshold"
    panel.advanced.threshold.value = 0.35
    run(qtbot, panel)
    button.click()
    assert message(panel) == "Copied: a Python script that makes this run."
    script = QApplication.clipboard().text()
    made: dict[str, Any] = {}
    original, nau.load_model = nau.load_model, load_once
    try:
        exec(script, made)
    finally:
        nau.load_model = original
    (wanted,) = panel.controller.inspection.runs.latest.predictions
    found = made["prediction"]
    assert found.volume.part == wanted.volume.part
    np.testing.assert_array_equal(found.mask, wanted.mask)
    for one, other in zip(found.gates, wanted.gates, strict=True):
        assert one.name == other.name
        np.testing.assert_array_equal(one.coefficients, other.coefficients)
