from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from napari.components import ViewerModel
from napari.layers import Image, Layer

from napari_attention_unet.io.layers import (
    GATE_COLORMAP,
    contrast_limits,
    layers_from_prediction,
    time_points,
    volume_from_layers,
)

SHAPE = (4, 5, 6)
# napari says so of its 2D views; here positions are asked of the layers themselves.
pytestmark = pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")
numbers = st.floats(-2, 2, allow_subnormal=False)
sizes = st.floats(0.2, 5)


def made(prediction, source, **options):
    """Real napari layers of a prediction, by role and gate."""
    layers = [Layer.create(*data) for data in layers_from_prediction(prediction, source, **options)]
    found = {}
    for layer in layers:
        about = layer.metadata["attention_unet"]
        found[about.get("gate", about.get("class", about["role"]))] = layer
    return found


@st.composite
def sources(draw):
    """Layers with any transform, with time and channel axes in any place before z, y, x."""
    labels = draw(st.sampled_from(["zyx", "tzyx", "czyx", "tczyx", "ctzyx", "ztyx"]))
    n = len(labels)
    space = [i for i, label in enumerate(labels) if label in "zyx"]
    options = {
        "scale": [draw(sizes) * draw(st.sampled_from([1, 1, -1])) for _ in labels],
        "translate": [draw(numbers) * 50 for _ in labels],
        "axis_labels": tuple(labels),
        "units": tuple("s" if a == "t" else "pixel" if a == "c" else "mm" for a in labels),
    }
    if draw(st.booleans()):
        rotation = np.eye(n)
        matrix = np.reshape([draw(numbers) for _ in range(9)], (3, 3)) + 3 * np.eye(3)
        rotation[np.ix_(space, space)] = np.linalg.qr(matrix)[0]
        options["rotate"] = rotation
    if draw(st.booleans()):
        shear = np.eye(n)
        for i, j in itertools.combinations(space, 2):
            shear[i, j] = draw(numbers)
        options["shear"] = shear if draw(st.booleans()) else shear.T
    if draw(st.booleans()):
        affine = np.eye(n + 1)
        affine[np.ix_(space, space)] = np.reshape([draw(numbers) for _ in range(9)], (3, 3))
        affine[np.ix_(space, space)] += 5 * np.eye(3)
        affine[space, -1] = [draw(numbers) * 20 for _ in range(3)]
        options["affine"] = affine
    lengths = {"t": 3, "c": 2, **dict(zip("zyx", SHAPE, strict=True))}
    return Image(
        np.zeros([lengths[a] for a in labels]), contrast_limits=(0, 1), name="source", **options
    )


@settings(max_examples=80, deadline=None)
@given(source=sources(), data=st.data())
def test_results_lie_where_the_source_does(predict, source, data):
    low = data.draw(st.integers(0, 1))
    region = ((low, 4), (0, 5), (1, 6))
    series = data.draw(st.booleans())
    times = range(time_points(source)) if series else [time_points(source) - 1]
    predictions = [
        predict(volume_from_layers([source], time_index=t, region=region)) for t in times
    ]
    layers = made(predictions, source)
    labels = "".join(source.axis_labels)
    gates = {gate.name: gate for gate in predictions[0].gates}
    for name, layer in layers.items():
        gate = gates.get(name)
        scale, translate = (gate.scale, gate.translate) if gate else (np.ones(3), np.zeros(3))
        grid = [layer.data.shape[labels.index(a)] for a in "zyx"]
        for j in itertools.product(*((0, n - 1) for n in grid)):
            inside = np.array([low, 0, 1]) + translate + np.multiply(scale, j)
            for k, t in enumerate(times):
                here = dict(zip("zyx", j, strict=True)) | {"t": k, "c": 0}
                there = dict(zip("zyx", inside, strict=True)) | {"t": t, "c": 0.5}
                np.testing.assert_allclose(
                    layer.data_to_world([here[a] for a in labels]),
                    source.data_to_world([there[a] for a in labels]),
                    rtol=1e-6,
                    atol=1e-6,
                )
                values = predictions[k].gate(name).coefficients if gate else predictions[k].mask
                assert layer.data[tuple(here[a] for a in labels)] == np.float32(values[j])
        assert layer.units == source.units
        assert layer.axis_labels == source.axis_labels
        np.testing.assert_array_equal(layer.affine, source.affine)


def test_looks(predict):
    source = Image(np.zeros(SHAPE), name="head")
    prediction = predict(volume_from_layers([source]), extras=True)
    layers = made(
        prediction, source, outputs=("mask", "probabilities", "gates"), show="att1", model="net"
    )
    assert list(layers) == ["mask", "grey matter", "white matter", "deep.gate_2", "att1"]
    mask = layers["mask"]
    assert mask._type_string == "labels"
    np.testing.assert_array_equal(mask.data, prediction.mask)
    np.testing.assert_allclose(mask.get_color(1), (1, 0, 0, 1))
    np.testing.assert_allclose(mask.get_color(2), (0, 1, 0, 1))
    assert list(mask.features["class"]) == ["background", "grey matter", "white matter"]
    assert [layer.name for layer in layers.values()] == [
        "net · mask",
        "net · grey matter",
        "net · white matter",
        "net · deep.gate_2 · 1/2·1/4·1/4",
        "net · att1 · 1/1·1/2·1/2",
    ]
    assert [layer.visible for layer in layers.values()] == [True, False, False, False, True]
    for name, limits in (("att1", [0, 1]), ("white matter", [0, 1])):
        assert layers[name].contrast_limits == limits
        assert layers[name].interpolation2d == "linear"
        assert layers[name].blending == "translucent_no_depth"
    deep = layers["deep.gate_2"]
    assert deep.data.dtype == np.float32
    assert deep.contrast_limits == [0, deep.data.max()]
    about = deep.metadata["attention_unet"]
    assert about["role"] == "gate"
    assert about["gate"] == "deep.gate_2"
    assert about["kind"] == "softmax"
    assert about["sha256"] == "ab" * 32
    assert about["source"] == "head"
    assert made(prediction, source)["mask"].name == "brain-t1 · mask"


