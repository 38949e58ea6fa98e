from __future__ import annotations

import itertools
import json
from importlib import import_module

import nibabel as nib
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from napari.layers import Image
from scipy.spatial.transform import Rotation

from napari_attention_unet import InputError
from napari_attention_unet.io import open_image, read, save, writers
from napari_attention_unet.io.layers import volume_from_layers
from napari_attention_unet.io.napari_reader import read_layers
from napari_attention_unet.volume import Volume, scale_translate

SHAPE = (4, 6, 8)
SUFFIXES = {"tiff": ".ome.tif", "nifti": ".nii.gz", "nrrd": ".nrrd", "zarr": ".zarr"}


def volume(**options):
    options = {"spacing": (3.0, 0.5, 0.25), "translate": (10.0, -20.0, 30.0)} | options
    return Volume(np.zeros((1, *SHAPE), np.float32), units=options.pop("units", "mm"), **options)


def summary(folder):
    return json.loads((folder / "prediction.json").read_text(encoding="utf-8"))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("format_", SUFFIXES)
def test_a_folder_has_the_mask_every_gate_and_the_summary(tmp_path, predict, format_):
    folder = save(predict(volume()), tmp_path / "a" / "head", format_)
    assert folder == tmp_path / "a" / "head"
    suffix = SUFFIXES[format_]
    assert names(folder) == sorted(
        [f"gate-att1{suffix}", f"gate-deep.gate_2{suffix}", f"mask{suffix}", "prediction.json"]
    )
    found = summary(folder)
    assert found["model"] == "brain-t1"
    assert found["sha256"] == "ab" * 32
    assert found["files"]["mask"] == f"mask{suffix}"
    assert found["classes"][1] == {"name": "grey matter", "color": "#ff0000"}
    assert found["volume"]["spacing"] == [3, 0.5, 0.25]
    assert found["volume"]["units"] == "mm"
    deep, att1 = found["gates"]
    assert (deep["name"], deep["kind"], deep["grid"]) == ("deep.gate_2", "softmax", "1/2·1/4·1/4")
    assert (att1["scale"], att1["translate"], att1["shape"]) == (
        [1, 2, 2],
        [0, 0.5, 0.5],
        [4, 3, 4],
    )
    assert att1["file"] == f"gate-att1{suffix}"
    assert 0 <= att1["minimum"] < att1["mean"] < att1["maximum"] <= 1


@pytest.mark.parametrize("units", ["mm", "µm", "nm", "pixel", "inch"])
@pytest.mark.parametrize("extras", [False, True])
def test_tiff_comes_back(tmp_path, predict, units, extras):
    prediction = predict(volume(units=units), extras=extras)
    folder = save(prediction, tmp_path / "out", "tiff")
    (mask,) = read(folder / "mask.ome.tif")
    np.testing.assert_array_equal(mask.data[0], prediction.mask)
    assert mask.data.dtype == np.uint8
    assert mask.units == units
    np.testing.assert_allclose(mask.spacing, (3, 0.5, 0.25))
    for gate in prediction.gates:
        (found,) = read(folder / f"gate-{gate.name}.ome.tif")
        np.testing.assert_array_equal(found.data[0], gate.coefficients.astype(np.float32))
        np.testing.assert_allclose(found.spacing, np.multiply((3, 0.5, 0.25), gate.scale))
        if units != "pixel":  # OME has no positions in pixels that count
            expected = np.add((10, -20, 30), np.multiply((3, 0.5, 0.25), gate.translate))
            np.testing.assert_allclose(found.translate, expected)
    assert (folder / "logits.ome.tif").exists() == extras
    if extras:
        (found,) = read(folder / "probabilities.ome.tif")
        np.testing.assert_array_equal(found.data, prediction.probabilities)
        assert found.channel_names == ("background", "grey matter", "white matter")


def test_tiff_is_valid_ome_that_tifffile_reads(tmp_path, predict):
    folder = save(predict(volume()), tmp_path / "out", "tiff")
    with tifffile.TiffFile(folder / "gate-att1.ome.tif") as tif:
        assert tif.is_ome
        assert tif.series[0].axes == "ZYX"
        pixels = tifffile.xml2dict(tif.ome_metadata)["OME"]["Image"]["Pixels"]
    assert pixels["PhysicalSizeX"] == 0.5
    assert pixels["PhysicalSizeXUnit"] == "mm"
    assert [plane["PositionZ"] for plane in pixels["Plane"]] == [10, 13, 16, 19]


def test_large_tiff_files_have_wide_offsets(tmp_path, predict, monkeypatch):
    monkeypatch.setattr(writers, "_BIG_TIFF_BYTES", 100)
    folder = save(predict(volume()), tmp_path / "out", "tiff")
    with tifffile.TiffFile(folder / "mask.ome.tif") as tif:
        assert tif.is_bigtiff
    assert read(folder / "mask.ome.tif")


