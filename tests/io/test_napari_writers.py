"""*File > Save*: what is saved lies where it lay, in napari and for the format's own library."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import tifffile
import zarr
from napari.layers import Image, Labels, Layer
from scipy.spatial.transform import Rotation

from napari_attention_unet import InputError
from napari_attention_unet.io import open_images
from napari_attention_unet.io.layers import (
    layers_from_prediction,
    true_oblique_affine,
    volume_from_layers,
)
from napari_attention_unet.io.napari_reader import read_layers
from napari_attention_unet.io.napari_writers import write_image, write_labels, write_layers

SHAPE = (4, 6, 8)
DATA = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
ENDINGS = [".ome.tif", ".nii.gz", ".nii", ".nrrd", ".zarr"]
WRITE = {"image": write_image, "labels": write_labels}


def save(layer: Layer, path) -> None:
    data, attributes, kind = layer.as_layer_data_tuple()
    assert WRITE[kind](str(path), data, attributes) == [str(path)]


def microscope(**options) -> Image:
    return Image(
        DATA,
        name="cells",
        scale=(2.0, 0.5, 0.25),
        translate=(7.0, -3.0, 1.0),
        units=("µm",) * 3,
        axis_labels=("z", "y", "x"),
        **options,
    )


def oblique(path) -> Image:
    """A NIfTI file, stored in an unusual order and turned, as a layer."""
    turn = Rotation.from_euler("xyz", (10, -15, 20), degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.eye(3)[:, [1, 2, 0]] * [2.0, -3.0, 4.0]
    affine[:3, 3] = (5.0, -6.0, 7.0)
    image = nib.Nifti1Image(DATA, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)
    ((data, attributes, _),) = read_layers(path)
    return Image(data, **attributes)


def ras(path):
    """Values and RAS+ positions of the voxels, by the format's own library."""
    if path.name.endswith(".nrrd"):
        image = SimpleITK.ReadImage(str(path))
        array = SimpleITK.GetArrayFromImage(image)  # z, y, x
        lps = {
            i: image.TransformIndexToPhysicalPoint(tuple(map(int, i[::-1])))
            for i in np.ndindex(array.shape)
        }
        return {float(array[i]): np.multiply(p, (-1, -1, 1)) for i, p in lps.items()}
    image = nib.load(path)
    array = np.asarray(image.dataobj)
    return {
        float(array[i]): (image.affine @ [*i, 1.0])[:3] * _mm(image)
        for i in np.ndindex(array.shape)
    }


def _mm(image) -> float:
    return {"micron": 1.0, "mm": 1.0}[image.header.get_xyzt_units()[0]]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_microscopy_layer_comes_back_as_it_was(tmp_path, ending):
    layer = microscope()
    save(layer, tmp_path / f"a{ending}")
    ((data, attributes, kind),) = read_layers(tmp_path / f"a{ending}")
    back = Layer.create(data, attributes, kind)
    assert [str(u) for u in back.units] == ["micrometer"] * 3
    # as volumes they are the same, whatever the anatomical formats did to the axes
    ours, theirs = volume_from_layers([layer]), volume_from_layers([back])
    here = {float(v): (ours.index_to_world @ [*i, 1])[:3] for i, v in np.ndenumerate(DATA)}
    values = np.asarray(theirs.data)[0]
    assert values.dtype == np.float32
    for index, value in np.ndenumerate(values):
        there = (theirs.index_to_world @ [*index, 1])[:3]
        np.testing.assert_allclose(there, here[float(value)], atol=1e-4)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
@pytest.mark.parametrize("shown", ["nearest axes", "true oblique"])
def test_an_oblique_image_lies_where_its_file_lay(tmp_path, ending, shown):
    layer = oblique(tmp_path / "source.nii")
    if shown == "true oblique":
        layer.affine = true_oblique_affine(layer)
    save(layer, tmp_path / f"a{ending}")
    wanted, found = ras(tmp_path / "source.nii"), ras(tmp_path / f"a{ending}")
    assert wanted.keys() == found.keys()
    for value, place in wanted.items():
        np.testing.assert_allclose(found[value], place, atol=1e-3)