def test_no_gate_is_shown_unless_one_is_told(predict):
    source = Image(np.zeros(SHAPE))
    layers = made(predict(volume_from_layers([source])), source)
    assert [layer.visible for layer in layers.values()] == [True, False, False]


def test_the_image_stays_readable_where_the_network_did_not_look():
    colors = GATE_COLORMAP["colors"]
    assert colors[0, 3] == 0
    assert (np.diff(colors[:, 3]) > 0).all()
    assert colors[-1, 3] < 1
    luminance = colors[:, :3] @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(luminance) > 0).all()


@pytest.mark.parametrize(
    ("kind", "mode", "limits"),
    [
        ("sigmoid", "0-1", (0, 1)),
        ("squeeze-excitation", "0-1", (0, 1)),
        ("softmax", "0-1", (0, 1000)),
        ("candidate", "0-1", (-500, 1000)),
        ("sigmoid", "1-99 %", (-485, 985)),
    ],
)
def test_contrast(kind, mode, limits):
    assert contrast_limits(np.linspace(-500, 1000, 1501), kind, mode) == pytest.approx(limits)


@pytest.mark.parametrize("mode", ["0-1", "1-99 %"])
@pytest.mark.parametrize("value", [0.0, 0.3, -5.0])
def test_a_constant_gate_still_has_a_range(value, mode):
    low, high = contrast_limits(np.full(9, value, np.float32), "candidate", mode)
    assert low < high
    Image(np.zeros((2, 2)), contrast_limits=(low, high))


def test_one_time_point_is_seen_at_that_time_alone(predict):
    viewer = ViewerModel()
    source = viewer.add_image(
        np.zeros((3, *SHAPE)), scale=(10, 2, 1, 1), axis_labels=("time", "z", "y", "x")
    )
    prediction = predict(volume_from_layers([source], time_index=1))
    data = layers_from_prediction(prediction, source, outputs=("mask",))[0]
    mask = viewer.add_layer(Layer.create(*data))
    assert mask.data.shape == (1, *SHAPE)
    assert viewer.dims.nsteps[0] == 3
    for t in range(3):
        viewer.dims.set_point(0, 10 * t)
        viewer.dims.set_point(1, 4)
        value = mask.get_value((10 * t, 4, 2, 3), world=True)
        assert value == (prediction.mask[2, 2, 3] if t == 1 else None)


def test_results_are_seen_at_every_channel(predict):
    viewer = ViewerModel()
    source = viewer.add_image(np.zeros((5, *SHAPE)), axis_labels=("c", "z", "y", "x"))
    prediction = predict(volume_from_layers([source]))
    data = layers_from_prediction(prediction, source, outputs=("mask",))[0]
    mask = viewer.add_layer(Layer.create(*data))
    assert viewer.dims.nsteps[0] == 5
    for c in range(5):
        viewer.dims.set_point(0, c)
        assert mask.get_value((c, 1, 2, 3), world=True) == prediction.mask[1, 2, 3]


def test_a_level_and_region_of_a_multiscale_layer(predict):
    fine = np.zeros((8, 9, 12))
    source = Image([fine, fine[::2, ::2, ::2]], multiscale=True, scale=(3, 2, 1))
    volume = volume_from_layers([source], level=1, region=((2, 8), (2, 9), (0, 12)))
    layers = made(predict(volume), source)
    factor = np.array((2, 9 / 5, 2))
    for name, layer in layers.items():
        gate = next((g for g in predict(volume).gates if g.name == name), None)
        at_level = np.array([1, 1, 0]) + (gate.translate if gate else 0)
        np.testing.assert_allclose(
            layer.data_to_world((0, 0, 0)), source.data_to_world((at_level + 0.5) * factor - 0.5)
        )
    np.testing.assert_allclose(layers["mask"].scale, factor * (3, 2, 1))


def test_units_stay_known_in_the_viewer(predict):
    viewer = ViewerModel()
    source = viewer.add_image(np.zeros(SHAPE), units=("um",) * 3, axis_labels=("z", "y", "x"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for data in layers_from_prediction(predict(volume_from_layers([source])), source):
            viewer.add_layer(Layer.create(*data))
    assert [str(unit) for unit in viewer.layers.extent.units] == ["micrometer"] * 3


def test_predictions_that_are_no_series(predict):
    source = Image(np.zeros((4, *SHAPE)))
    predictions = [predict(volume_from_layers([source], time_index=t)) for t in (0, 1, 3)]
    with pytest.raises(ValueError, match="not equally spaced"):
        layers_from_prediction(predictions, source)
    with pytest.raises(ValueError, match="no time axis for 2 predictions"):
        layers_from_prediction(predictions[:2], Image(np.zeros(SHAPE)))
    layers = made(predictions[::2][:1] + predictions[2:], source)
    np.testing.assert_allclose(layers["mask"].scale, (3, 1, 1, 1))
