from __future__ import annotations

import pytest
import torch
from engine_networks import Taken, finished
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_attention_unet.engine.flips import Mirrored, mirror_line, passes, run_mirrored
from napari_attention_unet.engine.plan import Plan, make_plan
from napari_attention_unet.engine.run import Course
from napari_attention_unet.engine.stream import TensorPlanes
from napari_attention_unet.engine.whole import run_whole


def test_every_combination_is_a_pass():
    assert passes(()) == [()]
    assert passes((2,)) == [(), (2,)]
    assert passes((2, 0)) == [(), (0,), (2,), (0, 2)]
    assert len(passes((0, 1, 2))) == 8


@pytest.mark.parametrize("axes", [(), (0,), (1, 2), (0, 1, 2)])
def test_boxes_of_a_mirrored_volume(axes):
    x = torch.rand(1, 2, 5, 6, 7)
    truth = x.flip([2 + axis for axis in axes])
    box = (slice(1, 4), slice(0, 5), slice(3, 7))
    assert torch.equal(Mirrored(TensorPlanes(x), axes).read(box), truth[(..., *box)])


@settings(deadline=None)
@given(size=st.integers(1, 20), stride=st.sampled_from([1, 2, 4]))
def test_symmetric_grids_are_reversed(size, stride):
    line = mirror_line(size, stride, (stride - 1) / 2, size * stride)
    assert torch.equal(line, torch.eye(size).flip(0))


@settings(deadline=None)
@given(size=st.integers(2, 20), stride=st.sampled_from([2, 4, 8]))
def test_grids_to_one_side_are_interpolated(size, stride):
    """A straight line over the volume stays one, but for the sample beyond the mirrored ones."""
    line = mirror_line(size, stride, 0.0, size * stride)
    torch.testing.assert_close(line.sum(1), torch.ones(size))
    places = torch.arange(size) * float(stride)
    seen = size * stride - 1 - places  # what samples of the mirrored volume lie at
    torch.testing.assert_close((line @ seen)[1:], places[1:])


@pytest.mark.parametrize("wish", ["whole", "stream", "tiles"])
@pytest.mark.parametrize("on_disk", [False, True])
def test_the_mean_of_all_mirror_images(blog_net, wish, on_disk):
    x = blog_net.input((4, 3, 2))
    extent = tuple(x.shape[2:])
    program = blog_net.program
    plan = make_plan(program, extent, 1 << 50, wish)
    if wish == "tiles":  # a single tile: the whole, so that its mirror image is, too
        plan = make_plan(program, extent, 1 << 50, tile=(16, 12, 8))
    axes = (0, 2)
    truth = {name: torch.zeros_like(v) for name, v in blog_net.truth(x).items()}
    for combination in passes(axes):
        dims = [2 + axis for axis in combination]
        results, _ = finished(run_whole(program, x.flip(dims)))
        for name, value in results.items():
            truth[name] += value.flip(dims) / 4
    course, taken = Course(program, plan), Taken(program, extent)
    steps = run_mirrored(
        course, TensorPlanes(x), taken, lambda *_: program, {}, axes, on_disk=on_disk
    )
    _, seen = finished(steps)
    for name, value in truth.items():
        torch.testing.assert_close(taken.values[name], value, rtol=1e-5, atol=1e-5)
    assert not any(isinstance(step, Plan) for step in seen)
    assert sum(step.work for step in seen) == pytest.approx(4 * plan.work, rel=1e-6)
    assert {step.message[:11] for step in seen if "pass" in step.message} == {
        f"pass {n} of 4" for n in (1, 2, 3, 4)
    }
    plain, _ = finished(run_whole(program, x))
    assert (plain[blog_net.graph.output] - taken.values[blog_net.graph.output]).abs().max() > 1e-3


def test_given_maps_are_mirrored_as_well(blog_net):
    """A map that opens one side: with it each image is its own, and the mean lies as given."""
    x = blog_net.input((4, 2, 2))
    extent = tuple(x.shape[2:])
    gate = blog_net.graph.gate("att1").node
    given_map = torch.zeros(blog_net.graph.shape_at(gate, extent))
    given_map[:, :, :5] = 1
    plan = make_plan(blog_net.program, extent, 1 << 50)
    course, taken = Course(blog_net.program, plan), Taken(blog_net.program, extent)
    finished(run_mirrored(course, TensorPlanes(x), taken, None, {gate: given_map}, (0,)))
    torch.testing.assert_close(taken.values[gate], given_map)
    one, _ = finished(run_whole(blog_net.program, x, {gate: given_map}))
    other, _ = finished(run_whole(blog_net.program, x.flip(2), {gate: given_map.flip(2)}))
    output = blog_net.graph.output
    truth = (one[output] + other[output].flip(2)) / 2
    torch.testing.assert_close(taken.values[output], truth, rtol=1e-5, atol=1e-5)
