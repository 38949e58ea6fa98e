"""Predictions made up for the tests of measures, probe and overlays."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from napari_attention_unet.models.card import default_classes
from napari_attention_unet.prediction import GateMap, Prediction
from napari_attention_unet.volume import Volume


def prediction_of(mask, *gates, classes=None, probabilities=None, **geometry):
    """A prediction with that mask; `geometry` goes to the volume."""
    volume = Volume.from_array(np.zeros(mask.shape, np.float32), **geometry)
    made = default_classes(classes or max(2, int(mask.max()) + 1))
    return Prediction(mask, gates, made, volume, probabilities=probabilities)


def gate_of(
    coefficients, scale=(1.0, 1.0, 1.0), translate=(0.0, 0.0, 0.0), name="g", kind="sigmoid"
):
    return GateMap(name, np.asarray(coefficients, np.float32), scale, translate, kind)


def upsampled(gate, shape):
    """The map brought to the mask's grid, voxel by voxel: the nearest of all centres, the higher
    of two that are as near."""
    index = []
    for axis in range(3):
        centres = gate.translate[axis] + gate.scale[axis] * np.arange(gate.coefficients.shape[axis])
        far = np.abs(np.arange(shape[axis])[:, None] - centres)
        index.append(far.shape[1] - 1 - np.argmin(far[:, ::-1], axis=1))
    return gate.coefficients[np.ix_(*index)]


def plain_auc(inside, outside):
    """How often one of the first is higher than one of the others, over all pairs."""
    if not (inside.size and outside.size):
        return np.nan
    pairs = inside[:, None].astype(np.float64) - outside[None]
    return (pairs > 0).mean() + 0.5 * (pairs == 0).mean()


@st.composite
def cases(draw, labels=3):
    """A mask with several classes, two gates on grids of their own with many ties, a geometry."""
    shape = draw(st.tuples(*[st.integers(1, 9)] * 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    gates = []
    for name in ("deep", "fine"):
        grid = draw(st.tuples(*[st.integers(1, 6)] * 3))
        # powers of two, so that half-way is exactly half-way; 1.978 never is
        scale = draw(st.tuples(*[st.sampled_from([0.5, 0.75, 1.0, 1.978, 2.0, 4.0])] * 3))
        translate = draw(st.sampled_from([(0.0, 0.0, 0.0), tuple((s - 1) / 2 for s in scale)]))
        gates.append(gate_of(rng.integers(0, 5, grid) / 4, scale, translate, name))
    mask = rng.integers(0, labels, shape).astype(np.uint8)
    spacing = draw(st.tuples(*[st.sampled_from([0.25, 1.0, 3.5])] * 3))
    affine = None
    if draw(st.booleans()):  # oblique, so that world positions need the whole matrix
        turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        affine = np.eye(4)
        affine[:3, :3] = turn * spacing
        affine[:3, 3] = rng.normal(size=3) * 10
    return prediction_of(
        mask,
        *gates,
        classes=labels,
        spacing=spacing,
        translate=(1.0, -2.0, 3.0),
        units="mm",
        affine=affine,
    )