@pytest.mark.parametrize("units", ["mm", "µm", "pixel"])
def test_zarr_comes_back(tmp_path, predict, units):
    prediction = predict(volume(units=units), extras=True)
    folder = save(prediction, tmp_path / "out", "zarr")
    for gate in prediction.gates:
        group = zarr.open_group(folder / f"gate-{gate.name}.zarr", mode="r")
        np.testing.assert_array_equal(group["0"][:], gate.coefficients.astype(np.float32))
        (scales,) = group.attrs["multiscales"]
        assert scales["version"] == "0.4"
        assert [axis["name"] for axis in scales["axes"]] == ["z", "y", "x"]
        unit = {"mm": "millimeter", "µm": "micrometer"}.get(units)
        assert {axis.get("unit") for axis in scales["axes"]} == {unit}
        scale, translation = scales["datasets"][0]["coordinateTransformations"]
        np.testing.assert_allclose(scale["scale"], np.multiply((3, 0.5, 0.25), gate.scale))
        expected = np.add((10, -20, 30), np.multiply((3, 0.5, 0.25), gate.translate))
        np.testing.assert_allclose(translation["translation"], expected)
    group = zarr.open_group(folder / "mask.zarr", mode="r")
    np.testing.assert_array_equal(group["0"][:], prediction.mask)
    assert group.attrs["image-label"]["colors"][0] == {"label-value": 1, "rgba": [255, 0, 0, 255]}
    assert group.metadata.zarr_format == 2
    assert (folder / "mask.zarr" / "0" / "0" / "0" / "0").is_file()
    group = zarr.open_group(folder / "logits.zarr", mode="r")
    np.testing.assert_array_equal(group["0"][:], prediction.logits)
    assert [a["type"] for a in group.attrs["multiscales"][0]["axes"]] == ["channel"] + ["space"] * 3


