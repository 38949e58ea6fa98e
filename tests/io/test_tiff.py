from __future__ import annotations

import logging

import dask.array as da
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_attention_unet import InputError
from napari_attention_unet.io import image, open_image, read, tiff

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _quiet():
    """Silence what tifffile logs about files that are damaged on purpose."""
    logger = logging.getLogger("tifffile")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


def random(shape, dtype=np.uint16):
    if np.dtype(dtype).kind == "f":
        return RNG.random(shape).astype(dtype)
    return RNG.integers(0, 100, shape).astype(dtype)


@pytest.mark.parametrize("unit", ["micron", "\\u00B5m", "um"])
def test_imagej_stack(tmp_path, unit):
    data = random((5, 6, 7))
    path = tmp_path / "cells.tif"
    tifffile.imwrite(
        path,
        data,
        imagej=True,
        resolution=(1 / 0.2, 1 / 0.25),
        metadata={"axes": "ZYX", "spacing": 0.9, "unit": unit},
    )
    (volume,) = read(path)
    np.testing.assert_array_equal(volume.data[0], data)
    np.testing.assert_allclose(volume.spacing, (0.9, 0.25, 0.2), rtol=1e-6)
    assert volume.units == "µm"
    assert volume.name == "cells"
    assert volume.orientation is None
    assert volume.time is None
    assert volume.storage.path == str(path)


def test_imagej_hyperstack_keeps_time_and_channels(tmp_path):
    data = random((2, 4, 3, 6, 7), np.float32)
    path = tmp_path / "hyper.tif"
    tifffile.imwrite(
        path,
        data,
        imagej=True,
        resolution=(10, 10),
        metadata={"axes": "TZCYX", "spacing": 2.0, "unit": "mm", "finterval": 30.0},
    )
    first, second = read(path)
    assert first.data.shape == (3, 4, 6, 7)
    np.testing.assert_array_equal(first.data, data[0].swapaxes(0, 1))
    np.testing.assert_array_equal(second.data, data[1].swapaxes(0, 1))
    assert (first.time, second.time) == (0.0, 30.0)
    assert second.time_unit == "s"
    assert second.part.time_index == 1
    np.testing.assert_allclose(second.spacing, (2, 0.1, 0.1), rtol=1e-6)


def test_imagej_origin_places_the_volume(tmp_path):
    path = tmp_path / "origin.tif"
    origin = {"xorigin": 3.0, "yorigin": -4.0, "zorigin": 2.0}
    tifffile.imwrite(
        path,
        random((3, 4, 5)),
        imagej=True,
        resolution=(2, 2),
        metadata={"axes": "ZYX", "spacing": 5.0, "unit": "mm", **origin},
    )
    np.testing.assert_allclose(read(path)[0].translate, (-10, 2, -1.5))


@pytest.mark.parametrize("axes", ["ZYX", "CZYX", "TZYX", "TCZYX", "TZCYX", "ZCYX"])
def test_ome_axes(tmp_path, axes):
    sizes = dict(zip("TCZYX", (2, 3, 4, 5, 6), strict=True))
    data = random([sizes[a] for a in axes])
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, data, ome=True, metadata={"axes": axes}, photometric="minisblack")
    volumes = read(path)
    assert len(volumes) == (2 if "T" in axes else 1)
    for t, volume in enumerate(volumes):
        expected = data[t] if axes[0] == "T" else data
        left = axes.replace("T", "")
        if "C" not in left:
            expected = expected[None]
        elif left.index("C") == 1:
            expected = expected.swapaxes(0, 1)
        np.testing.assert_array_equal(volume.data, expected)


def test_ome_geometry(tmp_path):
    path = tmp_path / "geometry.ome.tiff"
    planes = 2 * 3
    metadata = {
        "axes": "CZYX",
        "PhysicalSizeX": 0.5,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": 500.0,
        "PhysicalSizeYUnit": "nm",
        "PhysicalSizeZ": 0.002,
        "PhysicalSizeZUnit": "mm",
        "Channel": {"Name": ["DAPI", "GFP"]},
        "Plane": {
            **{f"Position{axis}": [10.0] * planes for axis in "XYZ"},
            **{f"Position{axis}Unit": ["mm" if axis == "Z" else "µm"] * planes for axis in "XYZ"},
        },
    }
    tifffile.imwrite(path, random((2, 3, 4, 5)), ome=True, metadata=metadata)
    (volume,) = read(path)
    assert volume.units == "µm"
    np.testing.assert_allclose(volume.spacing, (2.0, 0.5, 0.5))
    np.testing.assert_allclose(volume.translate, (10_000.0, 10.0, 10.0))
    assert volume.channel_names == ("DAPI", "GFP")
    assert volume.name == "geometry"


