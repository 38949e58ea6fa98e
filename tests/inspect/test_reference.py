"""Comparison with a reference: plain counts, distances as SimpleITK and MONAI give them."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from inspect_cases import cases, gate_of, prediction_of, upsampled

from napari_attention_unet.errors import InputError
from napari_attention_unet.inspect.reference import (
    CLASS_COLUMNS,
    GATE_COLUMNS,
    compare_with_reference,
    surface_distances,
)

SPACINGS = st.tuples(*[st.sampled_from([0.4, 1.0, 3.0])] * 3)


def blobs(rng, shape):
    """A ragged mask with holes that keeps a voxel away from the ends of the volume."""
    from scipy import ndimage

    noise = ndimage.gaussian_filter(rng.normal(size=shape), 1.0)
    mask = noise > np.quantile(noise, rng.uniform(0.5, 0.95))
    inner = np.zeros(shape, bool)
    inner[1:-1, 1:-1, 1:-1] = True
    return mask & inner


def simple_itk_distances(found, wanted, spacing):
    """From the distance maps and label contours of SimpleITK."""
    sitk = pytest.importorskip("SimpleITK")

    def image(mask):
        made = sitk.GetImageFromArray(mask.astype(np.uint8))
        made.SetSpacing([float(s) for s in spacing[::-1]])  # x first
        return made

    surfaces = [sitk.LabelContour(image(mask), fullyConnected=False) for mask in (found, wanted)]
    maps = [
        sitk.GetArrayFromImage(
            sitk.Abs(sitk.SignedMaurerDistanceMap(s, squaredDistance=False, useImageSpacing=True))
        )
        for s in surfaces
    ]
    first, second = (sitk.GetArrayFromImage(s).astype(bool) for s in surfaces)
    directed = [maps[1][first], maps[0][second]]
    return np.concatenate(directed).mean(), max(np.percentile(d, 95) for d in directed)


@settings(deadline=None, max_examples=40)
@given(shape=st.tuples(*[st.integers(5, 16)] * 3), spacing=SPACINGS, seed=st.integers(0, 2**31))
def test_distances_are_those_of_simple_itk(shape, spacing, seed):
    rng = np.random.default_rng(seed)
    found, wanted = blobs(rng, shape), blobs(rng, shape)
    assume(found.any() and wanted.any())
    got = surface_distances(found, wanted, spacing)
    average, worst = simple_itk_distances(found, wanted, spacing)
    assert got["surface_distance"] == pytest.approx(average, rel=1e-5)
    assert got["surface_distance_95"] == pytest.approx(worst, rel=1e-5)


@settings(deadline=None, max_examples=15)
@given(shape=st.tuples(*[st.integers(3, 10)] * 3), spacing=SPACINGS, seed=st.integers(0, 2**31))
def test_distances_are_those_of_monai_at_the_ends_of_the_volume_as_well(shape, spacing, seed):
    metrics = pytest.importorskip("monai.metrics")
    import torch

    rng = np.random.default_rng(seed)
    found, wanted = rng.random(shape) > 0.6, rng.random(shape) > 0.4
    assume(found.any() and wanted.any())
    pair = [torch.from_numpy(np.stack([~m, m])[None].astype(np.float32)) for m in (found, wanted)]
    kwargs = {"include_background": False, "spacing": spacing}
    average = metrics.compute_average_surface_distance(*pair, symmetric=True, **kwargs)
    worst = metrics.compute_hausdorff_distance(*pair, percentile=95, **kwargs)
    got = surface_distances(found, wanted, spacing)
    assert got["surface_distance"] == pytest.approx(float(average), rel=1e-5)
    assert got["surface_distance_95"] == pytest.approx(float(worst), rel=1e-5)


def test_two_planes_are_their_distance_in_the_world_apart():
    found, wanted = np.zeros((2, 10, 6, 6), bool)
    found[2], wanted[6] = True, True
    got = surface_distances(found, wanted, (2.5, 1.0, 1.0))
    assert got == {"surface_distance": 10.0, "surface_distance_95": 10.0}


def test_empty_masks_are_well_defined():
    empty, full = np.zeros((3, 4, 5), np.uint8), np.ones((3, 4, 5), np.uint8)
    gate = gate_of(np.ones((1, 1, 1)))
    columns = ["dice", "precision", "recall", "surface_distance", "surface_distance_95"]

    def row(mask, reference):
        table = compare_with_reference(prediction_of(mask, gate), reference).classes
        return table.loc[0, columns].to_numpy(float)

    nan, inf = np.nan, np.inf
    np.testing.assert_array_equal(row(empty, empty), [nan] * 5)
    np.testing.assert_array_equal(row(full, empty), [0, 0, nan, inf, inf])
    np.testing.assert_array_equal(row(empty, full), [0, nan, 0, inf, inf])
    np.testing.assert_array_equal(row(full, full), [1, 1, 1, 0, 0])


@settings(deadline=None, max_examples=40)
@given(prediction=cases(), seed=st.integers(0, 2**31))
def test_overlap_and_attention_at_errors_equal_the_plain_computation(prediction, seed):
    mask = prediction.mask
    reference = np.random.default_rng(seed).integers(0, 3, mask.shape)
    got = compare_with_reference(prediction, reference)
    assert list(got.classes["region"]) == ["class 1", "class 2", "foreground"]
    pairs = [(mask == k, reference == k) for k in (1, 2)] + [(mask > 0, reference > 0)]
    for row, (found, wanted) in zip(got.classes.to_dict("records"), pairs, strict=True):
        total = found.sum() + wanted.sum()
        dice = 2 * (found & wanted).sum() / total if total else np.nan
        assert row["dice"] == pytest.approx(dice, nan_ok=True)
        for name, whole in (("precision", found), ("recall", wanted)):
            share = (found & wanted).sum() / whole.sum() if whole.any() else np.nan
            assert row[name] == pytest.approx(share, nan_ok=True)
    rows = iter(got.gates.to_dict("records"))
    for gate in prediction.gates:
        full = upsampled(gate, mask.shape).astype(np.float64)
        for found, wanted in pairs:
            row = next(rows)
            assert row["gate"] == gate.name
            parts = {"tp": found & wanted, "fp": found & ~wanted, "fn": ~found & wanted,
                     "tn": ~found & ~wanted}  # fmt: skip
            for name, part in parts.items():
                assert row[f"{name}_voxels"] == part.sum()
                mean = full[part].mean() if part.any() else np.nan
                assert row[f"{name}_mean"] == pytest.approx(mean, nan_ok=True)


def test_labels_that_the_model_does_not_know_are_rows_and_columns_are_described():
    mask = np.zeros((3, 3, 3), np.uint8)
    reference = np.full((3, 3, 3), 4.0, np.float32)
    got = compare_with_reference(prediction_of(mask, gate_of(np.ones((1, 1, 1)))), reference)
    names = ["class 1", "label 2", "label 3", "label 4", "foreground"]
    assert list(got.classes["region"]) == names
    assert list(got.classes.columns) == [c.name for c in CLASS_COLUMNS]
    assert list(got.gates.columns) == [c.name for c in GATE_COLUMNS]
    assert got.classes.loc[3, "recall"] == 0


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        (np.zeros((3, 3, 4)), r"shape \(3, 3, 4\), the volume \(3, 3, 3\)"),
        (np.full((3, 3, 3), 0.5), "whole numbers"),
        (np.full((3, 3, 3), np.nan), "whole numbers"),
        (np.full((3, 3, 3), -1), "negative values"),
        (np.full((3, 3, 3), 1j), "whole numbers"),
    ],
)
def test_what_is_no_reference_is_refused(reference, words):
    prediction = prediction_of(np.zeros((3, 3, 3), np.uint8), gate_of(np.ones((1, 1, 1))))
    with pytest.raises(InputError, match=words):
        compare_with_reference(prediction, reference)
