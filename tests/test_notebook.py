"""A prediction in scripts and notebooks."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from matplotlib.image import imread

from napari_attention_unet.models import default_classes
from napari_attention_unet.prediction import GateMap, Prediction
from napari_attention_unet.volume import Volume

RNG = np.random.default_rng(0)


@pytest.fixture
def prediction() -> Prediction:
    mask = np.zeros((6, 8, 10), np.uint8)
    mask[4, 2:5, 3:8] = 1
    gates = (
        GateMap("deep.att", RNG.random((3, 4, 5)).astype("f"), (2.0,) * 3, (0.5,) * 3),
        GateMap("att1", RNG.random((6, 8, 10)).astype("f"), (1.0,) * 3, (0.0,) * 3),
    )
    volume = Volume.from_array(
        np.zeros(mask.shape), (3.0, 1.0, 0.5), translate=(7.0, 8.0, 9.0), units="mm", name="<head>"
    )
    probabilities = RNG.random((2, 6, 8, 10)).astype("f")
    return Prediction(mask, gates, default_classes(2), volume, probabilities)


def test_it_shows_itself(prediction):
    html = prediction._repr_html_()
    assert "&lt;head&gt;" in html
    assert "deep.att" in html
    found = re.search(r"data:image/png;base64,([^\"]+)", html)
    picture = imread(io.BytesIO(base64.b64decode(found[1])))
    assert picture.shape[1] > picture.shape[0] > 50
    assert "mask (6, 8, 10)" in repr(prediction)
    assert "\n" not in repr(prediction)


def test_without_gates_it_says_so(prediction):
    alone = Prediction(prediction.mask * 0, (), prediction.classes, prediction.volume)
    assert "no attention gates" in alone._repr_html_()
    assert "gates: none" in repr(alone)


def test_a_dataset_has_the_world_of_every_grid(prediction):
    data = prediction.to_xarray()
    np.testing.assert_allclose(data["z"], 7 + 3.0 * np.arange(6))
    np.testing.assert_allclose(data["x_deep.att"], 9 + 0.5 * (0.5 + 2 * np.arange(5)))
    assert data["x"].attrs["units"] == "mm"
    np.testing.assert_array_equal(data["mask"], prediction.mask)
    np.testing.assert_array_equal(data["att1"], prediction.gates[1].coefficients)
    inside = data["probabilities"].sel(**{"class": "class 1"}, z=10.0)
    np.testing.assert_array_equal(inside, prediction.probabilities[1, 1])


def test_layers_and_files_lie_where_the_volume_lies(prediction, tmp_path):
    layers = prediction.to_layers()
    mask, *_, gate, _ = layers
    assert mask[2] == "labels"
    np.testing.assert_allclose(mask[1]["translate"], (7.0, 8.0, 9.0))
    np.testing.assert_allclose(gate[1]["scale"], (6.0, 2.0, 1.0))
    np.testing.assert_allclose(gate[1]["translate"], (8.5, 8.5, 9.25))
    assert (prediction.save(tmp_path / "out", "nrrd") / "mask.nrrd").exists()