def test_ome_stage_positions_of_unknown_unit_are_left_out(tmp_path):
    path = tmp_path / "stage.ome.tif"
    metadata = {
        "axes": "ZYX",
        "PhysicalSizeX": 0.5,
        "Plane": {f"Position{axis}": [7.0] * 3 for axis in "XYZ"}
        | {f"Position{axis}Unit": ["reference frame"] * 3 for axis in "XYZ"},
    }
    tifffile.imwrite(path, random((3, 4, 5)), ome=True, metadata=metadata)
    (volume,) = read(path)
    assert volume.translate == (0, 0, 0)
    assert volume.spacing == (0.5, 0.5, 0.5)


def test_plain_pages_are_a_z_stack_of_pixels(tmp_path):
    data = random((5, 6, 7), np.uint8)
    path = tmp_path / "plain.tif"
    with tifffile.TiffWriter(path) as writer:
        for plane in data:
            writer.write(plane, contiguous=False, metadata=None, resolution=(72, 72))
    (volume,) = read(path)
    np.testing.assert_array_equal(volume.data[0], data)
    assert volume.spacing == (1, 1, 1)
    assert volume.units == "pixel"


def test_unnamed_axes_are_time_then_channels_before_z(tmp_path):
    path = tmp_path / "shaped.tif"
    tifffile.imwrite(path, random((2, 3, 4, 5, 6)), photometric="minisblack")
    assert [v.data.shape for v in read(path)] == [(3, 4, 5, 6)] * 2
    tifffile.imwrite(path, random((2, 2, 3, 4, 5, 6)), photometric="minisblack")
    with pytest.raises(InputError, match="more than time, channel, z, y and x"):
        read(path)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "dtype", ["bool", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]
)
def test_every_real_type_and_byte_order(tmp_path, order, dtype):
    data = random((3, 4, 5), dtype)
    path = tmp_path / "t.tif"
    tifffile.imwrite(path, data, byteorder=order, photometric="minisblack")
    (volume,) = read(path)
    assert volume.data.dtype == np.dtype(dtype)
    assert volume.data.dtype.isnative
    np.testing.assert_array_equal(volume.data[0], data)


@pytest.mark.parametrize("compression", ["zlib", "lzw", "packbits", "zstd", "deflate"])
def test_compressed(tmp_path, compression):
    data = random((3, 40, 50))
    path = tmp_path / "c.tif"
    tifffile.imwrite(path, data, compression=compression, photometric="minisblack")
    np.testing.assert_array_equal(read(path)[0].data[0], data)


def test_complex_values_are_refused(tmp_path):
    path = tmp_path / "c.tif"
    tifffile.imwrite(path, np.ones((3, 4, 5), np.complex64), photometric="minisblack")
    with pytest.raises(InputError, match="complex64; real numbers are needed"):
        read(path)


@pytest.mark.parametrize("shape", [(4, 5, 3), (6, 4, 5, 3), (6, 4, 5, 4)])
def test_colour_pictures_are_no_volumes_but_open(tmp_path, shape):
    data = random(shape, np.uint8)
    path = tmp_path / "rgb.tif"
    tifffile.imwrite(path, data, photometric="rgb")
    with pytest.raises(InputError, match="colour \\(RGB\\) picture; a volume of grey values"):
        read(path)
    found = open_image(path)
    assert found.is_rgb
    np.testing.assert_array_equal(np.squeeze(found.data), data)


@pytest.mark.parametrize(
    ("shape", "axes", "found"),
    [
        ((5, 6), "YX", "one plane"),
        ((4, 5, 6), "TYX", "a time series of single planes"),
        ((3, 5, 6), "CYX", "one plane"),
    ],
)
def test_what_has_no_depth_is_no_volume_but_opens(tmp_path, shape, axes, found):
    path = tmp_path / "flat.ome.tif"
    tifffile.imwrite(path, random(shape), ome=True, metadata={"axes": axes})
    with pytest.raises(InputError, match=f"holds {found}, with no z axis"):
        read(path)
    assert open_image(path).axes == axes


