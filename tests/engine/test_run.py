from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from engine_networks import Taken, finished, in_tiles
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_attention_unet.engine import run as engine
from napari_attention_unet.engine.plan import Plan, make_plan
from napari_attention_unet.engine.run import Course, run
from napari_attention_unet.engine.stream import TensorPlanes
from napari_attention_unet.engine.whole import run_whole
from napari_attention_unet.errors import MemoryBudgetError, NotFiniteError
from napari_attention_unet.graph.lower import lower

CPU = torch.device("cpu")
EXTENT = (96, 8, 8)


class Careful(Taken):
    """Refuses what is not finite, as a run's receiver does."""

    def __call__(self, name, start, values):
        if not values.isfinite().all():
            raise NotFiniteError(name)
        super().__call__(name, start, values)


def course_of(network, wish="auto", extent=EXTENT):
    return Course(network.program, make_plan(network.program, extent, 1 << 50, wish))


@pytest.fixture
def course(blog_net):
    return course_of(blog_net)


def running(course, x, lowered=None, imposed=None, taken=None):
    taken = taken or Careful(course.program, tuple(x.shape[2:]))
    _, seen = finished(run(course, TensorPlanes(x), taken, lowered, imposed))
    return taken.values, seen


def assert_same(result, truth, **tolerance):
    assert result.keys() == truth.keys()
    for name, value in truth.items():
        torch.testing.assert_close(result[name], value, **(tolerance or {"rtol": 0, "atol": 0}))


@pytest.mark.parametrize("wish", ["whole", "stream", "tiles"])
def test_as_planned(blog_net, wish):
    course = course_of(blog_net, wish)
    x = blog_net.input((24, 2, 2))
    result, seen = running(course, x)
    truth, _ = finished(run_whole(blog_net.program, x))
    if course.plan.kind == "tiles":
        truth, _ = in_tiles(blog_net.program, x, course.plan.tiling)
    assert_same(result, truth, rtol=1e-5, atol=1e-5)
    assert not course.notes
    assert not any(isinstance(step, Plan) for step in seen)
    assert sum(step.work for step in seen) == pytest.approx(course.plan.work, rel=1e-6)


def test_parts_of_the_plane_are_put_together(blog_net):
    extent = (16, 600, 8)
    x = blog_net.input((4, 150, 2))
    budget = make_plan(blog_net.program, extent, 1 << 50, "stream").memory
    plan = make_plan(blog_net.program, extent, budget, "stream")
    while plan.stream.parts == 1:
        budget = budget * 3 // 4
        plan = make_plan(blog_net.program, extent, budget, "stream")
    result, _ = running(Course(blog_net.program, plan), x)
    truth, _ = finished(run_whole(blog_net.program, x))
    assert_same(result, truth, rtol=1e-5, atol=1e-5)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    wish=st.sampled_from(["whole", "stream", "tiles"]),
    done=st.tuples(st.integers(0, 400), st.integers(0, 400), st.integers(0, 200)),
)
def test_goes_on_from_any_planes(blog_net, wish, done):
    """As after a stop: each result lacks another number of planes."""
    extent = (400, 8, 8)
    x = blog_net.input((100, 2, 2))
    truth, _ = running(course_of(blog_net, wish, extent), x)
    taken = Careful(blog_net.program, extent)
    for (name, value), count in zip(truth.items(), done, strict=True):
        count = min(count, value.shape[2])
        taken.values[name][:, :, :count] = value[:, :, :count]
        taken.taken[name] = count
    result, seen = running(course_of(blog_net, wish, extent), x, taken=taken)
    assert_same(result, truth, rtol=1e-5, atol=1e-6)
    if min(done[:2]) >= 300 and done[2] >= 150 and wish != "tiles":
        all_of_it = make_plan(blog_net.program, extent, 1 << 50, wish).work
        assert sum(step.work for step in seen) < 0.7 * all_of_it


