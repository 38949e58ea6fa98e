from __future__ import annotations

import gzip
import itertools

import dask.array as da
import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from napari_attention_unet import InputError
from napari_attention_unet.io import nifti, open_image, read

SHAPE = (5, 6, 7)
RNG = np.random.default_rng(0)


def numbered(shape=SHAPE, dtype=np.int16):
    """An array of which each voxel has a value of its own."""
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def put(path, data, affine=None, prepare=lambda image: None):
    image = nib.Nifti1Image(data, np.diag([2.0, 3.0, 4.0, 1.0]) if affine is None else affine)
    image.header.set_xyzt_units("mm")
    prepare(image)
    nib.save(image, path)
    return path


def rewrite(path, **fields):
    """Change fields of the header as they stand, which nibabel would not let through."""
    packed = path.suffix == ".gz"
    content = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    content[:348] = header.binaryblock
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


@st.composite
def affines(draw, degrees=40.0):
    """Any storage order, voxel size, place, and a rotation off the axes."""
    order = draw(st.permutations(range(3)))
    signs = draw(st.tuples(*[st.sampled_from([-1, 1])] * 3))
    sizes = draw(st.tuples(*[st.floats(0.3, 6)] * 3))
    angles = draw(st.tuples(*[st.floats(-1, 1)] * 3))
    rotation = Rotation.from_rotvec(np.radians(degrees) / np.sqrt(3) * np.array(angles))
    affine = np.eye(4)
    affine[:3, :3] = rotation.as_matrix() @ np.eye(3)[:, order] * np.multiply(signs, sizes)
    affine[:3, 3] = draw(st.tuples(*[st.floats(-200, 200)] * 3))
    return affine


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(affine=affines(), shape=st.tuples(*[st.integers(2, 5)] * 3))
def test_every_voxel_lies_where_nibabel_says(tmp_path, at, affine, shape):
    data = numbered(shape)
    path = put(tmp_path / "a.nii", data, affine)
    (volume,) = read(path)
    stored = nib.load(path).affine
    np.testing.assert_array_equal(volume.storage.affine, stored)
    assert volume.orientation == "IPL"
    matrix = volume.index_to_world
    for index in itertools.product(*map(range, volume.shape)):
        (file_index,) = np.argwhere(data == volume.data[(0, *index)])
        r, a, s = at(stored, file_index)
        np.testing.assert_allclose(at(matrix, index), (-s, -a, -r), atol=1e-3)
    # The axes grow to inferior, posterior and left, each the nearest of the three.
    linear = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    assert (np.diag(linear) > 0.5).all()
    np.testing.assert_allclose(volume.spacing, np.linalg.norm(matrix[:3, :3], axis=0), rtol=1e-5)
    np.testing.assert_allclose(volume.translate, matrix[:3, 3], atol=1e-4)


@pytest.mark.parametrize("codes", list(itertools.product("LR", "AP", "IS")))
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_any_storage_order_gives_the_same_upright_volume(tmp_path, codes, order):
    image = nib.Nifti1Image(numbered(), np.diag([2.0, 3.0, 4.0, 1.0]))
    target = nib.orientations.axcodes2ornt([codes[axis] for axis in order])
    source = nib.io_orientation(image.affine)
    turned = image.as_reoriented(nib.orientations.ornt_transform(source, target))
    path = tmp_path / "turned.nii.gz"
    nib.save(turned, path)
    (volume,) = read(path)
    np.testing.assert_array_equal(volume.data[0], np.flip(numbered().transpose(2, 1, 0)))
    assert volume.spacing == (4, 3, 2)
    assert volume.affine is None
    np.testing.assert_allclose(volume.translate, (-24, -15, -8))


def test_a_right_angle_is_no_oblique_rotation(tmp_path):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("x", 90, degrees=True).as_matrix() * 2
    assert read(put(tmp_path / "a.nii", numbered(), affine))[0].affine is None
    affine[:3, :3] = Rotation.from_euler("x", 89.5, degrees=True).as_matrix() * 2
    assert read(put(tmp_path / "b.nii", numbered(), affine))[0].affine is not None


def test_left_and_right_are_unknown_where_the_file_says_nothing(tmp_path):
    path = rewrite(put(tmp_path / "a.nii", numbered()), sform_code=0, qform_code=0)
    (volume,) = read(path)
    assert volume.orientation is None
    assert volume.spacing == (4, 3, 2)
    assert volume.storage.space == "unknown"


