"""Volumes and predictions small enough to check voxel by voxel."""

from __future__ import annotations

import numpy as np
import pytest

from napari_attention_unet import InputError
from napari_attention_unet.io import read
from napari_attention_unet.models.card import ClassInfo
from napari_attention_unet.prediction import GateMap, Prediction
from napari_attention_unet.volume import Volume

CLASSES = (
    ClassInfo("background", "#000000"),
    ClassInfo("grey matter", "#ff0000"),
    ClassInfo("white matter", "#00ff00"),
)


def predict(volume: Volume, seed: int = 0, extras: bool = False) -> Prediction:
    """A prediction of random values with a fine and a coarse gate, the coarse one anisotropic."""
    rng = np.random.default_rng([seed, volume.part.time_index])
    shape = volume.shape

    def gate(name, stride, kind="sigmoid", dtype=np.float32):
        grid = [-(-n // s) for n, s in zip(shape, stride, strict=True)]
        return GateMap(
            name,
            rng.random(grid).astype(dtype),
            tuple(float(s) for s in stride),
            tuple((s - 1) / 2 for s in stride),
            kind=kind,
            stride=tuple(float(s) for s in stride),
        )

    classes = len(CLASSES)
    return Prediction(
        mask=rng.integers(0, classes, shape),
        gates=(gate("deep.gate_2", (2, 4, 4), "softmax", np.float16), gate("att1", (1, 2, 2))),
        classes=CLASSES,
        volume=volume.without_data(),
        probabilities=rng.random((classes, *shape), np.float32) if extras else None,
        logits=rng.standard_normal((classes, *shape)).astype(np.float32) if extras else None,
        provenance={"model": "brain-t1", "sha256": "ab" * 32, "seconds": 1.5},
    )


@pytest.fixture(scope="session", name="predict")
def _predict():
    return predict


def at(matrix: np.ndarray, index) -> np.ndarray:
    """Where a matrix of homogeneous coordinates takes an index."""
    return (matrix @ np.append(index, 1.0))[:-1]


@pytest.fixture(scope="session", name="at")
def _at():
    return at


def attempt(path) -> tuple[tuple[Volume, ...], str]:
    """The volumes of a file, or why there are none."""
    try:
        return read(path), ""
    except InputError as error:
        return (), str(error)


@pytest.fixture(scope="session", name="attempt")
def _attempt():
    return attempt