def test_networks_that_look_everywhere_go_on_from_the_start(statistics_net):
    extent = tuple(8 * s for s in statistics_net.graph.stride)
    x = statistics_net.input((8, 8, 8))
    truth, _ = running(course_of(statistics_net, "stream", extent), x)
    taken = Careful(statistics_net.program, extent)
    for name, value in truth.items():
        half = value.shape[2] // 2
        taken.values[name][:, :, :half] = value[:, :, :half]
        taken.taken[name] = half
    result, _ = running(course_of(statistics_net, "stream", extent), x, taken=taken)
    assert_same(result, truth, rtol=1e-5, atol=1e-5)


def test_imposed_maps_with_holes_on_the_way(blog_net):
    extent = (400, 8, 8)
    x = blog_net.input((100, 2, 2))
    gate = blog_net.graph.gate("att2").node
    imposed = {gate: torch.rand(blog_net.graph.shape_at(gate, extent))}
    imposed[gate][:, :, 90:120] = float("nan")
    truth, _ = finished(run_whole(blog_net.program, x, imposed))
    for done in (0, 300):
        taken = Careful(blog_net.program, extent)
        for name, value in truth.items():
            count = done * value.shape[2] // extent[0]
            taken.values[name][:, :, :count] = value[:, :, :count]
            taken.taken[name] = count
        result, _ = running(course_of(blog_net, "stream", extent), x, None, imposed, taken)
        assert_same(result, truth, rtol=1e-5, atol=1e-5)


def test_out_of_memory_goes_on_where_it_is(blog_net, monkeypatch):
    """A stream that fails in its middle: nothing that was handed over is computed again."""
    x = blog_net.input((100, 2, 2))
    extent = tuple(x.shape[2:])
    real, handed = engine.run_stream, []

    def failing(program, planes, sink, plan, imposed):
        for step in real(program, planes, sink, plan, imposed):
            yield step
            if not handed and taken.taken[blog_net.graph.output]:
                handed.append(dict(taken.taken))
                raise MemoryBudgetError("a plane of it does not fit")

    monkeypatch.setattr(engine, "run_stream", failing)
    course = course_of(blog_net, "stream", extent)
    taken = Careful(blog_net.program, extent)
    result, seen = running(course, x, taken=taken)
    output = blog_net.graph.output
    assert 0 < handed[0][output] < extent[0]
    (note,) = course.notes
    assert note.startswith("Memory ran out on 'cpu'; run from plane ")
    assert note in [getattr(step, "message", "") for step in seen]
    assert [step for step in seen if isinstance(step, Plan)] == [course.plan]
    truth, _ = finished(run_whole(blog_net.program, x))
    if course.plan.kind == "stream":
        assert_same(result, truth, rtol=1e-5, atol=1e-5)
    done = handed[0][output]
    torch.testing.assert_close(
        result[output][:, :, :done], truth[output][:, :, :done], rtol=1e-5, atol=1e-5
    )


def test_out_of_memory_goes_down_from_the_whole(blog_net, course, monkeypatch):
    def no_memory(*args):
        yield engine.Progress(1.0)
        raise MemoryBudgetError("the whole does not fit")

    x = blog_net.input((24, 2, 2))
    monkeypatch.setattr(engine, "run_whole", no_memory)
    course.plan = make_plan(blog_net.program, EXTENT, 1 << 50, "whole")
    asked = course.plan.memory
    result, seen = running(course, x)
    assert course.plan.kind in ("stream", "tiles")
    assert course.plan.memory <= asked // 2
    assert course.notes[0].startswith("Memory ran out on 'cpu'; run again in smaller ")
    assert course.notes[0] in [getattr(step, "message", "") for step in seen]
    assert [step for step in seen if isinstance(step, Plan)] == [course.plan]
    assert not any(value.isnan().any() for value in result.values())


def test_the_last_rung_is_an_error_that_says_why(blog_net, course, monkeypatch):
    def no_memory(*args):
        raise MemoryBudgetError("a plane of it does not fit")
        yield

    for name in ("run_whole", "run_stream", "run_tiles"):
        monkeypatch.setattr(engine, name, no_memory)
    with pytest.raises(MemoryBudgetError, match="a plane of it does not fit"):
        running(course, blog_net.input((24, 2, 2)))
    assert course.notes
    assert all(note.startswith("Memory ran out on 'cpu'; run again") for note in course.notes)