def test_the_storage_order_of_the_source_is_kept(tmp_path):
    save(oblique(tmp_path / "source.nii"), tmp_path / "a.nii")
    source, saved = nib.load(tmp_path / "source.nii"), nib.load(tmp_path / "a.nii")
    np.testing.assert_array_equal(np.asarray(saved.dataobj), np.asarray(source.dataobj))
    np.testing.assert_allclose(saved.affine, source.affine, atol=1e-5)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_gates_and_mask_lie_over_the_oblique_file(tmp_path, predict, ending):
    source = oblique(tmp_path / "source.nii")
    volume = volume_from_layers([source])
    prediction = predict(volume)
    exact = volume.index_to_world
    world_to_ras = np.array([[0, 0, -1, 0], [0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1.0]])
    for data, attributes, kind in layers_from_prediction(prediction, source):
        layer = Layer.create(data, attributes, kind)
        if kind == "labels":
            layer.data = np.arange(layer.data.size).reshape(layer.data.shape)
            scale, translate = np.ones(3), np.zeros(3)
        else:
            about = layer.metadata["attention_unet"]
            scale, translate = about["scale"], about["translate"]
            layer.data = np.arange(layer.data.size, dtype=np.float32).reshape(layer.data.shape)
        save(layer, tmp_path / f"a{ending}")
        found = ras(tmp_path / f"a{ending}")
        for index, value in np.ndenumerate(layer.data):
            place = world_to_ras @ exact @ [*np.add(translate, np.multiply(scale, index)), 1.0]
            np.testing.assert_allclose(found[float(value)], place[:3], atol=1e-3)


def test_labels_keep_their_type_and_names(tmp_path):
    labels = Labels(
        (DATA % 3).astype(np.uint8),
        name="mask",
        features={"index": [0, 1, 2], "class": ["background", "cell", "wall"]},
    )
    save(labels, tmp_path / "a.zarr")
    about = zarr.open_group(tmp_path / "a.zarr").attrs["image-label"]
    assert [p["class"] for p in about["properties"]] == ["cell", "wall"]
    for ending in ENDINGS:
        save(labels, tmp_path / f"b{ending}")
        (image,) = open_images(tmp_path / f"b{ending}")
        assert image.data.dtype == np.uint8


def test_time_is_kept(tmp_path):
    series = np.stack([DATA, DATA + 1000])
    layer = Image(
        series,
        scale=(30.0, 2.0, 0.5, 0.5),
        units=("s", "µm", "µm", "µm"),
        axis_labels=("time", "z", "y", "x"),
    )
    for ending in ENDINGS:
        save(layer, tmp_path / f"a{ending}")
        (image,) = open_images(tmp_path / f"a{ending}")
        assert image.data.shape[0] == 2
        assert (image.time_step, image.time_unit) == (30.0, "s")


def test_imagej_reads_the_size(tmp_path):
    save(microscope(), tmp_path / "a.ome.tif")
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tif:
        assert tif.series[0].axes == "ZYX"
        assert 'PhysicalSizeZ="2.0"' in tif.ome_metadata


def test_a_large_image_gets_coarser_copies_that_lie_right(tmp_path):
    x = np.arange(300, dtype=np.float32)
    layer = Image(np.broadcast_to(x, (3, 5, 300)).copy(), scale=(3.0, 1.0, 0.5))
    save(layer, tmp_path / "a.zarr")
    (image,) = open_images(tmp_path / "a.zarr")
    assert [level.shape[2:] for level in image.levels] == [(3, 5, 300), (3, 5, 150), (3, 5, 75)]
    datasets = zarr.open_group(tmp_path / "a.zarr").attrs["multiscales"][0]["datasets"]
    for level, dataset in zip(image.levels, datasets, strict=True):
        scale, translation = (
            t[k]
            for t, k in zip(
                dataset["coordinateTransformations"], ("scale", "translation"), strict=True
            )
        )
        j = np.arange(level.shape[-1])
        world = translation[2] + scale[2] * j  # a ramp says where each sample lies
        np.testing.assert_allclose(np.asarray(level)[0, 0, 0, 0], world / 0.5)


def test_images_and_labels_as_one_ome_zarr(tmp_path):
    gate = Image(DATA[::2, ::2, ::2].copy(), name="att1 · 1/2", scale=(4.0, 1.0, 0.5))
    labels = Labels((DATA % 3).astype(np.uint8), name="mask")
    layers = [layer.as_layer_data_tuple() for layer in (microscope(), labels, gate)]
    write_layers(str(tmp_path / "a.zarr"), layers)
    image, mask = open_images(tmp_path / "a.zarr")
    assert (image.is_labels, mask.is_labels) == (False, True)
    np.testing.assert_array_equal(np.asarray(mask.data)[0, 0], DATA % 3)
    (alone,) = open_images(f"{tmp_path / 'a.zarr'}:images/att1___1_2")
    assert alone.data.shape[2:] == (2, 3, 4)
    with pytest.raises(InputError, match="needs an image"):
        write_layers(str(tmp_path / "b.zarr"), [labels.as_layer_data_tuple()])


def test_a_picture_is_no_volume(tmp_path):
    picture = Image(np.zeros((5, 6, 3), np.uint8), rgb=True)
    with pytest.raises(InputError, match="colour"):
        save(picture, tmp_path / "a.ome.tif")
