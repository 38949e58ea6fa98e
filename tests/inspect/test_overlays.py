"""Overlays against what is known analytically, and against scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inspect_cases import cases, gate_of, prediction_of
from scipy import ndimage

from napari_attention_unet.errors import InputError
from napari_attention_unet.inspect import sampling
from napari_attention_unet.inspect.combined import combined, combined_steps, conflict
from napari_attention_unet.inspect.overlays import (
    contours,
    ignored,
    isosurface,
    maximum_projection,
    region,
)
from napari_attention_unet.inspect.sampling import resample

SHAPE = (12, 10, 14)


def ball_gate(name="ball", scale=(2.0, 1.0, 2.0), translate=(0.5, 0.0, -1.0)):
    """1 - r / 8 around voxel (6, 5, 7), sampled on a grid of its own that is wider than SHAPE."""
    grid = [np.arange(n) * s + t for n, s, t in zip((8, 12, 9), scale, translate, strict=True)]
    z, y, x = np.meshgrid(*grid, indexing="ij")
    r = np.sqrt((z - 6) ** 2 + (y - 5) ** 2 + (x - 7) ** 2)
    return gate_of(1 - r / 8, scale, translate, name)


def volume_of(*gates, **more):
    return prediction_of(np.zeros(SHAPE, np.uint8), *gates, **more)


def scipy_resampled(gate, shape):
    axes = [np.arange(n) for n in shape]
    places = [
        (v - t) / s
        for v, t, s in zip(
            np.meshgrid(*axes, indexing="ij"), gate.translate, gate.scale, strict=True
        )
    ]
    alpha = gate.coefficients.astype(np.float64)
    return ndimage.map_coordinates(alpha, places, order=1, mode="nearest")


# --- resampling ---------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(prediction=cases(), cut=st.integers(0, 8))
def test_resampling_is_trilinear_with_edges_held(prediction, cut):
    shape = prediction.mask.shape
    cut = min(cut, shape[0])
    for gate in prediction.gates:
        whole = np.concatenate(
            [resample(gate, shape, 0, cut), resample(gate, shape, cut, shape[0])]
        )
        assert whole.dtype == np.float32
        np.testing.assert_allclose(whole, scipy_resampled(gate, shape), atol=1e-5)


@pytest.mark.parametrize("slope", [(0.5, 0, 0), (0, -0.25, 0), (0, 0, 0.125), (1, 2, -3)])
def test_resampling_is_exact_on_affine_ramps(slope):
    scale, translate = (2.0, 4.0, 0.5), (-1.0, -2.0, 0.0)
    grid = [t + s * np.arange(n) for n, s, t in zip((8, 5, 40), scale, translate, strict=True)]
    ramp = sum(k * g for k, g in zip(slope, np.meshgrid(*grid, indexing="ij"), strict=True))
    got = resample(gate_of(ramp, scale, translate), SHAPE, 0, SHAPE[0])
    voxels = np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij")
    np.testing.assert_array_equal(got, sum(k * v for k, v in zip(slope, voxels, strict=True)))


# --- of one gate --------------------------------------------------------------------------------


def test_ignored_is_one_minus_alpha_in_the_same_place_and_leaves_the_map_alone():
    gate = ball_gate()
    before = gate.coefficients.copy()
    overlay = ignored(volume_of(gate), "ball")
    np.testing.assert_array_equal(overlay.data, 1 - before)
    assert (overlay.scale, overlay.translate) == (gate.scale, gate.translate)
    np.testing.assert_array_equal(gate.coefficients, before)
    with pytest.raises(InputError, match="softmax over space"):
        ignored(volume_of(gate_of(before / before.sum(), kind="softmax")), "g")


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_projection_covers_the_axis_with_one_sample(axis):
    gate = ball_gate()
    overlay = maximum_projection(volume_of(gate), "ball", axis)
    np.testing.assert_array_equal(overlay.data, gate.coefficients.max(axis, keepdims=True))
    count, s, t = gate.coefficients.shape[axis], gate.scale[axis], gate.translate[axis]
    low, high = t - s / 2, t + s * (count - 0.5)  # ends of the gate's own samples
    assert overlay.translate[axis] - overlay.scale[axis] / 2 == low
    assert overlay.translate[axis] + overlay.scale[axis] / 2 == high
    others = [a for a in range(3) if a != axis]
    assert [overlay.scale[a] for a in others] == [gate.scale[a] for a in others]


@pytest.mark.parametrize("slab", [1, 300, 2**22])
def test_a_region_is_where_the_interpolated_map_reaches_the_coefficient(slab, monkeypatch):
    monkeypatch.setattr(sampling, "_SLAB_VOXELS", slab)
    gate = ball_gate()
    overlay = region(volume_of(gate), "ball", 0.5)
    np.testing.assert_array_equal(overlay.data, scipy_resampled(gate, SHAPE) >= 0.5)
    assert overlay.labels == {1: "ball ≥ 0.5"}
    assert (overlay.scale, overlay.translate) == ((1, 1, 1), (0, 0, 0))


def test_contours_of_a_ramp_lie_exactly_where_it_takes_the_value():
    # alpha = (voxel y) / 20, on samples 4 voxels apart
    y = (np.arange(5) * 4 - 2) / 20
    gate = gate_of(np.broadcast_to(y[:, None], (4, 5, 6)), (4.0, 4.0, 3.0), (0.0, -2.0, -1.0))
    overlay = contours(volume_of(gate), "g", 0.33)
    assert overlay.kind == "shapes"
    assert [line[0, 0] for line in overlay.data] == list(range(SHAPE[0]))
    for line in overlay.data:
        np.testing.assert_allclose(line[:, 1], 0.33 * 20, rtol=1e-5)
        assert (line[:, 2].min(), line[:, 2].max()) == (-1, 14)


def test_contours_go_between_planes_of_samples():
    # alpha = voxel z / 16 + voxel y / 16: at plane z the contour of 0.5 lies at y = 8 - z
    z, y = np.arange(4) * 4.0, np.arange(6) * 2.0
    alpha = (z[:, None, None] + y[:, None]) / 16 + np.zeros(3)
    prediction = volume_of(gate_of(alpha, (4.0, 2.0, 5.0), (0.0, 0.0, 0.0)))
    (line,) = contours(prediction, "g", 0.5, planes=[3]).data
    np.testing.assert_allclose(line[:, 1], 5, atol=1e-5)
    assert set(line[:, 0]) == {3}


def test_an_isosurface_lies_at_its_distance_and_is_closed():
    vertices, faces = isosurface(volume_of(ball_gate()), "ball", 0.5).data
    r = np.linalg.norm(vertices - (6, 5, 7), axis=1)
    assert abs(r - 4).max() < 0.35  # samples are two voxels apart
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    _, uses = np.unique(edges, axis=0, return_counts=True)
    assert set(uses) == {2}  # every edge between two faces: no hole


def test_an_isosurface_of_a_ramp_is_an_exact_plane():
    x = np.linspace(0, 1, 6)
    gate = gate_of(np.broadcast_to(x, (4, 4, 6)), (1.0, 2.0, 3.0), (0.0, 0.5, -1.0))
    vertices, _ = isosurface(volume_of(gate), "g", 0.3).data
    np.testing.assert_allclose(vertices[:, 2], -1 + 3 * 0.3 * 5, rtol=1e-5)


def test_what_cannot_be_drawn_is_said():
    prediction = volume_of(
        gate_of(np.full((3, 3, 3), 0.2)), gate_of(np.ones((1, 1, 1)), name="one")
    )
    with pytest.raises(
        InputError, match=r"no surface at 0.5: its coefficients run from 0.2 to 0.2"
    ):
        isosurface(prediction, "g", 0.5)
    for function in (isosurface, contours):
        with pytest.raises(InputError, match="at least two samples"):
            function(prediction, "one", 0.5)


# --- of several gates ---------------------------------------------------------------------------


@pytest.mark.parametrize("slab", [1, 300, 2**22])
def test_combinations_are_numpys_on_the_resampled_maps(slab, monkeypatch):
    monkeypatch.setattr(sampling, "_SLAB_VOXELS", slab)
    rng = np.random.default_rng(0)
    gates = [
        gate_of(rng.random((6, 5, 7)), (2.0, 2.0, 2.0), (0.5, 0.5, 0.5), "a"),
        gate_of(rng.random((3, 3, 4)), (4.0, 4.0, 4.0), (0.0, 0.0, 0.0), "b"),
        gate_of(rng.random(SHAPE), name="c"),
    ]
    prediction = volume_of(*gates)
    maps = np.stack([scipy_resampled(gate, SHAPE) for gate in gates])
    known = {
        "product": maps.prod(0),
        "consensus": maps.mean(0),
        "disagreement": np.ptp(maps, axis=0),
        "deviation": maps.std(0),
    }
    for way, values in known.items():
        overlay = combined(prediction, way)
        assert (overlay.kind, overlay.data.dtype) == ("image", np.float32)
        np.testing.assert_allclose(overlay.data, values, atol=1e-5)
    two = combined(prediction, "product", ["a", "c"])
    np.testing.assert_allclose(two.data, maps[0] * maps[2], atol=1e-5)
    assert two.meaning.endswith("Of a, c.")


def test_gates_of_other_kinds_are_brought_to_one_range():
    rng = np.random.default_rng(1)
    values = rng.random(SHAPE)
    soft = gate_of(values / values.sum(), name="soft", kind="softmax")
    wide = gate_of(values * 4 - 2, name="wide", kind="candidate")
    overlay = combined(volume_of(soft, wide), "consensus")
    span = values.max() - values.min()
    expected = (values / values.max() + (values - values.min()) / span) / 2
    np.testing.assert_allclose(overlay.data, expected, atol=1e-5)


def test_combining_goes_slab_by_slab_and_can_be_stopped(monkeypatch):
    monkeypatch.setattr(sampling, "_SLAB_VOXELS", 2 * SHAPE[1] * SHAPE[2])
    steps = combined_steps(volume_of(ball_gate()), "product")
    assert [next(steps).done for _ in range(3)] == [2, 4, 6]
    steps.close()
    with pytest.raises(InputError, match="known: product, consensus"):
        combined(volume_of(ball_gate()), "sum")
    with pytest.raises(InputError, match="no gates"):
        combined(volume_of(), "product")


@pytest.mark.parametrize("background", [True, False])
def test_conflict_is_where_gate_and_probability_part(background):
    alpha = np.zeros(SHAPE)
    alpha[:, :5] = 0.9
    foreground = np.zeros(SHAPE, np.float32)
    foreground[:, :, :7] = 0.8
    channels = [1 - foreground, foreground] if background else [foreground]
    prediction = volume_of(gate_of(alpha), probabilities=np.stack(channels))
    got = conflict(prediction)
    expected = np.zeros(SHAPE)
    expected[:, :5, 7:] = 1
    expected[:, 5:, :7] = 2
    np.testing.assert_array_equal(got.data, expected)
    np.testing.assert_array_equal(conflict(prediction, class_name="class 1").data, expected)
    assert set(got.labels) == {1, 2}
    with pytest.raises(InputError, match="no class 'liver'"):
        conflict(prediction, class_name="liver")
    with pytest.raises(InputError, match="no probabilities"):
        conflict(volume_of(gate_of(alpha)))


def test_classes_that_compete_are_one_foreground_together():
    probabilities = np.full((3, *SHAPE), 0.35, np.float32)
    probabilities[0] = 0.3
    prediction = volume_of(gate_of(np.zeros(SHAPE)), classes=3, probabilities=probabilities)
    assert set(np.unique(conflict(prediction).data)) == {2}
