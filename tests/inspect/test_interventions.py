"""Interventions give the masks that follow from how a network was constructed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cause_networks import OneCarrier, as_model, object_volume

import napari_attention_unet as nau
from napari_attention_unet.graph.lower import finished
from napari_attention_unet.inspect.ablation import ablation_steps, most_needed
from napari_attention_unet.inspect.baseline import baseline_steps
from napari_attention_unet.inspect.difference import class_changes, difference_labels
from napari_attention_unet.inspect.interventions import forced_coefficients, intervene_steps
from napari_attention_unet.models.attention_unet_3d import AttentionUNet3D
from napari_attention_unet.models.card import default_classes
from napari_attention_unet.prediction import GateMap
from napari_attention_unet.volume import Volume

FLOAT = nau.Settings(precision="float32", device="cpu")
ONES, ZEROS = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def model():
    return as_model(OneCarrier())


@pytest.fixture(scope="module", params=[None, 0], ids=["kept", "full runs"])
def baseline(model, request):
    """Once with values kept, once with every change a run of its own."""
    made = finished(
        baseline_steps(model, object_volume(), FLOAT, spacing=(2, 1, 0.5), keep=request.param)
    )
    assert (made.kept is None) == (request.param == 0)
    return made


def intervene(baseline, **switches):
    return finished(intervene_steps(baseline, switches))


def test_the_base_is_the_prediction(baseline, model):
    expected = nau.predict(model, object_volume(), FLOAT, spacing=(2, 1, 0.5))
    np.testing.assert_array_equal(baseline.prediction.mask, object_volume() > 0)
    np.testing.assert_array_equal(baseline.prediction.mask, expected.mask)
    for one, other in zip(baseline.prediction.gates, expected.gates, strict=True):
        np.testing.assert_array_equal(one.coefficients, other.coefficients)
        assert (one.scale, one.translate, one.kind) == (other.scale, other.translate, other.kind)
    assert baseline.prediction.provenance["sha256"] == model.sha256


def test_closed_open_and_mean_give_the_masks_that_follow(baseline):
    thing = object_volume() > 0
    assert not intervene(baseline, carrier="closed").prediction.mask.any()
    assert intervene(baseline, carrier="open").prediction.mask.all()
    # the object fills less than half, so that the mean is below a half everywhere
    assert not intervene(baseline, carrier="mean").prediction.mask.any()
    for switch in ("closed", "open", "mean", "computed", 0.25):
        changed = intervene(baseline, idle=switch)
        np.testing.assert_array_equal(changed.prediction.mask, thing)
        np.testing.assert_array_equal(changed.difference, thing)
    both = intervene(baseline, carrier="open", idle="closed")
    assert both.prediction.mask.all()
    assert [g.forced for g in both.prediction.gates] == [True, True]


def test_painted_labels_and_maps_change_their_places_alone(baseline):
    thing = object_volume() > 0
    painted = np.zeros(thing.shape, np.uint8)
    painted[:, :5] = 1
    painted[6] = 2
    expected = (thing & (painted != 1)) | (painted == 2)
    changed = intervene(baseline, carrier=painted)
    np.testing.assert_array_equal(changed.prediction.mask, expected)
    levels = np.full(thing.shape, np.nan, np.float32)
    levels[:, :5], levels[6] = 0.49, 0.51
    np.testing.assert_array_equal(intervene(baseline, carrier=levels).prediction.mask, expected)

    codes = np.zeros(thing.shape, int)
    codes[thing & expected], codes[expected & ~thing], codes[thing & ~expected] = 1, 2, 3
    np.testing.assert_array_equal(changed.difference, codes)
    row = changed.volumes.set_index("class").loc["foreground"]
    assert (row["before"], row["after"]) == (thing.sum(), expected.sum())  # voxels of volume 1
    assert (row["gained"], row["lost"]) == ((codes == 2).sum(), (codes == 3).sum())
    overlap = 2 * (codes == 1).sum() / (thing.sum() + expected.sum())
    assert row["dice"] == pytest.approx(overlap)
    assert changed.changed_class == 0


def test_the_carrier_is_singled_out(baseline):
    steps = []
    work = ablation_steps(baseline, reference=object_volume() > 0)
    while True:
        try:
            steps.append(next(work))
        except StopIteration as end:
            table = end.value
            break
    assert most_needed(table) == "carrier"
    dice = table[table["class"] == "foreground"].set_index(["gate", "switch"])["dice"]
    assert (dice["idle"] == 1).all()
    assert dice["carrier", "closed"] == 0
    filled = object_volume().mean()
    assert dice["carrier", "open"] == pytest.approx(2 * filled / (1 + filled))
    np.testing.assert_array_equal(table["reference_dice"], table["dice"])
    np.testing.assert_allclose(table["reference_change"], table["dice"] - 1)
    done = [step.done for step in steps]
    assert done == sorted(done)
    assert {step.total for step in steps} == {6}
    assert {step.message.split(":")[0] for step in steps} >= {"carrier closed", "idle mean"}


def test_an_ablation_can_be_stopped(baseline):
    work = ablation_steps(baseline)
    next(work)
    work.close()


@pytest.mark.parametrize(
    ("switch", "words"),
    [
        ("ajar", "'computed', 'open', 'closed', 'mean'"),
        (np.zeros((2, 2, 2), np.uint8), "(2, 2, 2)"),
        (np.full((7, 10, 9), 3), "value 3"),
        (np.ones((7, 10, 9), bool), "bool"),
        (np.full((7, 10, 9), 255.0), "255"),
        (np.full((7, 10, 9), np.inf), "infinite"),
        (float("nan"), "NaN"),
        (1.5, "1.5"),
    ],
)
def test_what_cannot_be_a_switch_is_refused(baseline, switch, words):
    with pytest.raises(nau.InputError) as refused:
        intervene(baseline, carrier=switch)
    assert words in str(refused.value)


def test_gates_that_there_are_not_are_refused(baseline):
    with pytest.raises(nau.InputError, match="'carrier', 'idle'"):
        intervene(baseline, att9="open")
    with pytest.raises(nau.InputError, match="no attention gates"):
        finished(ablation_steps(baseline, gates=[]))
    with pytest.raises(nau.InputError, match="reference"):
        finished(ablation_steps(baseline, reference=np.zeros((2, 3, 4))))


def test_a_spatial_softmax_opens_to_its_largest_coefficient():
    alpha = np.array([0.1, 0.2, 0.7], np.float32).reshape(3, 1, 1)
    gate = GateMap("g", alpha, ONES, ZEROS, "softmax")
    assert forced_coefficients(gate, "open") == pytest.approx(0.7)
    assert forced_coefficients(gate, "mean") == pytest.approx(1 / 3)
    assert forced_coefficients(gate, "closed") == 0
    painted = forced_coefficients(gate, np.array([0, 1, 2]).reshape(3, 1, 1))
    np.testing.assert_array_equal(painted.ravel(), np.array([np.nan, 0, 0.7], np.float32))


def test_painting_nothing_computes_the_gate():
    gate = GateMap("g", np.zeros((2, 2, 2), np.float32), ONES, ZEROS)
    assert forced_coefficients(gate, np.zeros((2, 2, 2), int)) is None
    assert forced_coefficients(gate, np.full((2, 2, 2), np.nan)) is None
    assert forced_coefficients(gate, "computed") is None


def test_other_classes_are_told_apart_from_gain_and_loss():
    before = np.array([0, 1, 1, 2, 0, 2]).reshape(1, 2, 3)
    after = np.array([0, 1, 2, 2, 1, 0]).reshape(1, 2, 3)
    labels = difference_labels(before, after)
    assert labels.ravel().tolist() == [0, 1, 4, 1, 2, 3]
    volume = Volume.from_array(before, spacing=(2.0, 3.0, 0.5), units="mm")
    table = class_changes(before, after, default_classes(3), volume).set_index("class")
    assert table.attrs["unit"] == "mm³"
    first = table.iloc[1]
    assert (first["before"], first["after"], first["change"]) == (6.0, 6.0, 0.0)
    assert (first["gained"], first["lost"], first["dice"]) == (1, 1, 0.5)
    assert np.isnan(class_changes(before * 0, after * 0, default_classes(3), volume)["dice"]).all()


def test_tiles_and_flips_change_gates_too():
    """Where nothing can be kept, the runs are those that were asked for."""
    torch.manual_seed(0)
    model = as_model(AttentionUNet3D(1, 2, widths=(4, 6)))
    volume = np.random.default_rng(0).normal(size=(12, 16, 8)).astype(np.float32)
    baseline = finished(baseline_steps(model, volume, FLOAT, plan="tiles"))
    assert baseline.kept is None
    assert "another plan" in baseline.note
    changed = intervene(baseline, att2="closed")
    expected = nau.predict(model, volume, FLOAT, plan="tiles", gates={"att2": 0.0})
    np.testing.assert_array_equal(changed.prediction.mask, expected.mask)
