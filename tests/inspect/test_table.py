"""The table of measures equals plain numpy on maps up-sampled to the mask's grid."""

import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inspect_cases import cases, gate_of, plain_auc, prediction_of, upsampled
from skimage.measure import label as skimage_label
from skimage.measure import regionprops

from napari_attention_unet.errors import InputError
from napari_attention_unet.inspect import assignment
from napari_attention_unet.inspect.table import (
    COLUMNS,
    csv_text,
    label_features,
    measures_table,
    object_labels,
)


def plain_row(prediction, gate, inside, outside):
    """A row computed voxel by voxel; `inside` and `outside` are boolean arrays."""
    full = upsampled(gate, inside.shape).astype(np.float64)
    values, others = full[inside], full[outside]
    to_world = prediction.volume.index_to_world
    row = {"voxels": inside.sum(), "volume": inside.sum() * abs(np.linalg.det(to_world[:3, :3]))}
    nothing = dict.fromkeys(
        ("inside", "median", "p5", "p95", "above_half", "saturation", "centroid_z", "centroid_y",
         "centroid_x", "centroid_distance"), np.nan,
    )  # fmt: skip
    row |= nothing
    if values.size:
        p5, median, p95 = np.percentile(values, (5, 50, 95))
        row |= {
            "inside": values.mean(),
            "median": median,
            "p5": p5,
            "p95": p95,
            "above_half": (values > 0.5).mean(),
            "saturation": ((values < 0.01) | (values > 0.99)).mean(),
        }
    if values.sum() > 0:
        voxels = np.argwhere(inside)
        weighted = (voxels * values[:, None]).sum(0) / values.sum()
        world = to_world @ [*weighted, 1]
        own = to_world @ [*voxels.mean(0), 1]
        row |= dict(zip(("centroid_z", "centroid_y", "centroid_x"), world[:3], strict=True))
        row["centroid_distance"] = np.linalg.norm(world - own)
    row["outside"] = others.mean() if others.size else np.nan
    row["ratio"] = row["inside"] / row["outside"] if row["outside"] else np.nan
    row["auc"] = plain_auc(values, others)
    return row


def check_rows(table, prediction, regions):
    """`regions` are pairs of boolean arrays, inside and outside, in the order of the labels."""
    assert len(table) == len(regions) * len(prediction.gates)
    rows = table.to_dict("records")
    expected = [(gate, *region) for gate in prediction.gates for region in regions]
    for row, (gate, inside, outside) in zip(rows, expected, strict=True):
        assert row["gate"] == gate.name
        for name, value in plain_row(prediction, gate, inside, outside).items():
            assert row[name] == pytest.approx(value, abs=1e-7, rel=1e-6, nan_ok=True), name


@settings(deadline=None, max_examples=50)
@given(prediction=cases(), slab=st.sampled_from([1, 30, 2**21]))
def test_classes_equal_the_plain_computation(prediction, slab):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assignment, "_SLAB_VOXELS", slab)
        table = measures_table(prediction, by="class")
    mask = prediction.mask
    check_rows(table, prediction, [(mask == k, mask != k) for k in (1, 2)])
    assert list(table["region"][:2]) == ["class 1", "class 2"]


@settings(deadline=None, max_examples=30)
@given(prediction=cases())
def test_the_foreground_equals_the_plain_computation(prediction):
    mask = prediction.mask
    check_rows(measures_table(prediction, by="foreground"), prediction, [(mask > 0, mask == 0)])


@settings(deadline=None, max_examples=30)
@given(prediction=cases())
def test_objects_equal_the_plain_computation(prediction):
    mask = prediction.mask
    labels, classes = object_labels(mask)
    regions = [(labels == i, labels == 0) for i in range(1, len(classes) + 1)]
    table = measures_table(prediction, by="object")
    check_rows(table, prediction, regions)
    first = table.iloc[: len(regions)]
    assert list(first["region"]) == [f"class {k} #{i}" for i, k in enumerate(classes, 1)]


@settings(deadline=None, max_examples=40)
@given(prediction=cases(labels=4))
def test_objects_are_the_connected_parts_of_each_class_largest_first(prediction):
    mask = prediction.mask
    labels, classes = object_labels(mask)
    known = skimage_label(mask, connectivity=1, background=0)
    pairs = set(zip(known.ravel().tolist(), labels.ravel().tolist(), strict=True))
    assert len(pairs) == len(np.unique(known)) == len(np.unique(labels))  # one to one
    sizes = [int((labels == i).sum()) for i in range(1, len(classes) + 1)]
    assert sizes == sorted(sizes, reverse=True)
    assert all(set(mask[labels == i]) == {k} for i, k in enumerate(classes, 1))


