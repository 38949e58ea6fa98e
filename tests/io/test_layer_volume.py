from __future__ import annotations

import itertools

import dask.array as da
import nibabel as nib
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from napari.layers import Image, Labels, Points

from napari_attention_unet import InputError
from napari_attention_unet.io import read, sample_path
from napari_attention_unet.io.layers import time_points, true_oblique_affine, volume_from_layers
from napari_attention_unet.io.napari_reader import read_layers
from napari_attention_unet.io.placement import layer_axes

SHAPE = (4, 5, 6)
# napari says so of its 2D views; here positions are asked of the layers themselves.
pytestmark = pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")


def numbered(shape=SHAPE):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def image(data, **options):
    return Image(data, contrast_limits=(0, 1), **options)


numbers = st.floats(-2, 2, allow_subnormal=False)
sizes = st.floats(0.2, 5)


@st.composite
def transforms(draw, leading=0):
    """Keyword arguments of a layer: mirrored, rotated, sheared, moved, with an affine on top."""
    n = 3 + leading
    options = {
        "scale": [draw(sizes) * draw(st.sampled_from([1, 1, -1])) for _ in range(n)],
        "translate": [draw(numbers) * 50 for _ in range(n)],
    }
    if draw(st.booleans()):
        options["rotate"] = tuple(draw(st.floats(-180, 180)) for _ in range(3))
    if draw(st.booleans()):
        options["shear"] = [0.0] * (n * (n - 1) // 2 - 3) + [draw(numbers) for _ in range(3)]
    if draw(st.booleans()):
        affine = np.eye(n + 1)
        affine[leading:-1, leading:] = np.reshape([draw(numbers) for _ in range(12)], (3, 4))
        affine[leading:-1, leading:-1] += 5 * np.eye(3)
        options["affine"] = affine
    return options


@settings(max_examples=60, deadline=None)
@given(leading=st.integers(0, 2), data=st.data())
def test_every_voxel_lies_where_napari_shows_it(at, leading, data):
    options = data.draw(transforms(leading))
    labels = [*["time", "c"][:leading], "z", "y", "x"]
    source = image(numbered((3, 2)[:leading] + SHAPE), axis_labels=labels, **options)
    t = data.draw(st.integers(0, 2)) if leading else 0
    volume = volume_from_layers([source], time_index=t)
    assert volume.channels == (2 if leading == 2 else 1)
    for index in itertools.product(*((0, n - 1) for n in SHAPE)):
        channel = volume.channels - 1
        before = ((t,), (t, channel))[leading - 1] if leading else ()
        assert volume.data[(channel, *index)] == source.data[(*before, *index)]
        shown = source.data_to_world((*before, *index))[-3:]
        np.testing.assert_allclose(at(volume.index_to_world, index), shown, rtol=1e-6, atol=1e-6)
    assert volume.part.time_index == t


def test_plain_layers_need_no_affine():
    volume = volume_from_layers(
        [image(numbered(), scale=(3, 2, 1), translate=(5, 6, 7), units=("um",) * 3, name="cells")]
    )
    assert volume.affine is None
    assert volume.spacing == (3, 2, 1)
    assert volume.translate == (5, 6, 7)
    assert volume.units == "µm"
    assert volume.name == "cells"
    assert volume.orientation is None


def test_a_mirrored_layer_keeps_positive_voxel_sizes():
    volume = volume_from_layers([image(numbered(), scale=(3, -2, 1))])
    assert volume.spacing == (3, 2, 1)
    np.testing.assert_array_equal(np.diag(volume.affine), (3, -2, 1, 1))


def test_units_of_the_axes_are_made_one():
    layer = image(numbered(), scale=(0.003, 2, 1), translate=(1, 1, 1), units=("mm", "um", "um"))
    volume = volume_from_layers([layer])
    assert volume.units == "µm"
    np.testing.assert_allclose(volume.spacing, (3, 2, 1))
    np.testing.assert_allclose(volume.translate, (1000, 1, 1))
    layer = image(numbered(), units=("pixel", "um", "um"))
    assert volume_from_layers([layer]).units == "pixel"


@pytest.mark.parametrize("make", [da.from_array, zarr.array, np.asfortranarray])
def test_any_kind_of_array(make):
    data = numbered((2, *SHAPE))
    layer = image(make(data), axis_labels=("t", "z", "y", "x"))
    volume = volume_from_layers([layer], time_index=1)
    assert isinstance(volume.data, np.ndarray | da.Array)
    np.testing.assert_array_equal(np.asarray(volume.data)[0], data[1])


def test_numpy_layers_are_not_copied():
    data = numbered((2, *SHAPE))
    assert np.shares_memory(volume_from_layers([image(data)], time_index=1).data, data[1])


def test_one_layer_a_channel():
    first, second = numbered(), numbered() + 1000
    layers = [image(first, name="T1"), image(second, name="T2")]
    volume = volume_from_layers(layers)
    np.testing.assert_array_equal(volume.data, [first, second])
    assert volume.channel_names == ("T1", "T2")
    lazy = volume_from_layers([layers[0], image(da.from_array(second))])
    assert isinstance(lazy.data, da.Array)
    np.testing.assert_array_equal(lazy.data.compute(), [first, second])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scale": (1, 1, 2)}, "lie at different places or have different voxel sizes"),
        ({"translate": (0, 5, 0)}, "lie at different places"),
        ({"units": ("mm",) * 3}, "lie at different places"),
    ],
)
def test_channels_must_share_one_grid(options, words):
    with pytest.raises(InputError, match=f"'a' and 'b' {words}"):
        volume_from_layers([image(numbered(), name="a"), image(numbered(), name="b", **options)])


