"""Two predictions of one volume: what is paired with what, and what differs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_attention_unet.errors import InputError
from napari_attention_unet.inspect.compare import compare, resampled
from napari_attention_unet.models.card import ClassInfo
from napari_attention_unet.prediction import GateMap, Prediction
from napari_attention_unet.volume import Volume

SHAPE = (6, 8, 10)
CLASSES = tuple(ClassInfo(name, "#000000") for name in ("background", "liver", "spleen"))
RNG = np.random.default_rng(0)


def gate(name, step=1, values=None):
    shape = tuple(n // step for n in SHAPE)
    alpha = RNG.random(shape, np.float32) if values is None else np.asarray(values, np.float32)
    start = (step - 1) / 2
    return GateMap(name, alpha, (float(step),) * 3, (start,) * 3, stride=(float(step),) * 3)


def predict(mask, *gates, classes=CLASSES, spacing=(2.0, 1.0, 1.0)):
    volume = Volume.from_array(np.zeros(mask.shape, np.uint8), spacing, units="mm")
    return Prediction(mask, gates, classes, volume)


@pytest.fixture
def mask():
    made = np.zeros(SHAPE, np.uint8)
    made[1:4, 2:6, 2:7] = 1
    made[4:, 5:, 5:] = 2
    return made


def test_masks_by_class(mask):
    after = mask.copy()
    after[1] = 0  # 20 voxels of the liver are lost
    after[0, 0, :4] = 2  # and 4 of the spleen gained
    found = compare(predict(mask), predict(after))
    assert (found.difference == 3).sum() == 20
    assert (found.difference == 2).sum() == 4
    table = found.classes.set_index("class")
    assert table.loc["liver", "change"] == -40.0  # of 2 mm³ each
    assert table.loc["liver", "dice"] == pytest.approx(2 * 40 / (60 + 40))
    assert table.loc["spleen", "gained"] == 4
    assert table.attrs["volume"] == "mm³"


def test_classes_are_matched_by_name(mask):
    swapped = np.array([0, 2, 1], np.uint8)[mask]
    other = (CLASSES[0], CLASSES[2], CLASSES[1])
    found = compare(predict(mask), predict(swapped, classes=other))
    assert (found.classes["dice"] == 1).all()
    np.testing.assert_array_equal(found.second.mask, mask)


def test_classes_of_other_names_are_matched_by_order(mask):
    other = (CLASSES[0], ClassInfo("a", "#000000"), ClassInfo("b", "#000000"))
    assert (compare(predict(mask), predict(mask, classes=other)).classes["dice"] == 1).all()


def test_gates_are_paired_by_name_then_by_grid(mask):
    one = predict(mask, gate("att2", 2), gate("att1"), gate("own", 1))
    other = predict(mask, gate("att1"), gate("gate_a", 2), gate("far", 3))
    found = compare(one, other)
    assert [(p.first, p.second, p.by) for p in found.pairs] == [
        ("att2", "gate_a", "grid"),
        ("att1", "att1", "name"),
    ]
    assert found.unpaired == ("own", "far")
    first = found.pairs[0].difference
    expected = other.gate("gate_a").coefficients - one.gate("att2").coefficients
    np.testing.assert_array_equal(first.coefficients, expected)
    assert (first.scale, first.translate) == (one.gates[0].scale, one.gates[0].translate)
    row = found.gates.iloc[0]
    assert row["mean_abs_difference"] == pytest.approx(np.abs(expected).mean())
    assert row["max_abs_difference"] == pytest.approx(np.abs(expected).max())
    assert abs(row["rank_correlation"]) < 0.5


def test_equal_predictions_differ_in_nothing(mask):
    one = predict(mask, gate("att2", 2), gate("att1"))
    found = compare(one, one)
    assert set(np.unique(found.difference)) <= {0, 1}
    assert (found.gates["ssim"] > 1 - 1e-9).all()
    assert (found.gates["max_abs_difference"] == 0).all()
    np.testing.assert_array_equal(found.measures["auc_1"], found.measures["auc_2"])


def test_measures_stand_next_to_each_other(mask):
    one = predict(mask, gate("att2", 2, np.full((3, 4, 5), 0.25)))
    other = predict(mask, gate("other", 2, np.full((3, 4, 5), 0.75)))
    found = compare(one, other)
    assert list(found.measures["gate"]) == ["att2", "att2"]
    assert list(found.measures["region"]) == ["liver", "spleen"]
    assert (found.measures["inside_1"] == 0.25).all()
    assert (found.measures["inside_2"] == 0.75).all()


def test_maps_of_one_name_on_two_grids_meet_on_the_coarser(mask):
    """A map that grows evenly along each axis is the same on both."""
    z, y, x = np.indices(SHAPE).astype(np.float32)
    fine = gate("att", 1, (z + 2 * y + 3 * x) / 100)
    coarse = gate("att", 2, resampled(fine, gate("att", 2)))
    inner = (z + 2 * y + 3 * x)[::2, ::2, ::2] + 0.5 * (1 + 2 + 3)
    np.testing.assert_allclose(coarse.coefficients * 100, inner, rtol=1e-5)
    (pair,) = compare(predict(mask, fine), predict(mask, coarse)).pairs
    assert pair.by == "name"
    assert pair.difference.coefficients.shape == coarse.coefficients.shape
    np.testing.assert_allclose(pair.difference.coefficients, 0, atol=1e-6)


def test_without_gates_there_are_no_pairs(mask):
    found = compare(predict(mask), predict(mask, gate("att1")))
    assert found.pairs == ()
    assert found.gates.empty
    assert found.unpaired == ("att1",)


def test_what_cannot_be_compared_is_refused(mask):
    with pytest.raises(InputError, match=r"\(6, 8, 10\) and \(5, 8, 10\)"):
        compare(predict(mask), predict(mask[1:]))
    with pytest.raises(InputError, match="2 x 1 x 1 mm and 1 x 1 x 1 mm"):
        compare(predict(mask), predict(mask, spacing=(1.0, 1.0, 1.0)))
    fewer = predict(mask, classes=CLASSES[:2])
    with pytest.raises(InputError, match="background, liver, spleen"):
        compare(predict(mask), fewer)
    moved = predict(mask)
    moved = replace(moved, volume=moved.volume.replace(translate=(0.0, 0.0, 5.0)))
    with pytest.raises(InputError, match="different places"):
        compare(predict(mask), moved)
