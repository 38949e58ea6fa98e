"""OME-Zarr as its own library writes it, and bare zarr."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import zarr
from ome_zarr.format import FormatV04, FormatV05
from ome_zarr.writer import write_image, write_labels, write_multiscale

from napari_attention_unet import InputError
from napari_attention_unet.io import open_image, open_images, read
from napari_attention_unet.io.napari_reader import read_layers

SHAPE = (2, 3, 8, 10, 12)
DATA = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.uint16)


def axes(letters="tczyx", unit="micrometer"):
    kinds = {"t": "time", "c": "channel"}
    made = []
    for letter in letters:
        axis = {"name": letter, "type": kinds.get(letter, "space")}
        if letter in "zyx":
            axis["unit"] = unit
        if letter == "t":
            axis["unit"] = "second"
        made.append(axis)
    return made


def put(path, version, letters="tczyx", data=DATA):
    form = {"0.4": FormatV04, "0.5": FormatV05}[version]()
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    size = {"t": 30.0, "c": 1.0, "z": 2.0, "y": 0.5, "x": 0.5}
    scales = []
    for level in range(2):
        factor = {"y": 2.0**level, "x": 2.0**level}
        scale = [size[a] * factor.get(a, 1.0) for a in letters]
        start = [{"z": 7.0}.get(a, (factor.get(a, 1.0) - 1) / 2 * size[a]) for a in letters]
        scales.append(
            [
                {"type": "scale", "scale": scale},
                {"type": "translation", "translation": start},
            ]
        )
    pyramid = [data, data[..., ::2, ::2]]
    write_multiscale(
        pyramid, group, fmt=form, axes=axes(letters), coordinate_transformations=scales
    )
    return group


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_axes_scale_units_time_and_levels(tmp_path, version):
    put(tmp_path / "a.ome.zarr", version)
    first, second = read(tmp_path / "a.ome.zarr")
    assert (first.spacing, first.units) == ((2.0, 0.5, 0.5), "µm")
    assert first.translate == (7.0, 0.0, 0.0)
    assert (first.time, second.time, first.time_unit) == (0.0, 30.0, "s")
    np.testing.assert_array_equal(np.asarray(second.data), DATA[1])
    image = open_image(tmp_path / "a.ome.zarr")
    assert [level.shape for level in image.levels] == [SHAPE, (2, 3, 8, 5, 6)]
    layers = read_layers(tmp_path / "a.ome.zarr")
    assert len(layers) == 3
    assert all(arguments["multiscale"] for _, arguments, _ in layers)


def test_fewer_axes(tmp_path):
    put(tmp_path / "a.zarr", "0.5", "zyx", DATA[0, 0])
    (volume,) = read(tmp_path / "a.zarr")
    np.testing.assert_array_equal(np.asarray(volume.data)[0], DATA[0, 0])


def test_labels_come_with_their_image(tmp_path):
    group = put(tmp_path / "a.zarr", "0.4", "zyx", DATA[0, 0])
    write_labels(
        DATA[0, 0] % 3, group, "cells", fmt=FormatV04(), axes=axes("zyx"), scale_factors=()
    )
    images = open_images(tmp_path / "a.zarr")
    assert [image.is_labels for image in images] == [False, True]
    assert [kind for _, _, kind in read_layers(tmp_path / "a.zarr")] == ["image", "labels"]
    np.testing.assert_array_equal(np.asarray(images[1].data)[0, 0], DATA[0, 0] % 3)


def test_large_levels_stay_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("napari_attention_unet.io.ome_zarr.LAZY_ABOVE_BYTES", 100)
    put(tmp_path / "a.zarr", "0.5")
    image = open_image(tmp_path / "a.zarr")
    assert all(isinstance(level, da.Array) for level in image.levels)
    np.testing.assert_array_equal(image.data.compute(), DATA)


def test_an_image_that_ome_zarr_writes_by_itself(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=3)
    write_image(DATA[0, 0], group, fmt=FormatV05(), axes="zyx")
    (volume,) = read(tmp_path / "a.zarr")
    assert (volume.units, volume.spacing) == ("pixel", (1.0, 1.0, 1.0))


def test_bare_arrays_and_groups(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("raw", data=DATA[0])
    (volume,) = read(f"{tmp_path / 'a.zarr'}:raw")
    assert volume.channels == 3
    with pytest.raises(InputError, match=r"without an OME-Zarr image.*'raw'"):
        read(tmp_path / "a.zarr")
    zarr.save(str(tmp_path / "b.zarr"), DATA[0, 0])
    assert read(tmp_path / "b.zarr")[0].shape == SHAPE[2:]


def test_a_plate_is_told_what_to_name(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    group.attrs["plate"] = {"wells": []}
    with pytest.raises(InputError, match="is a plate; name one of its images"):
        read(tmp_path / "a.zarr")