def test_a_device_without_memory_hands_over_to_the_cpu(blog_net, course, monkeypatch):
    gpu = torch.device("cuda", 0)
    course.program = replace(blog_net.program, device=gpu, dtype=torch.float16)
    asked = []

    def lowered(device, dtype):
        asked.append((device, dtype))
        return blog_net.program

    real = engine._Ladder._as_planned

    def planned(self, program, *args):
        if program.device == gpu:
            raise MemoryBudgetError("nothing fits")
        return real(self, program, *args)

    monkeypatch.setattr(engine._Ladder, "_as_planned", planned)
    monkeypatch.setattr(engine, "release", lambda device: None)
    x = blog_net.input((24, 2, 2))
    result, _ = running(course, x, lowered)
    assert asked == [(CPU, torch.float32)]
    assert course.notes[-1] == "Memory ran out on 'cuda:0'; run again on the CPU."
    whole, _ = finished(run_whole(blog_net.program, x))
    assert_same(result, whole, rtol=1e-5, atol=1e-5)


class Overflowing(Careful):
    """As if the network overflowed in bfloat16 over some planes of the output."""

    def __init__(self, course, extent, planes):
        super().__init__(course.program, extent)
        self.course, self.planes, self.wide = course, planes, False

    def __call__(self, name, start, values):
        inside = range(start[0], start[0] + values.shape[2])
        if name == self.program.graph.output and not self.wide and {*inside} & {*self.planes}:
            raise NotFiniteError(name)
        super().__call__(name, start, values)


@pytest.mark.parametrize("wish", ["whole", "stream", "tiles"])
def test_overflow_leads_to_float32_from_there_on(blog_net, wish, monkeypatch):
    x = blog_net.input((24, 2, 2))
    course = course_of(blog_net, wish)
    course.program = lower(blog_net.graph, CPU, torch.bfloat16)
    taken = Overflowing(course, EXTENT, range(40, 44))

    def lowered(device, dtype):
        taken.wide = True
        assert dtype == torch.float32
        return blog_net.program

    result, seen = running(course, x, lowered, taken=taken)
    assert course.program.dtype == torch.float32
    assert course.notes[0].startswith("bfloat16 overflowed in this network; it was run ")
    assert any(isinstance(step, Plan) for step in seen)
    output = blog_net.graph.output
    truth = blog_net.truth(x)[output]
    if course.plan.kind != "tiles":
        torch.testing.assert_close(
            result[output][:, :, 48:], truth[:, :, 48:], rtol=1e-5, atol=1e-5
        )


def test_a_slab_that_overflows_alone_is_redone_in_float32(blog_net):
    """In a stream long enough that the slab is worth it."""
    extent = (800, 8, 8)
    x = blog_net.input((200, 2, 2))
    course = course_of(blog_net, "stream", extent)
    narrow = course.program = lower(blog_net.graph, CPU, torch.bfloat16)
    taken = Overflowing(course, extent, range(200, 210))

    def lowered(device, dtype):
        taken.wide = True  # from here on it is float32 that computes these planes
        return blog_net.program

    result, _ = running(course, x, lowered, taken=taken)
    assert course.program is narrow
    (note,) = course.notes
    assert note.startswith("bfloat16 overflowed in planes ")
    start, stop = (int(word.strip(";")) for word in note.split() if word.strip(";").isdigit())
    assert start <= 200 < 210 <= stop
    output = blog_net.graph.output
    error = (result[output] - blog_net.truth(x)[output]).abs().amax((0, 1, 3, 4))
    assert error[200 : stop + 1].max() < 1e-5
    assert error[stop + 1 :].max() > 1e-4, "the rest is still in bfloat16"
    assert error.max() < 1


def test_not_finite_in_float32_is_an_error(blog_net, course):
    taken = Overflowing(course, EXTENT, range(10))
    with pytest.raises(NotFiniteError, match="gives NaN or infinite values"):
        running(course, blog_net.input((24, 2, 2)), taken=taken)