@pytest.mark.parametrize("bad", [np.nan, 0.0])
def test_a_useless_affine_falls_back_to_the_voxel_size(tmp_path, bad):
    path = rewrite(put(tmp_path / "a.nii", numbered()), srow_x=bad)
    (volume,) = read(path)
    assert volume.spacing == (4, 3, 2)
    assert volume.orientation is None
    rewrite(path, pixdim=[1, 0, -3, bad, 1, 1, 1, 1])
    assert read(path)[0].spacing == (1, 3, 1)


@pytest.mark.parametrize(("unit", "symbol"), [("mm", "mm"), ("micron", "µm"), ("meter", "m")])
def test_units(tmp_path, unit, symbol):
    path = put(tmp_path / "a.nii", numbered(), prepare=lambda i: i.header.set_xyzt_units(unit))
    assert read(path)[0].units == symbol


def test_no_unit_is_millimetres(tmp_path):
    path = put(tmp_path / "a.nii", numbered(), prepare=lambda i: i.header.set_xyzt_units("unknown"))
    assert read(path)[0].units == "mm"


def test_time(tmp_path):
    def prepare(image):
        image.header.set_xyzt_units("mm", "msec")
        image.header["pixdim"][4] = 500.0
        image.header["toffset"] = 20.0

    data = numbered((*SHAPE, 3))
    volumes = read(put(tmp_path / "a.nii", data, prepare=prepare))
    assert [v.time for v in volumes] == [20, 520, 1020]
    assert {v.time_unit for v in volumes} == {"ms"}
    assert [v.part.time_index for v in volumes] == [0, 1, 2]
    np.testing.assert_array_equal(volumes[2].data[0], np.flip(data[..., 2].transpose(2, 1, 0)))


def vector(image):
    image.header.set_intent("vector")


def spectral(image):
    image.header.set_xyzt_units("mm", "ppm")


def no_step(image):
    image.header["pixdim"][4] = 0


@pytest.mark.parametrize("prepare", [vector, spectral, no_step])
def test_a_fourth_axis_that_is_not_time_is_channels(tmp_path, prepare):
    data = numbered((*SHAPE, 3))
    (volume,) = read(put(tmp_path / "a.nii", data, prepare=prepare))
    assert volume.channels == 3
    assert volume.time is None
    np.testing.assert_array_equal(volume.data[1, ..., ::-1, ::-1, ::-1].T, data[..., 1])


def test_the_fifth_axis_is_channels(tmp_path):
    volumes = read(put(tmp_path / "a.nii", numbered((*SHAPE, 1, 3)), prepare=vector))
    assert [v.data.shape for v in volumes] == [(3, 7, 6, 5)]
    volumes = read(put(tmp_path / "b.nii", numbered((*SHAPE, 2, 3))))
    assert [v.data.shape for v in volumes] == [(3, 7, 6, 5)] * 2
    with pytest.raises(InputError, match="x, y, z, time and channels are understood"):
        read(put(tmp_path / "c.nii", numbered((*SHAPE, 2, 3, 2))))


def test_axes_of_length_one_count_for_nothing(tmp_path):
    (volume,) = read(put(tmp_path / "a.nii", numbered((*SHAPE, 1, 1, 1))))
    assert volume.data.shape == (1, 7, 6, 5)
    assert volume.time is None


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1)])
def test_one_slice_is_no_volume_but_opens(tmp_path, shape):
    path = put(tmp_path / "a.nii", numbered(shape))
    with pytest.raises(InputError, match="holds one plane, with no z axis"):
        read(path)
    assert open_image(path).axes == "YX"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_every_real_type_and_byte_order(tmp_path, order, dtype, suffix):
    data = numbered((2, 3, 4), dtype)
    header = nib.Nifti1Header(endianness=order)
    header.set_data_dtype(dtype)
    path = tmp_path / f"a{suffix}"
    nib.save(nib.Nifti1Image(data, np.diag([-1.0, -1, -1, 1]), header, dtype=dtype), path)
    (volume,) = read(path)
    assert volume.data.dtype == np.dtype(dtype)
    assert volume.data.dtype.isnative
    np.testing.assert_array_equal(volume.data[0].T, data)


def test_complex_values_are_refused(tmp_path):
    with pytest.raises(InputError, match="complex64; real numbers are needed"):
        read(put(tmp_path / "a.nii", numbered(dtype=np.complex64)))


