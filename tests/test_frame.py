from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_attention_unet.errors import InputError
from napari_attention_unet.frame import Frame, frame_for, line_weights
from napari_attention_unet.models.card import ModelCard
from napari_attention_unet.volume import Volume

ORIENTATIONS = [
    "".join(word) for order in permutations(("IS", "PA", "LR")) for word in product(*order)
]  # all 48


def card(**fields: object) -> ModelCard:
    return ModelCard(name="m", architecture="none", **fields)  # type: ignore[arg-type]


def frame(volume: Volume, stride: int = 4, **fields: object) -> Frame:
    return frame_for(volume, card(**fields), (stride, stride, stride))


@settings(deadline=None)
@given(
    size=st.integers(2, 40),
    ratio=st.floats(0.3, 4.0),
)
def test_resampling_keeps_constants_and_lines(size: int, ratio: float) -> None:
    out = max(1, round(size / ratio))
    weights = line_weights(out, size, ratio)
    if weights is None:
        return
    torch.testing.assert_close(weights.sum(1), torch.ones(out, dtype=torch.float64))
    assert weights.min() >= 0
    line = weights @ torch.arange(size, dtype=torch.float64)
    centre = (torch.arange(out, dtype=torch.float64) + 0.5) * ratio - 0.5
    inner = (centre >= ratio + 1) & (centre <= size - 2 - ratio)
    torch.testing.assert_close(line[inner], centre[inner])


def test_no_weights_where_nothing_changes() -> None:
    assert line_weights(7, 7, 1.0) is None


def test_downsampling_averages_detail_away() -> None:
    stripes = torch.tensor([0.0, 1.0] * 32, dtype=torch.float64)
    weights = line_weights(16, 64, 4.0)
    assert weights is not None
    assert (weights @ stripes)[1:-1].sub(0.5).abs().max() < 0.02


@settings(deadline=None)
@given(st.sampled_from(ORIENTATIONS), st.sampled_from(ORIENTATIONS))
def test_turning_and_back_is_identity(here: str, there: str) -> None:
    array = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    volume = Volume(array, orientation=here)
    made = frame(volume, orientation=there)
    turned = made.turn(array)
    assert turned.shape[1:] == made.turned
    np.testing.assert_array_equal(made.turn_back(turned), array)


def test_turning_brings_anatomy_to_the_card() -> None:
    # brightness grows towards the patient's left, which the file stores on axis 0 towards right
    array = np.broadcast_to(np.arange(6)[::-1, None, None], (6, 3, 4))[None]
    made = frame(Volume(array, orientation="RAS"), orientation="IPL")
    assert made.axes == (2, 1, 0)
    turned = made.turn(array)[0]
    assert (np.diff(turned, axis=2) > 0).all()


