from __future__ import annotations

import math

import pytest

from napari_attention_unet._qt.legend import number
from napari_attention_unet._qt.request import duration, parse_spacing, shape_text, size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("   ", None),
        ("2", (2, 2, 2)),
        ("3, 1, 1", (3, 1, 1)),
        ("3 × 0.5 × 0.5", (3, 0.5, 0.5)),
        ("1.5;1;1", (1.5, 1, 1)),
    ],
)
def test_voxel_sizes_that_are_understood(text, expected):
    assert parse_spacing(text) == expected


@pytest.mark.parametrize("text", ["1, 2", "a", "0", "1,1,-1", "nan", "inf", "1 2 3 4"])
def test_voxel_sizes_that_are_refused_by_name(text):
    with pytest.raises(ValueError, match=f"'{text}' is not understood: give one number, or three"):
        parse_spacing(text)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.44, "0.4 s"),
        (9.9, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (7500, "2 h 5 min"),
    ],
)
def test_durations(seconds, expected):
    assert duration(seconds) == expected


def test_sizes_and_shapes():
    assert size(312 * 2**20) == "312 MiB"
    assert size(4.25 * 2**30) == "4.2 GiB"
    assert shape_text((91, 109, 91)) == "91 × 109 × 91"


@pytest.mark.parametrize(
    ("value", "span", "expected"),
    [
        (0.0, 1, "0.00"),
        (0.98, 1, "0.98"),
        (1.0, 1, "1.00"),
        (0.51234, 0.05, "0.512"),
        (0.51234, 1e-6, "0.5123"),
        (6.3e-4, 0.9, "0.00"),
        (1.2e-5, 1e-5, "1.2e-5"),
        (math.nan, 1, "–"),
        (0.5, 0, "0.50"),
        (0.5, math.nan, "0.50"),
    ],
)
def test_coefficients_are_written_as_exactly_as_their_range_needs(value, span, expected):
    assert number(value, span) == expected
