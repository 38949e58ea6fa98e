"""Formats beyond TIFF and NIfTI: each voxel lies where the format's own library says."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import nrrd
import numpy as np
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from napari_attention_unet import InputError
from napari_attention_unet.io import open_image, read
from napari_attention_unet.io.napari_reader import get_reader
from napari_attention_unet.io.readers import split_inner

SHAPE = (5, 6, 7)
UPRIGHT = np.eye(3)
LPS_TO_ZYX = np.array([[0, 0, -1.0], [0, 1, 0], [1, 0, 0]])  # I = -S, P, L
function_scoped = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def numbered(shape=SHAPE, dtype=np.int16):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


@st.composite
def directions(draw):
    """Any right- or left-handed order of axes, turned by up to 30 degrees."""
    order = draw(st.permutations(range(3)))
    signs = draw(st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3))
    vector = np.array(draw(st.tuples(*[st.floats(-0.3, 0.3)] * 3)))
    turned = Rotation.from_rotvec(vector).as_matrix() @ np.eye(3)[:, order] * signs
    return turned.round(12)  # ITK cannot invert what holds denormal numbers


sizes = st.tuples(*[st.floats(0.3, 6)] * 3)
places = st.tuples(*[st.floats(-100, 100)] * 3)


def image(direction=UPRIGHT, spacing=(1.0, 2.0, 3.0), origin=(4.0, 5.0, 6.0)):
    made = SimpleITK.GetImageFromArray(numbered())  # z, y, x
    made.SetDirection(np.ravel(direction).tolist())
    made.SetSpacing(spacing)
    made.SetOrigin(origin)
    return made


def check_places(volume, itk):
    """Each voxel's world is ITK's, and its value the one there."""
    for index in np.ndindex(volume.shape):
        world = (volume.index_to_world @ [*index, 1.0])[:3]
        lps = np.linalg.inv(LPS_TO_ZYX) @ world
        there = itk.TransformPhysicalPointToIndex(lps.tolist())
        assert np.allclose(
            itk.TransformIndexToPhysicalPoint(there), lps, atol=0.02
        )  # nearly aligned ones count as aligned
        assert volume.data[(0, *index)] == itk[there]


@function_scoped
@given(
    direction=directions(), spacing=sizes, origin=places, suffix=st.sampled_from(["nrrd", "mha"])
)
def test_every_voxel_lies_where_itk_says(tmp_path, direction, spacing, origin, suffix):
    path = tmp_path / f"a.{suffix}"
    made = image(direction, spacing, origin)
    SimpleITK.WriteImage(made, str(path))
    (volume,) = read(path)
    assert (volume.orientation, volume.units) == ("IPL", "mm")
    check_places(volume, made)
    # shown on the axes nearest to inferior, posterior, left
    assert np.all(np.diag(volume.index_to_world)[:3] > 0)


def test_a_detached_header_and_compression(tmp_path):
    for name in ("a.mhd", "a.nhdr"):
        SimpleITK.WriteImage(image(), str(tmp_path / name), useCompression=True)
        (volume,) = read(tmp_path / name)
        check_places(volume, image())


def test_a_metaimage_with_time_and_one_with_channels(tmp_path):
    series = SimpleITK.JoinSeries([image(), image() + 1000], 10.0, 2.5)
    SimpleITK.WriteImage(series, str(tmp_path / "t.mha"))
    first, second = read(tmp_path / "t.mha")
    assert (first.time, second.time) == (10.0, 12.5)
    np.testing.assert_array_equal(second.data, first.data + 1000)
    vector = SimpleITK.Compose(image(), image() + 7)
    SimpleITK.WriteImage(vector, str(tmp_path / "c.mha"))
    (volume,) = read(tmp_path / "c.mha")
    assert volume.channels == 2
    np.testing.assert_array_equal(volume.data[1], volume.data[0] + 7)


def test_a_metaimage_that_is_no_patient_keeps_its_axes(tmp_path):
    path = tmp_path / "a.mha"
    SimpleITK.WriteImage(image(), str(path))
    path.write_bytes(path.read_bytes().replace(b"Orientation = RAI", b"Orientation = ???"))
    (volume,) = read(path)
    assert volume.orientation is None
    np.testing.assert_array_equal(volume.data[0], numbered())
    assert (volume.spacing, volume.translate) == ((3.0, 2.0, 1.0), (6.0, 5.0, 4.0))


# --- NRRD ---------------------------------------------------------------------------------------


def test_nrrd_of_a_microscope(tmp_path):
    data = numbered((7, 6, 5))  # x, y, z
    header = {"spacings": [0.2, 0.3, 1.5], "units": ["micron"] * 3, "kinds": ["domain"] * 3}
    nrrd.write(str(tmp_path / "a.nrrd"), data, header)
    (volume,) = read(tmp_path / "a.nrrd")
    assert (volume.spacing, volume.units, volume.orientation) == ((1.5, 0.3, 0.2), "µm", None)
    np.testing.assert_array_equal(volume.data[0], data.T)


@pytest.mark.parametrize("space", ["left-anterior-superior", "RAS", "scanner-xyz"])
def test_nrrd_spaces(tmp_path, space):
    header = {
        "space": space,
        "space directions": np.diag([2.0, 3.0, 4.0]),
        "space origin": [10.0, 20.0, 30.0],
        "space units": ["mm"] * 3,
    }
    data = numbered((7, 6, 5))
    nrrd.write(str(tmp_path / "a.nrrd"), data, header)
    (volume,) = read(tmp_path / "a.nrrd")
    anatomical = space != "scanner-xyz"
    assert volume.orientation == ("IPL" if anatomical else None)
    matrix = {
        "left-anterior-superior": [[0, 0, -1], [0, -1, 0], [1, 0, 0]],
        "RAS": [[0, 0, -1], [0, -1, 0], [-1, 0, 0]],
        "scanner-xyz": [[0, 0, 1], [0, 1, 0], [1, 0, 0]],
    }[space]
    for xyz in np.ndindex(data.shape):
        world = matrix @ (np.array([10.0, 20, 30]) + np.array([2.0, 3, 4]) * xyz)
        index = np.linalg.inv(volume.index_to_world) @ [*world, 1.0]
        assert volume.data[(0, *np.rint(index[:3]).astype(int))] == data[xyz]


def test_nrrd_channels_and_time(tmp_path):
    data = numbered((2, 7, 6, 5))
    header = {
        "space": "LPS",
        "space directions": np.array([[np.nan] * 3, [1, 0, 0], [0, 1, 0], [0, 0, 1.0]]),
        "space origin": [0.0, 0, 0],
        "kinds": ["vector", "domain", "domain", "domain"],
    }
    nrrd.write(str(tmp_path / "c.nrrd"), data, header)
    assert [v.channels for v in read(tmp_path / "c.nrrd")] == [2]
    nrrd.write(str(tmp_path / "t.nrrd"), data, header | {"kinds": ["time", *["domain"] * 3]})
    assert [v.channels for v in read(tmp_path / "t.nrrd")] == [1, 1]


def test_a_nrrd_that_promises_too_much(tmp_path):
    nrrd.write(str(tmp_path / "a.nrrd"), numbered(), {"encoding": "raw"})
    text = (tmp_path / "a.nrrd").read_bytes().replace(b"sizes: 5 6 7", b"sizes: 5000 6000 7000")
    (tmp_path / "a.nrrd").write_bytes(text)
    with pytest.raises(InputError, match="promises 210000000000 voxels"):
        read(tmp_path / "a.nrrd")


# --- arrays -------------------------------------------------------------------------------------


def test_numpy_files(tmp_path):
    np.save(tmp_path / "a.npy", numbered())
    (volume,) = read(tmp_path / "a.npy")
    np.testing.assert_array_equal(volume.data[0], numbered())
    np.savez(tmp_path / "b.npz", one=numbered(), two=numbered((2, *SHAPE)), flat=np.zeros(3))
    (volume,) = read(f"{tmp_path / 'b.npz'}:two")
    assert volume.channels == 2
    with pytest.raises(InputError, match=r"several volumes.*'one' .5, 6, 7.*'two'"):
        read(tmp_path / "b.npz")
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="cannot be read as a numpy file"):
        read(tmp_path / "o.npy")


def test_hdf5_by_name_with_its_axes_and_size(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = numbered((2, *SHAPE))
        file["raw"].attrs["axistags"] = json.dumps({"axes": [{"key": k} for k in "czyx"]})
        file["raw"].attrs["element_size_um"] = [2.0, 0.5, 0.5]
        file["deep/channels_last"] = numbered((*SHAPE, 2))
        file["deep/channels_last"].dims[3].label = "c"
        for axis, label in enumerate("zyx"):
            file["deep/channels_last"].dims[axis].label = label
        file["table"] = np.zeros(4)
    (volume,) = read(f"{tmp_path / 'a.h5'}:raw")
    assert (volume.channels, volume.spacing, volume.units) == (2, (2.0, 0.5, 0.5), "µm")
    (volume,) = read(f"{tmp_path / 'a.h5'}:/deep/channels_last")
    assert (volume.channels, volume.shape) == (2, SHAPE)
    with pytest.raises(InputError, match=r"no volume 'nothing'. It has: 'deep/channels_last'"):
        read(f"{tmp_path / 'a.h5'}:nothing")


def test_n5_is_stored_x_first(tmp_path):
    tensorstore = pytest.importorskip("tensorstore")
    data = numbered()
    spec = {
        "driver": "n5",
        "kvstore": {"driver": "file", "path": str(tmp_path / "a.n5/volumes/raw")},
        "metadata": {"dimensions": data.T.shape, "dataType": "int16", "blockSize": [4, 4, 4]},
    }
    tensorstore.open(spec, create=True).result().write(data.T).result()
    attributes = tmp_path / "a.n5/volumes/raw/attributes.json"
    content = json.loads(attributes.read_text())
    attributes.write_text(json.dumps(content | {"resolution": [4, 5, 30], "units": ["nm"] * 3}))
    (volume,) = read(f"{tmp_path / 'a.n5'}:volumes/raw")
    np.testing.assert_array_equal(volume.data[0], data)
    assert (volume.spacing, volume.units) == ((30.0, 5.0, 4.0), "nm")
    (alone,) = read(tmp_path / "a.n5")  # there is but one
    assert alone.shape == SHAPE


def test_large_arrays_stay_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("napari_attention_unet.io.arrays.LAZY_ABOVE_BYTES", 100)
    np.save(tmp_path / "a.npy", numbered())
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("raw", data=numbered(), chunks=(2, 3, 4))
    for name in ("a.npy", "a.h5"):
        array = open_image(tmp_path / name).data
        assert hasattr(array, "dask")
        np.testing.assert_array_equal(array.compute()[0, 0], numbered())


# --- the choice of a reader ---------------------------------------------------------------------


def test_a_name_after_a_colon_is_told_from_a_colon_in_a_name(tmp_path):
    strange = tmp_path / "a:b.npy"
    np.save(strange, numbered())
    assert split_inner(strange) == (strange, "")
    assert split_inner(f"{strange}:c") == (strange, "c")
    assert split_inner(tmp_path / "not:there") == (tmp_path / "not:there", "")
    assert read(strange)[0].shape == SHAPE


def test_one_image_has_nothing_to_name(tmp_path):
    SimpleITK.WriteImage(image(), str(tmp_path / "a.mha"))
    with pytest.raises(InputError, match="holds one image; leave out ':raw'"):
        read(f"{tmp_path / 'a.mha'}:raw")


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.npy", "a.npz", "a.h5", "a.dcm"])
def test_damaged_files_give_one_sentence(tmp_path, attempt, name):
    for content in (b"", b"garbage" * 40):
        (tmp_path / name).write_bytes(content)
        volumes, message = attempt(tmp_path / name)
        assert not volumes
        assert name in message
        assert "\n" not in message


def test_the_napari_reader_leaves_other_folders_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    assert get_reader(str(tmp_path)) is None
    assert get_reader([str(tmp_path / "a.tif")]) is None
    assert get_reader(str(tmp_path / "a.nrrd")) is not None
    assert Path(tmp_path).is_dir()
