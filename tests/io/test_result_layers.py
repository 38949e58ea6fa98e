"""A saved result opens again as layers that lie where they lay."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
from napari.layers import Layer

from napari_attention_unet.io import read, save
from napari_attention_unet.io.layers import layers_from_prediction
from napari_attention_unet.io.napari_reader import get_reader, read_layers
from napari_attention_unet.io.placement import index_to_world
from napari_attention_unet.io.result_layers import result_layers
from napari_attention_unet.volume import Volume


def head(path: Path) -> Path:
    affine = np.diag([-2.0, 3.0, 4.0, 1.0])
    affine[:3, 3] = (50.0, -60.0, -70.0)
    data = np.random.default_rng(0).normal(size=(8, 6, 4)).astype(np.float32)
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


@pytest.mark.parametrize("format_", ["tiff", "nifti", "nrrd", "zarr"])
def test_layers_come_back_over_their_image(tmp_path, predict, format_):
    path = head(tmp_path / "head.nii.gz")
    (source_data, source_arguments, _) = read_layers(path)[0]
    source = Layer.create(source_data, source_arguments, "image")
    (volume,) = read(path)
    prediction = predict(volume, extras=True)
    folder = str(save(prediction, tmp_path / "result", format_))
    wanted = layers_from_prediction(prediction, source, outputs=("mask", "probabilities", "gates"))
    assert get_reader(folder) is not None
    image, *found = read_layers(folder)
    np.testing.assert_array_equal(image[0], source.data)
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        here, there = Layer.create(*one), Layer.create(*other)
        assert (here.name, type(here), here.units) == (there.name, type(there), there.units)
        np.testing.assert_allclose(here.data, there.data, atol=1e-3)
        np.testing.assert_allclose(index_to_world(here), index_to_world(there), atol=1e-4)
        assert here.metadata["attention_unet"]["role"] == there.metadata["attention_unet"]["role"]


def test_without_its_image_a_result_lies_where_it_lay(tmp_path, predict):
    path = head(tmp_path / "head.nii.gz")
    (volume,) = read(path)
    part = volume.crop(((1, 4), (2, 6), (0, 5)))
    folder = save(predict(part), tmp_path / "result")
    with_image = result_layers(folder)
    path.unlink()
    alone = result_layers(folder)
    assert with_image.image
    assert not alone.image
    for one, other in zip(with_image.results, alone.results, strict=True):
        here, there = Layer.create(*one), Layer.create(*other)
        np.testing.assert_allclose(index_to_world(here), index_to_world(there), atol=1e-4)


def test_a_time_series_comes_back(tmp_path, predict):
    data = np.random.default_rng(1).integers(0, 99, (3, 4, 6, 8)).astype(np.uint16)
    metadata = {"axes": "TZYX", "finterval": 30.0, "spacing": 2.0, "unit": "um"}
    tifffile.imwrite(tmp_path / "a.tif", data, imagej=True, metadata=metadata)
    volumes = read(tmp_path / "a.tif")
    folder = save([predict(volume) for volume in volumes[1:]], tmp_path / "result")
    saved = result_layers(folder)
    layers = [Layer.create(*each) for each in saved.results]
    assert all(layer.data.shape[0] == 2 for layer in layers)
    np.testing.assert_allclose([layer.translate[0] for layer in layers], 30.0)


def test_a_bare_array_has_a_place_as_well(tmp_path, predict):
    volume = Volume(np.zeros((1, 4, 6, 8)), (2.0, 1.0, 0.5), translate=(1.0, 2.0, 3.0))
    saved = result_layers(save(predict(volume), tmp_path / "result"))
    mask = Layer.create(*saved.results[0])
    np.testing.assert_array_equal(mask.scale, (2.0, 1.0, 0.5))
    np.testing.assert_array_equal(mask.translate, (1.0, 2.0, 3.0))
