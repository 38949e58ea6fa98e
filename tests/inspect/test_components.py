from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from napari_attention_unet.inspect.components import keep_largest
from napari_attention_unet.models.card import default_classes
from napari_attention_unet.prediction import Prediction
from napari_attention_unet.volume import Volume


def prediction_of(mask: np.ndarray) -> Prediction:
    return Prediction(mask, (), default_classes(3), Volume.from_array(mask), provenance={"a": 1})


def test_only_the_largest_piece_stays_with_its_classes():
    mask = np.zeros((8, 8, 8), np.uint8)
    mask[1:4, 1:4, 1:4] = 1
    mask[2, 2, 4] = 2  # another class on the same piece
    mask[4, 4, 4] = 1  # touches by a corner alone
    mask[6:8, 6:8, 6:8] = 2
    before = mask.copy()
    kept = keep_largest(prediction_of(mask))
    expected = np.zeros_like(mask)
    expected[1:4, 1:4, 1:4] = 1
    expected[2, 2, 4] = 2
    np.testing.assert_array_equal(kept.mask, expected)
    np.testing.assert_array_equal(mask, before)
    assert kept.provenance == {"a": 1, "keep_largest": True}


@given(st.integers(0, 2**27 - 1))
def test_what_stays_is_one_piece_and_none_is_larger(bits: int):
    mask = np.array([bits >> i & 1 for i in range(27)], np.uint8).reshape(3, 3, 3)
    kept = keep_largest(prediction_of(mask)).mask
    largest = 0
    left = {tuple(v) for v in np.argwhere(mask)}
    while left:  # flood fill, by hand
        todo = [left.pop()]
        size = 0
        while todo:
            size += 1
            z, y, x = todo.pop()
            for d in ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)):
                n = (z + d[0], y + d[1], x + d[2])
                if n in left:
                    left.remove(n)
                    todo.append(n)
        largest = max(largest, size)
    assert kept.sum() == largest
    assert not (kept & ~mask.astype(bool)).any()
