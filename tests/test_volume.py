from __future__ import annotations

import itertools

import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_attention_unet import InputError
from napari_attention_unet.volume import (
    VIEW_ORDERS,
    Part,
    Volume,
    axes_between,
    edge_letters,
    scale_translate,
)

ORIENTATIONS = [
    "".join(letters)
    for pairs in itertools.permutations(("IS", "PA", "LR"))
    for letters in itertools.product(*pairs)
]


def at(matrix, index):
    return (matrix @ np.append(index, 1.0))[:3]


@pytest.mark.parametrize("shape", [(4, 5, 6), (2, 4, 5, 6)])
@pytest.mark.parametrize(
    "make",
    [np.zeros, da.zeros, lambda shape: zarr.zeros(shape=shape)],
    ids=["numpy", "dask", "zarr"],
)
def test_from_array_adds_the_channel_axis_of_any_array(make, shape):
    volume = Volume.from_array(make(shape), spacing=(3.0, 2.0, 1.0))
    assert volume.shape == (4, 5, 6)
    assert volume.channels == (2 if len(shape) == 4 else 1)
    assert volume.spacing == (3.0, 2.0, 1.0)


def test_from_array_takes_lists():
    assert Volume.from_array([[[1, 2], [3, 4]]]).shape == (1, 2, 2)


@pytest.mark.parametrize("shape", [(5,), (4, 5), (1, 2, 3, 4, 5)])
def test_other_numbers_of_axes_are_refused(shape):
    with pytest.raises(InputError, match=r"\(z, y, x\) or \(channel, z, y, x\); got"):
        Volume.from_array(np.zeros(shape))


def test_a_bare_volume_needs_four_axes():
    with pytest.raises(InputError, match="axes \\(channel, z, y, x\\)"):
        Volume(np.zeros((4, 5, 6)))


@pytest.mark.parametrize("spacing", [(0, 1, 1), (1, -1, 1), (1, 1, float("nan"))])
def test_voxel_sizes_must_be_positive(spacing):
    with pytest.raises(InputError, match="voxel size"):
        Volume.from_array(np.zeros((2, 2, 2)), spacing=spacing)


def test_its_repr_does_not_print_the_voxels():
    assert len(repr(Volume.from_array(np.zeros((9, 9, 9))))) < 400


boxes = st.tuples(*(st.tuples(st.integers(-3, 8), st.integers(-3, 12)) for _ in range(3)))


@settings(deadline=None)
@given(box=boxes, oblique=st.booleans(), step=st.sampled_from([1.0, 2.0, 1.978]))
def test_cropped_voxels_stay_where_they_were(box, oblique, step):
    shape = (5, 7, 9)
    data = np.arange(np.prod(shape)).reshape(1, *shape)
    affine = scale_translate((3, 2, 1), (10, 20, 30))
    if oblique:
        affine[:3, :3] @= np.linalg.qr(np.arange(9).reshape(3, 3) + np.eye(3))[0]
    whole = Volume(
        data,
        spacing=(3.0, 2.0, 1.0),
        translate=(10.0, 20.0, 30.0),
        affine=affine if oblique else None,
        part=Part((0.5, 0.25, 0.0), (step, step, 1.0), 4),
    )
    inside = [range(max(0, a), min(n, b)) for (a, b), n in zip(box, shape, strict=True)]
    if not all(len(r) for r in inside):
        with pytest.raises(InputError, match="nothing of the volume"):
            whole.crop(box)
        return
    part = whole.crop(box)
    assert part.shape == tuple(len(r) for r in inside)
    for corner in itertools.product(*((0, n - 1) for n in part.shape)):
        value = part.data[(0, *corner)]
        (before,) = np.argwhere(data[0] == value)
        here, there = at(part.index_to_world, corner), at(whole.index_to_world, before)
        np.testing.assert_allclose(here, there)
        np.testing.assert_allclose(
            np.add(part.part.origin, np.multiply(part.part.step, corner)),
            np.add(whole.part.origin, np.multiply(whole.part.step, before)),
        )
    np.testing.assert_allclose(part.translate, at(part.index_to_world, (0, 0, 0)))
    assert part.part.time_index == 4
    assert part.spacing == whole.spacing


def test_without_data_keeps_the_geometry_and_no_memory():
    volume = Volume.from_array(np.ones((40, 50, 60)), spacing=(1.0, 2.0, 3.0), name="head")
    empty = volume.without_data()
    assert empty.shape == volume.shape
    assert empty.spacing == volume.spacing
    assert empty.name == "head"
    assert empty.data.base.nbytes == 1


@pytest.mark.parametrize("source", ORIENTATIONS)
@pytest.mark.parametrize("target", ["IPL", "SAR", "LIP"])
def test_axes_between_turns_every_orientation_into_another(source, target):
    place = {"I": -1, "S": 1, "P": -1, "A": 1, "L": -1, "R": 1}
    axis_of = {"I": 0, "S": 0, "P": 1, "A": 1, "L": 2, "R": 2}
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in (2, 3, 4)), indexing="ij"))
    body = np.zeros_like(grid)  # position in the body (superior, anterior, right) of each voxel
    for axis, letter in enumerate(source):
        body[axis_of[letter]] = place[letter] * grid[axis]
    axes, flipped = axes_between(source, target)
    turned = body.transpose(0, *(1 + a for a in axes))
    turned = np.flip(turned, [1 + k for k in range(3) if flipped[k]])
    for axis, letter in enumerate(target):
        steps = np.diff(turned[axis_of[letter]], axis=axis)
        assert (steps == place[letter]).all()


@pytest.mark.parametrize("word", ["IP", "IPX", "IIL", "ISL", "ipl", ""])
def test_what_is_no_orientation_is_named(word):
    with pytest.raises(InputError, match=f"'{word}' is not an orientation"):
        axes_between(word, "IPL")


def test_upright_volumes_are_seen_upright():
    seen = {view: edge_letters("IPL", order) for view, order in VIEW_ORDERS.items()}
    assert seen == {
        "axial": {"top": "A", "bottom": "P", "left": "R", "right": "L"},
        "coronal": {"top": "S", "bottom": "I", "left": "R", "right": "L"},
        "sagittal": {"top": "S", "bottom": "I", "left": "A", "right": "P"},
    }
