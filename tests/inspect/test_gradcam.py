"""Seg-Grad-CAM equals what is computed by hand on a network that is linear in its features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cause_networks import OneCarrier, as_model
from torch import Tensor, nn

import napari_attention_unet as nau
from napari_attention_unet.graph.lower import finished
from napari_attention_unet.inspect.gradcam import gated_features, gradcam_steps
from napari_attention_unet.inspect.similarity import (
    rank_correlation,
    structural_similarity,
    top_overlap,
)
from napari_attention_unet.models.attention_unet_3d import AttentionUNet3D

SHAPE = (6, 9, 7)
W_F = np.array([1.0, -0.5, 2.0])
W_OUT = np.array([[0.3, -0.2, 0.1], [1.5, 2.0, 0.25]])


class Linear(nn.Module):
    """out = W_out (alpha * f), f = W_f x, alpha on a grid of half the resolution, not from f."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv3d(1, 3, 1, bias=False)
        self.psi = nn.Conv3d(1, 1, 1)
        self.out = nn.Conv3d(3, 2, 1, bias=False)
        with torch.no_grad():
            self.features.weight[:, 0, 0, 0, 0] = torch.tensor(W_F)
            self.out.weight[:, :, 0, 0, 0] = torch.tensor(W_OUT)

    def forward(self, x: Tensor) -> Tensor:
        alpha = torch.sigmoid(self.psi(F.avg_pool3d(x, 2)))
        return self.out(self.features(x) * F.interpolate(alpha, scale_factor=2, mode="nearest"))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    return as_model(Linear())


def volume() -> np.ndarray:
    return np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)


def by_hand(model, array, region, channel):
    """The map on the gate's grid before it is scaled; the volume is padded to whole cells by 0."""
    pads = [(0, n % 2) for n in array.shape]
    x, inside = np.pad(array.astype(np.float64), pads), np.pad(region, pads)
    psi = model.graph.constants
    weight, bias = float(psi["psi.weight"].detach()), float(psi["psi.bias"].detach())
    cells = x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2, x.shape[2] // 2, 2)
    low = 1 / (1 + np.exp(-(weight * cells.mean((1, 3, 5)) + bias)))
    alpha = low.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    f = W_F[:, None, None, None] * x
    gradient = W_OUT[channel][:, None, None, None] * alpha * inside
    cam = np.maximum((gradient.mean((1, 2, 3))[:, None, None, None] * f).sum(0), 0)
    return cam.reshape(cells.shape).mean((1, 3, 5)), low


@pytest.mark.parametrize("channel", [0, 1])
def test_equals_the_map_by_hand(model, channel):
    array = volume()
    region = np.zeros(SHAPE, np.uint8)
    region[1:4, 2:6, 1:5] = 3
    found = finished(gradcam_steps(model, array, target=channel, region=region))
    cam, alpha = by_hand(model, array, region > 0, channel)
    (made,) = found.maps
    expected = cam[tuple(slice(0, n) for n in made.coefficients.shape)]
    assert found.peaks[made.name] == pytest.approx(expected.max(), rel=1e-5)
    np.testing.assert_allclose(made.coefficients, expected / expected.max(), atol=1e-5)
    gate = found.prediction.gates[0]
    assert made.coefficients.shape == gate.coefficients.shape
    assert (made.scale, made.translate, made.kind) == (gate.scale, gate.translate, "gradcam")
    row = found.table.iloc[0]
    low = alpha[tuple(slice(0, n) for n in made.coefficients.shape)]
    assert row["rank_correlation"] == pytest.approx(rank_correlation(low, expected), abs=1e-6)
    assert row["class"] == model.classes[channel].name
    assert not found.note


def test_the_mask_is_the_region_where_none_is_given(model):
    array = volume()
    prediction = nau.predict(model, array, precision="float32")
    name = model.classes[1].name
    named = finished(gradcam_steps(model, array, target=name))
    again = finished(gradcam_steps(model, array, target=1, prediction=prediction))
    given = finished(gradcam_steps(model, array, target=1, region=prediction.mask == 1))
    np.testing.assert_array_equal(named.region, prediction.mask == 1)
    for other in (again, given):
        np.testing.assert_array_equal(named.maps[0].coefficients, other.maps[0].coefficients)
    most = finished(gradcam_steps(model, array, prediction=prediction))
    assert most.target == name  # the only class but the background


