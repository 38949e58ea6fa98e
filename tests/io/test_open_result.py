"""What `save` wrote comes back as it was: arrays, places, geometry, provenance."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from napari_attention_unet import InputError
from napari_attention_unet.io import read, sample_path, save
from napari_attention_unet.io.open_result import is_result, open_result, source_of
from napari_attention_unet.io.save import FORMATS
from napari_attention_unet.volume import Part, Storage, Volume

WRITTEN = [format_ for format_ in FORMATS if format_ != "auto"]
SHAPE = (4, 6, 8)


def turned():
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", (10, -20, 30), degrees=True).as_matrix() * (3, 2, 1)
    affine[:3, 3] = (5, -6, 7)
    return affine


#: Volumes whose results are stored in different orders.
VOLUMES = {
    "plain": {},
    "anatomical": {"orientation": "RAS", "units": "mm"},
    "turned": {"affine": turned(), "units": "µm"},
    "from a file": {
        "units": "mm",
        "orientation": "IPL",
        "storage": Storage(
            "gone.nii.gz", "nifti", (1, 2, 0), (True, False, True), turned(), (8, 4, 6), "scanner"
        ),
    },
    "a part": {"part": Part((1.0, 0.0, 2.0), (1.0, 1.0, 1.0), 0), "units": "nm"},
}


def volume(**options):
    options = {"spacing": (3.0, 0.5, 0.25), "translate": (10.0, -20.0, 30.0)} | options
    return Volume(np.zeros((2, *SHAPE), np.float32), **options)


def assert_same(got, expected):
    np.testing.assert_array_equal(got.mask, expected.mask)
    for name in ("probabilities", "logits"):
        one, other = getattr(got, name), getattr(expected, name)
        assert (one is None) == (other is None)
        if other is not None:
            np.testing.assert_array_equal(one, other)
    assert [g.name for g in got.gates] == [g.name for g in expected.gates]
    for one, other in zip(got.gates, expected.gates, strict=True):
        np.testing.assert_array_equal(one.coefficients, other.coefficients.astype(np.float32))
        for name in ("scale", "translate", "kind", "stride", "forced", "label"):
            assert getattr(one, name) == getattr(other, name)
    assert got.classes == expected.classes
    for name in ("shape", "channels", "spacing", "translate", "units", "orientation", "name",
                 "time", "time_unit", "part"):  # fmt: skip
        assert getattr(got.volume, name) == getattr(expected.volume, name), name
    np.testing.assert_array_equal(got.volume.index_to_world, expected.volume.index_to_world)
    for name, value in expected.provenance.items():
        assert got.provenance[name] == value


@pytest.mark.parametrize("extras", [False, True])
@pytest.mark.parametrize("kind", VOLUMES)
@pytest.mark.parametrize("format_", WRITTEN)
def test_a_result_comes_back_as_it_was(tmp_path, predict, format_, kind, extras):
    expected = predict(volume(**VOLUMES[kind]), extras=extras)
    folder = save(expected, tmp_path / "out", format_)
    assert is_result(folder)
    (got,) = open_result(folder)
    assert_same(got, expected)
    assert not got.volume.data.any()


@pytest.mark.parametrize("format_", WRITTEN)
def test_a_time_series_comes_back(tmp_path, predict, format_):
    series = [
        predict(volume(time=2.5 * t, time_unit="s", part=Part(time_index=t)), extras=True)
        for t in range(3)
    ]
    got = open_result(save(series, tmp_path / "out", format_))
    assert len(got) == 3
    for one, expected in zip(got, series, strict=True):
        assert_same(one, expected)


def test_saving_again_what_was_opened_gives_the_same(tmp_path, predict):
    first = save(predict(volume(**VOLUMES["from a file"]), extras=True), tmp_path / "a", "nifti")
    second = save(open_result(first), tmp_path / "b", "nifti")
    for name in json.loads((first / "prediction.json").read_text())["files"].values():
        one, other = (read(folder / name)[0] for folder in (first, second))
        np.testing.assert_array_equal(one.data, other.data)
        np.testing.assert_array_equal(one.index_to_world, other.index_to_world)


def test_the_source_is_read_again_where_it_still_is(tmp_path, predict):
    (head,) = read(sample_path())
    box = ((10, 20), (0, 109), (30, 31))
    for source in (head, head.crop(box)):
        (got,) = open_result(save(predict(source), tmp_path / "out"))
        found = source_of(got)
        np.testing.assert_array_equal(found.data, source.data)
        np.testing.assert_array_equal(found.index_to_world, source.index_to_world)
    (gone,) = open_result(save(predict(volume(**VOLUMES["from a file"])), tmp_path / "out"))
    assert source_of(gone) is None
    assert source_of(predict(volume())) is None


def test_what_is_no_result_is_said(tmp_path, predict):
    with pytest.raises(InputError, match=r"no prediction\.json, so it holds no complete result"):
        open_result(tmp_path)
    folder = save(predict(volume()), tmp_path / "out", "tiff")
    whole = (folder / "prediction.json").read_text()
    (folder / "prediction.json").write_text(whole[:200])
    with pytest.raises(InputError, match="cannot be read as the summary of a result"):
        open_result(folder)
    (folder / "prediction.json").write_text(whole.replace('"shape": [\n   4,', '"shape": [\n   5,'))
    with pytest.raises(InputError, match=r"shape \(1, 1, 4, 6, 8\).*says \(1, any, 5, 6, 8\)"):
        open_result(folder)
    (folder / "prediction.json").write_text(whole)
    (folder / "mask.ome.tif").unlink()
    with pytest.raises(InputError, match=r"mask\.ome\.tif' is missing"):
        open_result(folder)