@settings(deadline=None, max_examples=40)
@given(
    here=st.sampled_from(ORIENTATIONS),
    shape=st.tuples(*[st.integers(2, 15)] * 3),
    spacing=st.tuples(*[st.sampled_from([0.5, 0.8, 1.0, 1.7, 3.0])] * 3),
    scale=st.sampled_from([1, 2, 4]),
    offset=st.sampled_from([0.0, 0.5, 1.5]),
)
def test_a_gate_sample_keeps_its_world_position(
    here: str,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    scale: int,
    offset: float,
) -> None:
    """World positions computed the long way round, sample by sample."""
    volume = Volume(
        np.broadcast_to(np.uint8(0), (1, *shape)), spacing, units="mm", orientation=here
    )
    made = frame(volume, voxel_size=(1.5, 1.5, 1.5), orientation="IPL")
    grid = tuple(-(-n // scale) for n in made.padded)
    marked = np.arange(np.prod(grid)).reshape(grid)
    placed, got_scale, got_translate = made.place(marked, (float(scale),) * 3, (offset,) * 3)
    assert placed.size
    found = {}
    for index in np.ndindex(*placed.shape):
        found[int(placed[index])] = [
            t + s * i for t, s, i in zip(got_translate, got_scale, index, strict=True)
        ]
    for index in np.ndindex(*grid):
        expected = [0.0] * 3
        for k in range(3):
            a = made.axes[k]
            turned = (offset + scale * index[k] + 0.5) * made.ratio[k] - 0.5
            expected[a] = shape[a] - 1 - turned if made.flipped[k] else turned
        inside = all(-0.5 <= e <= n - 0.5 for e, n in zip(expected, shape, strict=True))
        if int(marked[index]) in found:
            assert found[int(marked[index])] == pytest.approx(expected, abs=1e-6)
        else:
            assert not inside


def test_a_thin_volume_keeps_the_nearest_sample() -> None:
    made = frame(Volume(np.zeros((1, 2, 16, 16))), stride=16)
    placed, scale, translate = made.place(
        np.arange(8).reshape(2, 2, 2), (8.0, 8.0, 8.0), (3.5, 3.5, 3.5)
    )
    assert placed.shape == (1, 2, 2)
    assert scale == (8.0, 8.0, 8.0)
    assert translate == (3.5, 3.5, 3.5)


@pytest.mark.parametrize(
    ("units", "spacing", "ratio"),
    [
        ("mm", 1.0, 2.0),
        ("millimeter", 1.0, 2.0),
        ("µm", 500.0, 4.0),
        ("\u03bcm", 1000.0, 2.0),
        ("micrometers", 1000.0, 2.0),
        ("nm", 1e6, 2.0),
        ("cm", 0.1, 2.0),
        ("mm", 2.005, 1.0),  # within a hundredth: nothing is resampled
        ("pixel", 1.0, 1.0),  # says nothing
        ("pixel", 4.0, 0.5),  # a stated spacing counts in the card's units
    ],
)
def test_voxel_size_and_units(units: str, spacing: float, ratio: float) -> None:
    volume = Volume(np.zeros((1, 12, 12, 12)), (spacing,) * 3, units=units)
    made = frame(volume, voxel_size=(2.0, 2.0, 2.0), units="mm")
    assert made.ratio == pytest.approx((ratio,) * 3)
    assert made.size == (round(12 / ratio),) * 3
    assert all(p % 4 == 0 and 0 <= p - n < 4 for p, n in zip(made.padded, made.size, strict=True))


def test_resampling_to_the_network_and_back_keeps_a_smooth_image() -> None:
    z, y, x = np.meshgrid(*[np.linspace(0, 1, n) for n in (30, 34, 26)], indexing="ij")
    image = np.sin(3 * z) * np.cos(2 * y) + x
    made = frame(Volume(image[None], (1.0, 0.8, 1.3), units="mm"), voxel_size=(1.4, 1.4, 1.4))
    there, back = made.to_network(), made.to_caller()
    planes = torch.from_numpy(image[None])
    low, high = there.reads(0, made.size[0])
    net = there.run(planes[:, low:high], 0, made.size[0])
    assert tuple(net.shape[1:]) == made.size
    pieces = []
    for start in range(0, 30, 7):  # in pieces as in one go
        stop = min(start + 7, 30)
        low, high = back.reads(start, stop)
        pieces.append(back.run(net[:, low:high], start, stop))
    again = torch.cat(pieces, 1)
    whole = back.run(net[:, slice(*back.reads(0, 30))], 0, 30)
    torch.testing.assert_close(again, whole)
    assert (again - planes)[:, 3:-3, 3:-3, 3:-3].abs().max() < 0.02


@settings(deadline=None, max_examples=60)
@given(
    here=st.sampled_from(ORIENTATIONS),
    shape=st.tuples(*[st.integers(2, 15)] * 3),
    ratio=st.sampled_from([0.5, 1.0, 1.6]),
    scale=st.sampled_from([1, 2, 4]),
)
def test_placing_back_is_the_inverse(
    here: str, shape: tuple[int, int, int], ratio: float, scale: int
) -> None:
    volume = Volume(np.broadcast_to(np.uint8(0), (1, *shape)), units="mm", orientation=here)
    made = frame(volume, voxel_size=(ratio,) * 3, orientation="IPL")
    z, y, x = (-(-n // scale) for n in made.padded)
    line = (float(scale),) * 3, ((scale - 1) / 2,) * 3
    values = np.arange(z * y * x, dtype=np.float32).reshape(z, y, x)
    placed, *_ = made.place(values, *line)
    again = made.place_back(placed, (z, y, x), *line)
    kept = ~np.isnan(again)
    assert kept.sum() == placed.size
    np.testing.assert_array_equal(again[kept], values[kept])
    np.testing.assert_array_equal(made.place(again, *line)[0], placed)
    with pytest.raises(InputError, match="this gate's map of this volume has"):
        made.place_back(placed[1:], (z, y, x), *line)
