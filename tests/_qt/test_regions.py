"""Parts of an image that are pointed at; layers need no viewer."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image, Shapes

from napari_attention_unet._qt.regions import box_of_shape
from napari_attention_unet.errors import InputError
from napari_attention_unet.io.placement import LayerAxes

AXES = LayerAxes((0, 1, 2))


def rectangle(low, high, z=None):
    (y0, x0), (y1, x1) = low, high
    corners = np.array([[y0, x0], [y0, x1], [y1, x1], [y1, x0]], float)
    return corners if z is None else np.column_stack([np.full(4, float(z)), corners])


@pytest.fixture
def image() -> Image:
    return Image(
        np.zeros((10, 20, 30)), scale=(3, 2, 2), translate=(5, -4, 100), units="mm", name="scan"
    )


def test_a_flat_rectangle_goes_through_all_slices(image):
    # in world; voxels 2..6 along y and 3..9 along x are touched
    low, high = (2 * 2 - 4 - 0.9, 3 * 2 + 100 - 0.9), (6 * 2 - 4 + 0.9, 9 * 2 + 100 + 0.9)
    shapes = Shapes([rectangle(low, high, z=14)], shape_type="rectangle")
    assert box_of_shape(shapes, image, AXES) == ((0, 10), (2, 7), (3, 10))


def test_a_two_dimensional_shape_has_no_depth(image):
    shapes = Shapes([rectangle((0, 106), (4, 112))], shape_type="rectangle")
    assert box_of_shape(shapes, image, AXES) == ((0, 10), (2, 5), (3, 7))


def test_the_shapes_own_transform_counts(image):
    shapes = Shapes(
        [rectangle((0, 3), (4, 6), z=0)],
        shape_type="rectangle",
        scale=(1, 1, 2),
        translate=(0, 0, 100),
    )
    assert box_of_shape(shapes, image, AXES) == ((0, 10), (2, 5), (3, 7))


def test_the_box_is_cut_at_the_image(image):
    shapes = Shapes([rectangle((-100, 90), (10, 500), z=0)], shape_type="rectangle")
    assert box_of_shape(shapes, image, AXES) == ((0, 10), (0, 8), (0, 30))


def test_the_selected_shape_goes_before_the_last(image):
    drawn = [rectangle((0, 106), (4, 112)), rectangle((6, 120), (10, 130))]
    shapes = Shapes(drawn, shape_type="rectangle")
    assert box_of_shape(shapes, image, AXES)[1] == (5, 8)
    shapes.selected_data = {0}
    assert box_of_shape(shapes, image, AXES)[1] == (2, 5)


def test_time_axis_is_no_part_of_the_box():
    image = Image(np.zeros((4, 10, 20, 30)))
    shapes = Shapes([np.column_stack([np.full(4, 2.0), rectangle((1, 2), (5, 6), z=3)])])
    assert box_of_shape(shapes, image, LayerAxes((1, 2, 3), time=0)) == ((0, 10), (1, 6), (2, 7))


def test_what_cannot_be_a_box_says_so(image):
    with pytest.raises(InputError, match="Draw a rectangle in the Shapes layer 'box' first"):
        box_of_shape(Shapes(name="box"), image, AXES)
    beside = Shapes([rectangle((900, 900), (950, 950))], name="box")
    with pytest.raises(InputError, match="'box' lies beside the image 'scan'"):
        box_of_shape(beside, image, AXES)