def test_channels_must_share_one_shape():
    with pytest.raises(InputError, match=r"differ in shape: \(4, 5, 6\) and \(4, 5, 5\)"):
        volume_from_layers([image(numbered()), image(numbered((4, 5, 5)))])


def test_a_multiscale_layer_is_taken_at_the_chosen_level(at):
    fine = numbered((8, 9, 12))
    levels = [fine, fine[::2, ::2, ::2], fine[::4, ::4, ::4]]
    layer = image(levels, multiscale=True, scale=(3, 2, 1), translate=(5, 6, 7))
    for number, level in enumerate(levels):
        volume = volume_from_layers([layer], level=number)
        np.testing.assert_array_equal(volume.data[0], level)
        factor = np.divide(fine.shape, level.shape)
        for j in ((0, 0, 0), (1, 2, 2)):
            inside = (np.array(j) + 0.5) * factor - 0.5
            shown = layer.data_to_world(inside)
            np.testing.assert_allclose(at(volume.index_to_world, j), shown)
            part = volume.part
            np.testing.assert_allclose(np.add(part.origin, np.multiply(part.step, j)), inside)
        np.testing.assert_allclose(volume.spacing, factor * (3, 2, 1))
    with pytest.raises(InputError, match="has no level 3; its levels are 0 to 2"):
        volume_from_layers([layer], level=3)


def test_a_region_is_cut_out_in_place(at):
    data = numbered((8, 9, 12))
    layer = image(data, scale=(3, 2, 1), rotate=(10, 20, 30))
    volume = volume_from_layers([layer], region=((2, 5), (-4, 3), (7, 99)))
    np.testing.assert_array_equal(volume.data[0], data[2:5, :3, 7:])
    shown = layer.data_to_world((3, 1, 9))
    np.testing.assert_allclose(at(volume.index_to_world, (1, 1, 2)), shown)
    assert volume.part.origin == (2, 0, 7)
    with pytest.raises(InputError, match="nothing of the volume"):
        volume_from_layers([layer], region=((2, 5), (20, 30), (0, 5)))


def test_a_region_of_a_coarse_level_covers_what_was_drawn():
    fine = numbered((8, 8, 8))
    layer = image([fine, fine[::2, ::2, ::2]], multiscale=True)
    volume = volume_from_layers([layer], level=1, region=((1, 3), (2, 4), (0, 8)))
    assert volume.shape == (2, 1, 4)
    assert volume.part.origin == (0.5, 2.5, 0.5)
    assert volume.part.step == (2, 2, 2)


@pytest.mark.parametrize(
    ("shape", "labels", "leading", "expected"),
    [
        ((4, 5, 6), None, "time", ((0, 1, 2), None, None)),
        ((2, 4, 5, 6), None, "time", ((1, 2, 3), 0, None)),
        ((2, 4, 5, 6), None, "channel", ((1, 2, 3), None, 0)),
        ((2, 4, 5, 6), ("c", "z", "y", "x"), "time", ((1, 2, 3), None, 0)),
        ((4, 2, 5, 6), ("z", "Channel", "y", "x"), "time", ((0, 2, 3), None, 1)),
        ((4, 5, 6, 2), ("x", "y", "z", "t"), "time", ((0, 1, 2), 3, None)),
        ((2, 2, 4, 5, 6), None, "channel", ((2, 3, 4), 0, 1)),
        ((2, 2, 4, 5, 6), ("c", "t", "z", "y", "x"), "time", ((2, 3, 4), 1, 0)),
        ((2, 2, 4, 5, 6), ("q", "t", "z", "y", "x"), "time", ((2, 3, 4), 1, 0)),
    ],
)
def test_axes(shape, labels, leading, expected):
    axes = layer_axes(image(np.zeros(shape), axis_labels=labels), leading)
    assert (axes.spatial, axes.time, axes.channel) == expected