@st.composite
def files(draw):
    """Affine and shape of a NIfTI file in any storage order, oblique."""
    order = draw(st.permutations(range(3)))
    signs = draw(st.tuples(*[st.sampled_from([-1, 1])] * 3))
    sizes = draw(st.tuples(*[st.floats(0.3, 6)] * 3))
    angles = np.array(draw(st.tuples(*[st.floats(-1, 1)] * 3)))
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_rotvec(0.4 * angles).as_matrix() @ np.eye(3)[:, order]
    affine[:3, :3] *= np.multiply(signs, sizes)
    affine[:3, 3] = draw(st.tuples(*[st.floats(-200, 200)] * 3))
    return affine, draw(st.tuples(*[st.integers(4, 7)] * 3))


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(file=files(), cropped=st.booleans(), through_napari=st.booleans())
def test_nifti_results_overlay_their_source_in_nibabel(
    tmp_path, predict, at, file, cropped, through_napari
):
    affine, shape = file
    numbered = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    image = nib.Nifti1Image(numbered, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, "mni")
    path = tmp_path / "source.nii"
    nib.save(image, path)
    source = nib.load(path)
    if through_napari:
        ((data, options, _),) = read_layers(path)
        run = volume_from_layers([Image(data, **options)])
    else:
        (run,) = read(path)
    if cropped:
        run = run.crop(((1, 4), (0, 3), (1, 3)))
    prediction = predict(run)
    folder = save(prediction, tmp_path / "out")
    mask = nib.load(folder / "mask.nii.gz")
    assert int(mask.header["sform_code"]) == 4
    if not cropped:
        assert mask.shape == source.shape
        np.testing.assert_allclose(mask.affine, source.affine, rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(mask.get_qform(), source.affine, atol=1e-3)
    # The label of each voxel lies where the voxel of the volume that it was made from lies.
    labels = np.asarray(mask.dataobj)
    where_voxels_lie = {int(v): at(source.affine, i) for i, v in np.ndenumerate(numbered)}
    places = {tuple(np.round(at(mask.affine, i), 2)): v for i, v in np.ndenumerate(labels)}
    for index in np.ndindex(*run.shape):
        place = where_voxels_lie[int(np.asarray(run.data)[(0, *index)])]
        nearest = min(places, key=lambda p: np.abs(np.subtract(p, place)).sum())
        np.testing.assert_allclose(nearest, place, atol=0.02)
        assert places[nearest] == prediction.mask[index]
    # And each sample of a gate at the voxel that its scale and translate name.
    flip = np.array([[0, 0, -1, 0], [0, -1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, 1]])
    for gate in prediction.gates:
        saved = nib.load(folder / f"gate-{gate.name}.nii.gz")
        values = np.asarray(saved.dataobj)
        for index in itertools.product(*({0, n - 1} for n in gate.coefficients.shape)):
            voxel = np.add(gate.translate, np.multiply(gate.scale, index))
            ras = at(flip @ run.index_to_world, voxel)
            stored = np.rint(at(np.linalg.inv(saved.affine), ras)).astype(int)
            np.testing.assert_allclose(at(saved.affine, stored), ras, atol=1e-2)
            assert values[tuple(stored)] == np.float32(gate.coefficients[index])


@pytest.mark.parametrize(
    ("orientation", "ras"),
    [(None, (-1, -1, -1)), ("IPL", (-1, -1, -1)), ("SAR", (1, 1, 1)), ("SPR", (1, -1, 1))],
)
def test_nifti_of_a_volume_that_was_no_nifti(tmp_path, predict, at, orientation, ras):
    affine = scale_translate((3, 0.5, 0.25), (10, -20, 30))
    prediction = predict(volume(orientation=orientation, affine=affine))
    folder = save(prediction, tmp_path / "out", "nifti")
    mask = nib.load(folder / "mask.nii.gz")
    assert mask.shape == SHAPE[::-1]
    np.testing.assert_allclose(at(mask.affine, (0, 0, 0)), np.multiply(ras, (30, -20, 10)))
    np.testing.assert_allclose(mask.header.get_zooms(), (0.25, 0.5, 3))
    np.testing.assert_array_equal(np.asarray(mask.dataobj), prediction.mask.T)
    assert mask.header.get_intent()[0] == "label"
    (again,) = read(folder / "mask.nii.gz")
    if orientation in (None, "IPL"):
        np.testing.assert_array_equal(again.data[0], prediction.mask)
        np.testing.assert_allclose(again.index_to_world, prediction.volume.index_to_world)


def test_nifti_units(tmp_path, predict):
    for units, stored, size in (
        ("µm", "micron", 0.25),
        ("cm", "mm", 2.5),
        ("pixel", "unknown", 0.25),
    ):
        folder = save(predict(volume(units=units)), tmp_path / units, "nifti")
        header = nib.load(folder / "mask.nii.gz").header
        assert header.get_xyzt_units()[0] == stored
        assert header.get_zooms()[0] == pytest.approx(size)


def test_a_sheared_affine_is_in_the_sform_alone(tmp_path, predict):
    affine = np.eye(4)
    affine[0, 1] = 0.3
    folder = save(predict(volume(affine=affine)), tmp_path / "out", "nifti")
    mask = nib.load(folder / "mask.nii.gz")
    assert int(mask.header["qform_code"]) == 0
    assert int(mask.header["sform_code"]) == 2


def test_probabilities_in_nifti_are_vectors(tmp_path, predict):
    prediction = predict(volume(), extras=True)
    folder = save(prediction, tmp_path / "out", "nifti")
    saved = nib.load(folder / "probabilities.nii.gz")
    assert saved.shape == (*SHAPE[::-1], 1, 3)
    assert saved.header.get_intent()[0] == "vector"
    (again,) = read(folder / "probabilities.nii.gz")
    np.testing.assert_array_equal(again.data, prediction.probabilities)


@pytest.mark.parametrize("format_", SUFFIXES)
def test_time_series(tmp_path, predict, format_):
    source = Image(
        np.zeros((3, *SHAPE)),
        scale=(20, 3, 2, 1),
        translate=(100, 0, 0, 0),
        units=("ms", "mm", "mm", "mm"),
        axis_labels=("time", "z", "y", "x"),
    )
    series = [predict(volume_from_layers([source], time_index=t), extras=True) for t in range(3)]
    folder = save(series, tmp_path / "out", format_)
    found = summary(folder)
    assert found["times"] == [100, 120, 140]
    assert found["time_unit"] == "ms"
    gate = series[0].gates[1]
    for name, arrays in (
        ("mask", [p.mask for p in series]),
        ("gate-att1", [p.gate("att1").coefficients for p in series]),
        ("probabilities", [p.probabilities for p in series]),
    ):
        path = folder / f"{name}{SUFFIXES[format_]}"
        if format_ == "zarr":
            group = zarr.open_group(path, mode="r")
            np.testing.assert_array_equal(group["0"][:], arrays)
            (scales,) = group.attrs["multiscales"]
            assert scales["axes"][0] == {"name": "t", "type": "time", "unit": "millisecond"}
            scale, translation = scales["datasets"][0]["coordinateTransformations"]
            assert (scale["scale"][0], translation["translation"][0]) == (20, 100)
            continue
        again = read(path)
        assert np.diff([v.time for v in again]) == pytest.approx([20, 20])
        assert {v.time_unit for v in again} == {"ms"}
        for v, array in zip(again, arrays, strict=True):
            np.testing.assert_array_equal(np.squeeze(v.data), np.squeeze(array))
            if name == "gate-att1":
                np.testing.assert_allclose(v.spacing, np.multiply((3, 2, 1), gate.scale))


def test_many_classes_need_wider_labels(tmp_path, predict):
    prediction = predict(volume())
    prediction.mask[0, 0, 0] = 300
    folder = save(prediction, tmp_path / "out", "tiff")
    data = open_image(folder / "mask.ome.tif").data
    assert data.dtype == np.uint16
    assert data.max() == 300


# --- whole or not at all ------------------------------------------------------------------------


@pytest.mark.parametrize("format_", SUFFIXES)
def test_an_earlier_run_is_replaced_and_other_files_are_left_alone(tmp_path, predict, format_):
    folder = tmp_path / "out"
    first = predict(volume(), extras=True)
    save(first, folder, format_)
    (folder / "notes.txt").write_text("mine")
    (folder / "mine.nii.gz").write_text("mine")
    second = predict(volume(), seed=1)
    save(second, folder, "tiff")
    assert names(folder) == sorted(
        [
            "gate-att1.ome.tif",
            "gate-deep.gate_2.ome.tif",
            "mask.ome.tif",
            "mine.nii.gz",
            "notes.txt",
            "prediction.json",
        ]
    )
    np.testing.assert_array_equal(read(folder / "mask.ome.tif")[0].data[0], second.mask)
    save(second, folder, format_)
    save(first, folder, format_)
    assert f"logits{SUFFIXES[format_]}" in names(folder)


@pytest.mark.parametrize("format_", SUFFIXES)
@pytest.mark.parametrize("after", [0, 1, 2])
def test_what_fails_half_way_never_looks_complete(tmp_path, predict, monkeypatch, format_, after):
    folder = tmp_path / "out"
    save(predict(volume()), folder, format_)
    writers_of = import_module("napari_attention_unet.io.save")._WRITERS
    suffix, write = writers_of[format_]
    calls = []

    def fail(path, output):
        calls.append(path)
        write(path, output)
        if len(calls) > after:
            raise OSError(28, "No space left on device")

    monkeypatch.setitem(writers_of, format_, (suffix, fail))
    second = predict(volume(), seed=1)
    with pytest.raises(OSError, match="No space left"):
        save(second, folder, format_)
    left = names(folder)
    assert "prediction.json" not in left
    assert not [name for name in left if "part" in name]
    assert len(left) == after


def test_a_summary_that_names_other_places_removes_nothing_there(tmp_path, predict):
    keep = tmp_path / "keep.txt"
    keep.write_text("mine")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "prediction.json").write_text(
        json.dumps({"files": {"mask": "../keep.txt", "a": str(keep), "b": 3, "c": ".."}})
    )
    save(predict(volume()), folder, "tiff")
    assert keep.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"files": 3}'])