def test_every_gate_of_a_unet_gets_a_map_on_its_grid():
    torch.manual_seed(0)
    model = as_model(
        AttentionUNet3D(1, 2, widths=(4, 6, 8)), voxel_size=(2.0, 1.0, 1.0), units="mm"
    )
    array = np.random.default_rng(0).normal(size=(10, 21, 17)).astype(np.float32)
    region = np.zeros(array.shape, bool)
    region[3:6, 5:12, 4:9] = True
    steps = []
    work = gradcam_steps(
        model, nau.Volume.from_array(array, (1.0, 1.0, 1.0), units="mm"), target=1, region=region
    )
    while True:
        try:
            steps.append(next(work))
        except StopIteration as end:
            found = end.value
            break
    for made, gate in zip(found.maps, found.prediction.gates, strict=True):
        assert made.coefficients.shape == gate.coefficients.shape
        assert (made.scale, made.translate) == (gate.scale, gate.translate)
        assert made.coefficients.min() >= 0
        assert made.coefficients.max() in (0, 1)
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert steps[-1].done <= steps[-1].total


def test_a_box_is_computed_where_the_whole_does_not_fit(monkeypatch):
    """Features of one voxel each, so that the box alone gives the same up to the mean's size."""
    torch.manual_seed(1)
    model = as_model(Linear())
    array = np.random.default_rng(5).normal(size=(40, 8, 8)).astype(np.float32)
    region = np.zeros(array.shape, bool)
    region[21:23, 2:5, 2:5] = True
    whole = finished(gradcam_steps(model, array, target=1, region=region))
    from napari_attention_unet.inspect import gradcam as module

    needs = module.memory_of(model.graph, {gated_features(model.graph, model.gates[0])}, (40, 8, 8))
    monkeypatch.setattr(module, "memory_budget", lambda *_: needs // 2)
    boxed = finished(gradcam_steps(model, array, target=1, region=region))
    assert "box" in boxed.note
    known = ~np.isnan(boxed.maps[0].coefficients)
    assert known[10:12].all()
    assert 0 < known.sum() < known.size
    name = model.gates[0].name
    ratio = boxed.peaks[name] * boxed.maps[0].coefficients[known]
    ratio /= whole.peaks[name] * whole.maps[0].coefficients[known]
    np.testing.assert_allclose(ratio[np.isfinite(ratio)], known.size / known.sum(), rtol=1e-4)
    monkeypatch.setattr(module, "memory_budget", lambda *_: 10)
    with pytest.raises(nau.MemoryBudgetError, match="smaller region"):
        finished(gradcam_steps(model, array, target=1, region=region))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target": "kidney"}, "There is no class 'kidney'; the classes are: background"),
        ({"target": 7}, "no class '7'"),
        ({"target": 1, "region": np.zeros(SHAPE)}, "region is empty"),
        ({"target": 1, "region": np.ones((2, 2, 2))}, "(2, 2, 2)"),
    ],
)
def test_what_cannot_be_explained_is_refused(model, options, words):
    with pytest.raises(nau.InputError) as refused:
        finished(gradcam_steps(model, volume(), **options))
    assert words in str(refused.value)


def test_an_empty_class_is_refused():
    model = as_model(OneCarrier())
    nothing = np.zeros((6, 6, 6), np.float32)
    nothing[0, 0, 0] = 1e-3
    with pytest.raises(nau.InputError, match="nothing of the class"):
        finished(gradcam_steps(model, nothing, target=1, precision="float32"))
    with pytest.raises(nau.InputError, match="mask is empty"):
        finished(gradcam_steps(model, nothing))


def test_similarity_of_maps():
    rng = np.random.default_rng(0)
    one = rng.random((8, 9, 10))
    assert structural_similarity(one, one) == pytest.approx(1)
    assert structural_similarity(one, rng.random(one.shape)) < 0.3
    assert structural_similarity(one * 0 + 2, one * 0 + 2) == 1
    assert np.isnan(structural_similarity(one[:2], one[:2]))
    assert rank_correlation(one, np.exp(3 * one)) == pytest.approx(1)
    assert rank_correlation(one, -one) == pytest.approx(-1)
    assert np.isnan(rank_correlation(one, one * 0))
    assert top_overlap(one, one**3) == 1
    assert top_overlap(one, -one) == 0
    assert top_overlap(one, rng.random(one.shape)) == pytest.approx(0.1, abs=0.08)
    holes = one.copy()
    holes[0] = np.nan
    assert rank_correlation(holes, one) == pytest.approx(1)