def test_colours_open_as_a_picture(tmp_path):
    rgb = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    rgb["G"] = numbered()
    path = put(tmp_path / "a.nii", rgb)
    with pytest.raises(InputError, match="colour"):
        read(path)
    found = open_image(path)
    assert found.is_rgb
    np.testing.assert_array_equal(found.data[0, 0, ::-1, ::-1, ::-1, 1].T, rgb["G"])


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("lazy", [False, True])
def test_slope_and_intercept_are_applied(tmp_path, monkeypatch, suffix, lazy):
    monkeypatch.setattr(nifti, "LAZY_ABOVE_BYTES", 0 if lazy else 2**30)
    stored = numbered()
    path = put(tmp_path / f"a{suffix}", stored, np.diag([-1.0, -1, -1, 1]))
    rewrite(path, scl_slope=0.5, scl_inter=-10)
    (volume,) = read(path)
    assert isinstance(volume.data, da.Array) == (lazy and suffix == ".nii")
    assert volume.data.dtype == np.float32
    values = np.asarray(volume.data[0]).T
    np.testing.assert_array_equal(values, stored * 0.5 - 10)
    np.testing.assert_array_equal(values, nib.load(path).get_fdata())


@pytest.mark.parametrize("slope", [np.nan, 0.0])
def test_a_slope_that_means_none_changes_nothing(tmp_path, slope):
    path = rewrite(put(tmp_path / "a.nii", numbered()), scl_slope=slope)
    assert read(path)[0].data.dtype == np.int16


def test_large_plain_files_are_read_lazily(tmp_path, monkeypatch):
    data = numbered((*SHAPE, 2), ">i4")
    path = put(tmp_path / "a.nii", data)
    monkeypatch.setattr(nifti, "LAZY_ABOVE_BYTES", 0)
    volumes = read(path)
    assert all(isinstance(v.data, da.Array) for v in volumes)
    assert volumes[0].data.dtype.isnative
    for t, volume in enumerate(volumes):
        np.testing.assert_array_equal(np.asarray(volume.data[0]), np.flip(data[..., t].T))


def test_nifti_2(tmp_path):
    path = tmp_path / "a.nii"
    nib.save(nib.Nifti2Image(numbered(), np.diag([2.0, 3, 4, 1])), path)
    assert read(path)[0].spacing == (4, 3, 2)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_files_cut_short_are_refused(tmp_path, attempt, suffix):
    path = put(tmp_path / f"a{suffix}", RNG.integers(0, 99, SHAPE).astype(np.uint8))
    whole = path.read_bytes()
    assert attempt(path)[0]
    # The last eight bytes of gzip are its check sum and length.
    for length in {*range(0, len(whole), 7), len(whole) - (9 if suffix.endswith("gz") else 1)}:
        path.write_bytes(whole[:length])
        volumes, reason = attempt(path)
        assert not volumes
        assert "cannot be read as a NIfTI image" in reason
        assert "\n" not in reason


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    changes=st.lists(st.tuples(st.integers(0, 360), st.integers(0, 255)), min_size=1, max_size=8),
    suffix=st.sampled_from([".nii", ".nii.gz"]),
)
def test_damaged_headers_give_one_sentence_or_a_volume(tmp_path, attempt, changes, suffix):
    path = put(tmp_path / "whole.nii", numbered())
    content = bytearray(path.read_bytes())
    for position, value in changes:
        content[position] = value
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    volumes, reason = attempt(path)
    assert "\n" not in reason
    for volume in volumes:
        assert np.isfinite(volume.index_to_world).all()
        assert np.asarray(volume.data).nbytes < 1e6


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_header_that_promises_too_much_is_refused_at_once(tmp_path, suffix):
    path = put(tmp_path / f"bomb{suffix}", numbered())
    rewrite(path, dim=[3, 30_000, 30_000, 30_000, 1, 1, 1, 1])
    with pytest.raises(InputError, match="its header promises 54000000000000 bytes"):
        read(path)


@pytest.mark.parametrize("content", [b"", b"x" * 400, gzip.compress(b"x" * 400), b"\x1f\x8b\x08"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_foreign_files_give_one_sentence(tmp_path, attempt, content, suffix):
    path = tmp_path / f"foreign{suffix}"
    path.write_bytes(content)
    assert "cannot be read as a NIfTI image" in attempt(path)[1]


def test_other_kinds_of_files_are_told_what_would_work(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"")
    with pytest.raises(InputError, match="TIFF, NIfTI, OME-Zarr, NRRD"):
        read(path)
