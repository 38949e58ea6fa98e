"""Views are upright, true to the world, and show each class and gate where it is."""

import io

import numpy as np
import pytest
from inspect_cases import gate_of, prediction_of
from PIL import Image

from napari_attention_unet.inspect.plots import picture
from napari_attention_unet.inspect.views import Views, telling_voxel
from napari_attention_unet.volume import Volume

SHAPE = (8, 20, 12)
SPACING = (4.0, 1.0, 2.0)  # 32 x 20 x 24 in the world


@pytest.fixture
def prediction():
    mask = np.zeros(SHAPE, np.uint8)
    mask[1:3, 4:8, 6:9] = 1
    gate = gate_of(np.zeros((4, 10, 6)), (2.0, 2.0, 2.0), (0.5, 0.5, 0.5))
    return prediction_of(mask, gate, spacing=SPACING, units="mm", orientation="IPL")


def pixels(figure):
    return np.asarray(Image.open(io.BytesIO(picture(figure, "png"))).convert("RGB")).astype(int)


def box_in_pixels(ax, figure):
    """Left, right, top and bottom of a view in the picture."""
    width, height = figure.get_size_inches() * figure.dpi
    place = ax.get_position()
    return place.x0 * width, place.x1 * width, (1 - place.y1) * height, (1 - place.y0) * height


def test_a_millimetre_is_as_long_in_every_view(prediction):
    figure = Views(prediction, None, (2, 5, 7)).image_and_mask()
    world = np.multiply(SHAPE, SPACING)
    scales = []
    for ax, (down, right) in zip(figure.axes, [(1, 2), (0, 2), (0, 1)], strict=True):
        left, end, top, bottom = box_in_pixels(ax, figure)
        scales += [(end - left) / world[right], (bottom - top) / world[down]]
    np.testing.assert_allclose(scales, scales[0], rtol=0.02)


def test_the_mask_is_where_its_voxels_are(prediction):
    figure = Views(prediction, None, (2, 5, 7)).image_and_mask()
    shown = pixels(figure)
    ranges = [(1, 3), (4, 8), (6, 9)]
    for ax, (down, right) in zip(figure.axes, [(1, 2), (0, 2), (0, 1)], strict=True):
        left, end, top, bottom = box_in_pixels(ax, figure)
        part = shown[round(top) : round(bottom), round(left) : round(end)]
        red = part[..., 0] > 60 + part[..., 2]  # class 1 is red; lines are blue, letters white
        rows, columns = np.nonzero(red)
        for found, axis, size in ((rows, down, part.shape[0]), (columns, right, part.shape[1])):
            step = size / SHAPE[axis]
            low, high = (edge * step for edge in ranges[axis])
            assert found.min() == pytest.approx(low, abs=2)
            assert found.max() + 1 == pytest.approx(high, abs=2)


def test_a_head_is_upright_and_its_sides_are_named(prediction):
    views = Views(prediction, None, (2, 5, 7))
    assert views.names == ("axial", "coronal", "sagittal")
    known = {"top": "ASS", "bottom": "PII", "left": "RRA", "right": "LLP"}
    places = {(0.5, 0.99): "top", (0.5, 0.01): "bottom", (0.01, 0.5): "left", (0.99, 0.5): "right"}
    for index, ax in enumerate(views.image_and_mask().axes):
        found = {places[text.get_position()]: text.get_text() for text in ax.texts}
        assert found == {edge: letters[index] for edge, letters in known.items()}
    plain = Views(prediction_of(prediction.mask, *prediction.gates), None, (2, 5, 7))
    assert plain.names == ("xy", "xz", "yz")
    assert not any(ax.texts for ax in plain.image_and_mask().axes)


def test_a_gate_is_drawn_linear_between_its_samples_over_the_image():
    # coefficients rise along y from 0 to 1; the image is black
    alpha = np.broadcast_to(np.linspace(0, 1, 10)[:, None], (4, 10, 6))
    gate = gate_of(alpha, (2.0, 2.0, 2.0), (0.5, 0.5, 0.5))
    prediction = prediction_of(np.zeros(SHAPE, np.uint8), gate, spacing=SPACING)
    image = Volume.from_array(np.zeros(SHAPE, np.float32))
    figure = Views(prediction, image, (2, 0, 0)).gate(gate)
    left, end, top, bottom = box_in_pixels(figure.axes[0], figure)
    column = pixels(figure)[round(top) : round(bottom), round((left + end) / 2 + 20)].sum(1)
    rows = [column[round((y + 0.5) * len(column) / 20)] for y in range(2, 19)]
    assert (np.diff(rows) > 0).all()  # brighter with every voxel: no steps of two
    shown = figure.axes[0].images[-1].get_array()
    np.testing.assert_allclose(shown[:, 0], np.clip((np.arange(20) - 0.5) / 18, 0, 1), atol=1e-5)


def test_the_image_is_windowed_to_what_is_shown_and_turned_right():
    rng = np.random.default_rng(0)
    data = rng.normal(100, 10, (2, *SHAPE)).astype(np.float32)
    prediction = prediction_of(np.zeros(SHAPE, np.uint8), spacing=SPACING)
    volume = Volume.from_array(data)
    figure = Views(prediction, volume, (2, 5, 7), channel=1).image_and_mask()
    planes = [ax.images[0] for ax in figure.axes]
    for plane, expected in zip(planes, [data[1, 2], data[1, :, 5], data[1, :, :, 7]], strict=True):
        np.testing.assert_array_equal(plane.get_array(), expected)
        assert 70 < plane.get_clim()[0] < 90 < 110 < plane.get_clim()[1] < 140


def test_large_slices_leave_out_voxels_but_keep_their_place():
    mask = np.zeros((1, 3000, 4), np.uint8)
    mask[0, 1500:] = 1
    figure = Views(prediction_of(mask), None, (0, 0, 0)).image_and_mask()
    shown = figure.axes[0].images[-1]
    assert shown.get_array().shape[0] == 600
    assert shown.get_extent()[2] == 3000
    assert np.flatnonzero(shown.get_array()[:, 0, 3])[0] == 300


def test_the_telling_voxel_has_the_largest_slices():
    mask = np.zeros((5, 6, 7), np.uint8)
    mask[3, 1:4, 2:6] = 1
    mask[1:4, 2, 4] = 2
    assert telling_voxel(prediction_of(mask)) == (3, 2, 4)
    assert telling_voxel(prediction_of(np.zeros((5, 6, 7), np.uint8))) == (2, 3, 3)