def test_a_damaged_summary_is_replaced(tmp_path, predict, content):
    (tmp_path / "prediction.json").write_text(content)
    assert summary(save(predict(volume()), tmp_path, "tiff"))["model"] == "brain-t1"


def test_the_summary_is_strict_json(tmp_path, predict):
    prediction = predict(volume())
    prediction.provenance.update(
        score=float("nan"), device=np.float32(2), path=tmp_path, shape=(1, np.int64(2)), ok=True
    )
    prediction.gates[1].coefficients[:] = np.nan
    found = summary(save(prediction, tmp_path / "out", "tiff"))
    assert found["score"] is None
    assert found["device"] == 2
    assert found["path"] == str(tmp_path)
    assert found["shape"] == [1, 2]
    assert found["ok"] is True
    assert found["gates"][1]["mean"] is None


def test_gates_of_any_name_have_a_file(tmp_path, predict):
    prediction = predict(volume())
    object.__setattr__(prediction.gates[0], "name", "a/b:c\\d")
    folder = save(prediction, tmp_path / "out", "tiff")
    assert "gate-a_b_c_d.ome.tif" in names(folder)
    assert summary(folder)["gates"][0]["file"] == "gate-a_b_c_d.ome.tif"


def test_bad_requests(tmp_path, predict):
    with pytest.raises(
        InputError, match="Unknown format 'png'; known: auto, tiff, nifti, nrrd, zarr"
    ):
        save(predict(volume()), tmp_path, "png")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file; give a folder"):
        save(predict(volume()), tmp_path / "file")


def test_auto_is_the_source_s_own_format(tmp_path, predict):
    nib.save(nib.Nifti1Image(np.zeros((5, 6, 7), np.uint8), np.eye(4)), tmp_path / "a.nii")
    folder = save(predict(read(tmp_path / "a.nii")[0]), tmp_path / "nifti")
    assert "mask.nii.gz" in names(folder)
    assert "mask.ome.tif" in names(save(predict(volume()), tmp_path / "tiff"))