def test_the_weighted_centroid_is_that_of_scikit_image():
    rng = np.random.default_rng(3)
    mask = (rng.random((7, 8, 9)) > 0.4).astype(np.uint8)
    alpha = rng.random(mask.shape).astype(np.float32)
    table = measures_table(prediction_of(mask, gate_of(alpha), spacing=(2, 1, 0.5)))
    (known,) = regionprops(mask, alpha, spacing=(2, 1, 0.5))
    found = table.loc[0, ["centroid_z", "centroid_y", "centroid_x"]].to_numpy(float)
    np.testing.assert_allclose(found, known.centroid_weighted, rtol=1e-6)
    shift = np.linalg.norm(np.subtract(known.centroid_weighted, known.centroid))
    assert table.loc[0, "centroid_distance"] == pytest.approx(shift, rel=1e-5)


def test_entropy_is_one_for_an_even_map_and_zero_for_a_single_sample():
    mask = np.ones((4, 4, 4), np.uint8)
    spot = np.zeros((4, 4, 4))
    spot[1, 2, 3] = 0.7
    half = np.zeros((4, 4, 4))
    half[:2] = 0.25
    gates = [gate_of(a, name=n) for n, a in (("even", np.full((4, 4, 4), 0.3)), ("spot", spot))]
    table = measures_table(prediction_of(mask, *gates, gate_of(half, name="half")))
    np.testing.assert_allclose(table["entropy"], [1, 0, np.log(32) / np.log(64)], atol=1e-6)


def test_flags_are_given_in_words_and_softmax_has_no_absolute_shares():
    mask = np.ones((4, 4, 4), np.uint8)
    ramp = np.linspace(0, 1, 64).reshape(4, 4, 4)
    table = measures_table(
        prediction_of(
            mask,
            gate_of(ramp * 0.02, name="a"),
            gate_of(1 - ramp * 0.02, name="b"),
            gate_of(ramp * 0.005 + 0.4, name="c"),
            gate_of(ramp, name="d"),
            gate_of(ramp / ramp.sum(), name="e", kind="softmax"),
        )
    )
    assert list(table["flag"]) == ["dead", "saturated", "constant", "", ""]
    assert table.loc[4, ["above_half", "saturation"]].isna().all()
    assert table.loc[3, "above_half"] == 0.5


def test_a_class_that_does_not_occur_has_a_row_of_its_own():
    mask = np.zeros((2, 3, 4), np.uint8)
    mask[0] = 3
    table = measures_table(prediction_of(mask, gate_of(np.ones((1, 1, 1))), classes=3))
    assert list(table["region"]) == ["class 1", "class 2", "label 3"]
    assert list(table["voxels"]) == [0, 0, 12]
    assert table.loc[:1, ["inside", "auc", "centroid_z"]].isna().all(axis=None)


def test_a_series_has_its_time_and_each_time_point_its_own_rows():
    rng = np.random.default_rng(0)
    series = [
        prediction_of(rng.integers(0, 2, (4, 4, 4)), gate_of(rng.random((2, 2, 2))),
                      time=5.0 * t, time_unit="min")
        for t in range(3)
    ]  # fmt: skip
    table = measures_table(series, by="foreground")
    assert list(table["time_point"]) == [0, 1, 2]
    assert list(table["time"]) == [0, 5, 10]
    for row, prediction in zip(table["inside"], series, strict=True):
        assert row == measures_table(prediction, by="foreground").loc[0, "inside"]
    assert csv_text(table).startswith("time_point,time (min),gate,")


def test_every_column_is_described():
    prediction = prediction_of(np.ones((2, 2, 2), np.uint8), gate_of(np.ones((1, 1, 1))))
    assert list(measures_table([prediction, prediction]).columns) == [c.name for c in COLUMNS]
    assert all(c.title and c.description.endswith(".") for c in COLUMNS)
    with pytest.raises(InputError, match="known: class, object, foreground"):
        measures_table(prediction, by="organ")


def test_csv_reads_back_with_units_in_its_headings():
    prediction = prediction_of(
        np.ones((2, 2, 2), np.uint8),
        gate_of(np.full((1, 1, 1), 0.25)),
        spacing=(2, 1, 1),
        units="µm",
    )
    table = measures_table(prediction)
    read = pd.read_csv(io.StringIO(csv_text(table)))
    assert read.loc[0, "volume (µm³)"] == 16
    assert read.loc[0, "inside"] == 0.25
    assert "centroid_distance (µm)" in read.columns


def test_features_of_a_labels_layer_have_a_row_a_label():
    rng = np.random.default_rng(1)
    mask = rng.integers(0, 3, (6, 6, 6))
    prediction = prediction_of(
        mask, gate_of(rng.random((3, 3, 3)), name="a"), gate_of(rng.random((6, 6, 6)), name="b")
    )
    table = measures_table(prediction)
    features = label_features(table)
    assert list(features["index"]) == [1, 2]
    assert list(features.columns[:4]) == ["index", "region", "voxels", "volume (voxels)"]
    for gate in ("a", "b"):
        rows = table[table["gate"] == gate]
        np.testing.assert_array_equal(features[f"inside {gate}"], rows["inside"])
        np.testing.assert_array_equal(features[f"auc {gate}"], rows["auc"])
