"""Gate measures equal a plain computation on the up-sampled map."""

import numpy as np
import pytest
from hypothesis import given, settings
from inspect_cases import cases, plain_auc, upsampled

from napari_attention_unet.inspect.measures import gate_measures, most_telling
from napari_attention_unet.models.card import default_classes
from napari_attention_unet.prediction import GateMap, Prediction
from napari_attention_unet.volume import Volume


def predict(mask, *gates):
    volume = Volume.from_array(np.zeros(mask.shape, np.float32))
    return Prediction(mask, gates, default_classes(2), volume)


@settings(deadline=None, max_examples=60)
@given(prediction=cases())
def test_measures_equal_the_plain_computation(prediction):
    mask = prediction.mask
    for gate, got in zip(prediction.gates, gate_measures(prediction), strict=True):
        full = upsampled(gate, mask.shape).astype(np.float64)
        inside, outside = full[mask > 0], full[mask == 0]
        assert got.mean == pytest.approx(gate.coefficients.mean())
        for value, voxels in ((got.inside, inside), (got.outside, outside)):
            assert value == pytest.approx(voxels.mean() if voxels.size else np.nan, nan_ok=True)
        assert got.auc == pytest.approx(plain_auc(inside, outside), nan_ok=True)


def test_a_gate_equal_to_the_mask_ranks_perfectly_and_its_inverse_not_at_all():
    mask = np.zeros((4, 6, 8), np.uint8)
    mask[1:3, 2:5, 3:6] = 2
    alpha = (mask > 0).astype(np.float32)
    unit, zero = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)
    good, bad = gate_measures(
        predict(mask, GateMap("a", alpha, unit, zero), GateMap("b", 1 - alpha, unit, zero))
    )
    assert (good.auc, bad.auc) == (1, 0)
    assert (good.inside, good.outside) == (1, 0)
    assert most_telling([bad, good]) == "a"


@pytest.mark.parametrize(
    ("kind", "low", "high", "flag"),
    [
        ("sigmoid", 0.0, 0.03, "dead"),
        ("sigmoid", 0.97, 1.0, "saturated"),
        ("sigmoid", 0.5, 0.505, "constant"),
        ("sigmoid", 0.4, 0.6, ""),
        ("softmax", 1e-4, 2e-4, ""),
        ("softmax", 1e-4, 1.0000001e-4, "constant"),
    ],
)
def test_flags(kind, low, high, flag):
    alpha = np.linspace(low, high, 1000, dtype=np.float32).reshape(10, 10, 10)
    mask = np.zeros((10, 10, 10), np.uint8)
    gate = GateMap("g", alpha, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), kind)
    measures = gate_measures(predict(mask, gate))
    assert measures[0].flag == flag
    assert most_telling(measures) == (None if flag else "g")