def compare_lazy(path, monkeypatch):
    eager = open_image(path)
    monkeypatch.setattr(tiff, "LAZY_ABOVE_BYTES", 0)
    lazy = open_image(path)
    for ours, theirs in zip(lazy.levels, eager.levels, strict=True):
        assert isinstance(ours, da.Array)
        np.testing.assert_array_equal(ours.compute(scheduler="synchronous"), theirs)
    return lazy


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}])
@pytest.mark.parametrize("order", ["<", ">"])
def test_large_files_are_read_lazily(tmp_path, monkeypatch, options, order):
    data = random((2, 3, 4, 40, 50))
    path = tmp_path / "lazy.ome.tif"
    tifffile.imwrite(
        path,
        data,
        ome=True,
        metadata={"axes": "TCZYX"},
        photometric="minisblack",
        byteorder=order,
        **options,
    )
    lazy = compare_lazy(path, monkeypatch)
    assert lazy.data.chunks[2] == (1, 1, 1, 1)
    assert lazy.data.dtype.isnative
    assert len(lazy.volumes()) == 2


def test_a_large_file_cut_short_is_refused_before_it_is_run(tmp_path, monkeypatch):
    path = tmp_path / "cut.tif"
    tifffile.imwrite(path, random((6, 40, 50)), imagej=True, metadata={"axes": "ZYX"})
    monkeypatch.setattr(tiff, "LAZY_ABOVE_BYTES", 0)
    assert read(path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match="cut short"):
        read(path)


def test_pyramids(tmp_path, monkeypatch):
    data = random((4, 64, 48))
    path = tmp_path / "pyramid.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(data, subifds=1, metadata={"axes": "ZYX"}, tile=(16, 16))
        writer.write(data[:, ::2, ::2], subfiletype=1, tile=(16, 16))
    lazy = compare_lazy(path, monkeypatch)
    assert [level.shape[2:] for level in lazy.levels] == [(4, 64, 48), (4, 32, 24)]
    np.testing.assert_array_equal(read(path)[0].data[0], data)


WRITERS = {
    "pages": {"metadata": None, "photometric": "minisblack"},
    "shaped": {"photometric": "minisblack"},
    "imagej": {"imagej": True, "metadata": {"axes": "ZYX"}},
    "ome": {"ome": True, "metadata": {"axes": "ZYX"}},
    "compressed": {"compression": "zlib", "photometric": "minisblack"},
    "bigtiff": {"bigtiff": True, "metadata": None, "photometric": "minisblack"},
    "tiled": {"tile": (16, 16), "photometric": "minisblack"},
}


@pytest.mark.parametrize("kind", WRITERS)
def test_files_cut_short_are_refused_or_whole(tmp_path, attempt, kind):
    data = random((5, 20, 30))
    path = tmp_path / "cut.tif"
    if kind == "pages":
        with tifffile.TiffWriter(path) as writer:
            for plane in data:
                writer.write(plane, contiguous=False, **WRITERS[kind])
    else:
        tifffile.imwrite(path, data, **WRITERS[kind])
    whole = path.read_bytes()
    refused = 0
    for length in {*range(0, len(whole), 97), len(whole) - 1}:
        path.write_bytes(whole[:length])
        volumes, reason = attempt(path)
        if reason:
            refused += 1
            assert str(path) in reason
        else:
            np.testing.assert_array_equal(volumes[0].data[0], data)
    assert refused > 30
    path.write_bytes(whole)
    np.testing.assert_array_equal(read(path)[0].data[0], data)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    changes=st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 255)), min_size=1, max_size=8),
    kind=st.sampled_from(sorted(WRITERS)),
)
def test_damaged_files_give_one_sentence_or_an_image(tmp_path, attempt, changes, kind):
    path = tmp_path / "damaged.tif"
    tifffile.imwrite(path, np.zeros((3, 8, 9), np.uint16), **WRITERS[kind])
    content = bytearray(path.read_bytes())
    for position, value in changes:
        content[position % len(content)] = value
    path.write_bytes(content)
    volumes, reason = attempt(path)
    assert "\n" not in reason
    assert all(np.asarray(volume.data).ndim == 4 for volume in volumes)


@pytest.mark.parametrize("content", [b"", b"II", b"not a picture" * 20, b"\x89PNG\r\n\x1a\n" * 9])
def test_foreign_files_give_one_sentence(tmp_path, content):
    path = tmp_path / "foreign.tif"
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as a TIFF image") as error:
        read(path)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"There is no file '.*gone\.tif'"):
        read(tmp_path / "gone.tif")


def test_names_lose_their_endings():
    assert image.stem("a/b.OME.TIF") == "b"
    assert image.stem("a/b.c.nii.gz") == "b.c"
    assert image.stem("b.tiff") == "b"
    assert image.stem(".nii.gz") == ".nii"
