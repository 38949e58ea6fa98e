"""The probe gives what stands at a point, in the caller's voxels and in the world."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inspect_cases import cases, gate_of, prediction_of, upsampled
from scipy import ndimage

from napari_attention_unet.errors import InputError
from napari_attention_unet.inspect.probe import Probe


@settings(deadline=None, max_examples=60)
@given(prediction=cases(), data=st.data())
def test_a_voxel_reads_the_nearest_sample_and_its_own_label(prediction, data):
    shape = prediction.mask.shape
    voxel = data.draw(st.tuples(*[st.integers(0, n - 1) for n in shape]))
    reading = Probe(prediction).at(voxel)
    for gate in prediction.gates:
        assert reading.coefficients[gate.name] == upsampled(gate, shape)[voxel]
    assert reading.label == prediction.mask[voxel]
    assert reading.class_name == prediction.classes[reading.label].name
    world = prediction.volume.index_to_world @ [*voxel, 1]
    np.testing.assert_allclose(reading.world, world[:3], atol=1e-9)
    assert reading.units == "mm"
    assert reading.probabilities is None


@settings(deadline=None, max_examples=60)
@given(prediction=cases(), data=st.data())
def test_linear_reading_equals_scipy(prediction, data):
    shape = prediction.mask.shape
    point = data.draw(st.tuples(*[st.floats(-0.5, n - 0.51) for n in shape]))
    reading = Probe(prediction, "linear").at(point)
    for gate in prediction.gates:
        sample = (np.array(point) - gate.translate) / gate.scale
        wanted = ndimage.map_coordinates(
            gate.coefficients, sample[:, None], order=1, mode="nearest"
        )
        assert reading.coefficients[gate.name] == pytest.approx(wanted[0], abs=1e-5)


def test_nothing_is_read_outside_the_volume():
    probe = Probe(prediction_of(np.ones((4, 5, 6), np.uint8), gate_of(np.ones((2, 2, 2)))))
    assert probe.at((-0.5, 4.4, 0)) is not None
    assert probe.at((-0.6, 4, 0)) is None
    assert probe.at((3, 4.5, 0)) is None
    with pytest.raises(InputError, match=r"outside the volume, whose shape is \(4, 5, 6\)"):
        probe.profile((0, 0, 6))


@pytest.mark.parametrize("channels", [1, 2])
def test_probabilities_carry_the_names_of_their_classes(channels):
    values = np.random.default_rng(0).random((channels, 2, 3, 4)).astype(np.float32)
    mask = np.ones((2, 3, 4), np.uint8)
    probe = Probe(prediction_of(mask, probabilities=values))
    names = ["background", "class 1"][-channels:]
    reading = probe.at((1, 2, 3))
    assert reading.probabilities == dict(zip(names, map(float, values[:, 1, 2, 3]), strict=True))
    table = probe.profile((1, 2, 3), axis=2)
    for name, channel in zip(names, values, strict=True):
        np.testing.assert_array_equal(table[f"p {name}"], channel[1, 2])


@settings(deadline=None, max_examples=30)
@given(prediction=cases(), data=st.data(), axis=st.integers(0, 2))
def test_a_profile_reads_each_voxel_of_the_axis(prediction, data, axis):
    shape = prediction.mask.shape
    voxel = data.draw(st.tuples(*[st.integers(0, n - 1) for n in shape]))
    probe = Probe(prediction)
    table = probe.profile(voxel, axis)
    assert len(table) == shape[axis]
    np.testing.assert_array_equal(table["zyx"[axis]], np.arange(shape[axis]))
    line = list(voxel)
    line[axis] = slice(None)
    np.testing.assert_array_equal(table["label"], prediction.mask[tuple(line)])
    for gate in prediction.gates:
        column = table[table.attrs["gates"][gate.name]]
        np.testing.assert_array_equal(column, upsampled(gate, shape)[tuple(line)])
    step = np.linalg.norm(prediction.volume.index_to_world[:3, axis])
    np.testing.assert_allclose(table["distance"], step * np.arange(shape[axis]), atol=1e-9)
    assert table.attrs["units"] == "mm"


def test_a_line_with_a_corner_is_measured_along_itself():
    ramp = np.arange(10.0, dtype=np.float32)[:, None, None] + np.zeros((10, 10, 10), np.float32)
    prediction = prediction_of(np.zeros((10, 10, 10), np.uint8), gate_of(ramp), spacing=(3, 1, 1))
    table = Probe(prediction, "linear").along([(0, 0, 0), (4, 3, 0), (4, 3, 6)])
    assert table["distance"].iloc[-1] == pytest.approx(np.hypot(12, 3) + 6)
    np.testing.assert_allclose(table["alpha g"], table["z"], atol=1e-5)
    steps = np.diff(table[["z", "y", "x"]].to_numpy(), axis=0)
    assert np.linalg.norm(steps, axis=1).max() <= 1 + 1e-9


def test_a_line_leaves_out_what_is_outside_and_keeps_its_distances():
    prediction = prediction_of(np.zeros((4, 4, 4), np.uint8), gate_of(np.ones((4, 4, 4))))
    table = Probe(prediction).along([(0, 0, -4), (0, 0, 8)])
    np.testing.assert_array_equal(table["x"], np.arange(4))
    np.testing.assert_array_equal(table["distance"], np.arange(4, 8))
    with pytest.raises(InputError, match="nothing inside the volume"):
        Probe(prediction).along([(9, 9, 9), (12, 9, 9)])
    with pytest.raises(InputError, match="two corners or more"):
        Probe(prediction).along([(0, 0, 0)])