def test_time_points():
    layer = image(np.zeros((7, *SHAPE)), scale=(2.5, 1, 1, 1), translate=(10, 0, 0, 0))
    assert time_points(layer) == 7
    assert time_points(image(np.zeros(SHAPE))) == 1
    volume = volume_from_layers([layer], time_index=2)
    assert volume.time == 15
    assert volume.time_unit == ""
    with pytest.raises(InputError, match="has no time point 7; its time points are 0 to 6"):
        volume_from_layers([layer], time_index=7)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (
            Image(np.zeros((5, 6)), name="flat"),
            r"'flat' has two spatial axes \(2D\), shape \(5, 6\)",
        ),
        (
            Image(np.zeros((3, 5, 6)), name="film", axis_labels=("t", "y", "x")),
            r"'film' has two spatial axes \(2D\)",
        ),
        (
            Image(np.zeros((4, 5, 6, 3)), rgb=True, name="photo"),
            r"'photo' is a colour \(RGB\) image",
        ),
        (Image(np.zeros((2,) * 6), name="six"), "'six' has 4 spatial axes"),
        (Points(np.zeros((4, 3)), name="dots"), "'dots' is no image"),
    ],
)
def test_layers_that_are_no_volumes(layer, words):
    with pytest.raises(InputError, match=words):
        volume_from_layers([layer])


def test_no_layer_at_all():
    with pytest.raises(InputError, match="No image layer was chosen"):
        volume_from_layers([])


def test_labels_are_volumes_too():
    assert volume_from_layers([Labels(np.zeros(SHAPE, int))]).shape == SHAPE


# --- layers that were read from files -----------------------------------------------------------


def opened(path):
    ((data, options, _),) = read_layers(path)
    return Image(data, **options)


def oblique_file(tmp_path, shape=(6, 5, 4)):
    affine = np.diag([1.0, 2, 3, 1])
    turn = nib.eulerangles.euler2mat(0.2, -0.3, 0.25)
    affine[:3, :3] = turn @ affine[:3, :3]
    affine[:3, 3] = (10, -20, 30)
    path = tmp_path / "oblique.nii.gz"
    nib.save(nib.Nifti1Image(numbered(shape), affine), path)
    return path


def same_geometry(ours, theirs):
    np.testing.assert_array_equal(np.asarray(ours.data), np.asarray(theirs.data))
    np.testing.assert_allclose(ours.index_to_world, theirs.index_to_world)
    for name in ("spacing", "translate"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name))
    for name in ("units", "orientation", "name", "time_unit", "part"):
        assert getattr(ours, name) == getattr(theirs, name)
    np.testing.assert_array_equal(ours.storage.affine, theirs.storage.affine)


def test_the_sample_comes_back_as_it_was_read():
    same_geometry(volume_from_layers([opened(sample_path())]), read(sample_path())[0])


def test_an_oblique_file_comes_back_exactly(tmp_path, at):
    path = oblique_file(tmp_path)
    layer = opened(path)
    (volume,) = read(path)
    assert volume.affine is not None
    same_geometry(volume_from_layers([layer]), volume)
    np.testing.assert_array_equal(layer.rotate, np.eye(3))  # shown on the nearest axes
    part = volume_from_layers([layer], region=((1, 3), (2, 4), (1, 5)))
    np.testing.assert_allclose(
        at(part.index_to_world, (1, 1, 1)), at(volume.index_to_world, (2, 3, 2))
    )


def test_true_oblique_shows_the_layer_where_it_lay(tmp_path, at):
    layer = opened(oblique_file(tmp_path))
    volume = volume_from_layers([layer])
    layer.affine = true_oblique_affine(layer)
    for index in ((0, 0, 0), (3, 4, 5), (1, 2, 0)):
        np.testing.assert_allclose(layer.data_to_world(index), at(volume.index_to_world, index))
    same_geometry(volume_from_layers([layer]), volume)


def test_true_oblique_is_nothing_for_layers_on_the_axes():
    assert true_oblique_affine(opened(sample_path())) is None
    assert true_oblique_affine(image(numbered())) is None


def test_a_layer_that_the_user_rescaled_counts_as_shown(tmp_path):
    layer = opened(oblique_file(tmp_path))
    layer.scale = (7, 7, 7)
    volume = volume_from_layers([layer])
    assert volume.spacing == (7, 7, 7)
    assert volume.affine is None
    assert volume.orientation == "IPL"


def test_a_layer_with_other_voxels_forgets_its_file(tmp_path):
    layer = opened(oblique_file(tmp_path))
    layer.data = np.zeros((3, 3, 3))
    volume = volume_from_layers([layer])
    assert volume.storage is None
    assert volume.orientation is None


def test_a_time_series_comes_back(tmp_path):
    path = tmp_path / "t.nii"
    file = nib.Nifti1Image(numbered((6, 5, 4, 3)), np.diag([-1.0, -2, -3, 1]))
    file.header.set_xyzt_units("mm", "sec")
    file.header["pixdim"][4] = 2.5
    nib.save(file, path)
    layer = opened(path)
    assert layer.axis_labels == ("time", "z", "y", "x")
    assert [f"{unit:~}" for unit in layer.units] == ["s", "mm", "mm", "mm"]
    for t, volume in enumerate(read(path)):
        again = volume_from_layers([layer], time_index=t)
        same_geometry(again, volume)
        assert again.time == volume.time == 2.5 * t
