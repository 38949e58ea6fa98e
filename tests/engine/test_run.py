from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from engine_networks import finished

from napari_attention_unet.engine import run as engine
from napari_attention_unet.engine.plan import Plan, make_plan
from napari_attention_unet.engine.run import Course, run
from napari_attention_unet.engine.tiles import run_tiles
from napari_attention_unet.engine.whole import run_whole
from napari_attention_unet.errors import MemoryBudgetError
from napari_attention_unet.graph.lower import lower

CPU = torch.device("cpu")


@pytest.fixture
def course(blog_net):
    return Course(blog_net.program, make_plan(blog_net.program, (96, 8, 8), 1 << 50))


def test_as_planned(blog_net, course):
    x = blog_net.input((24, 2, 2))
    result, seen = finished(run(course, x, None))
    whole, _ = finished(run_whole(blog_net.program, x))
    for name, value in whole.items():
        torch.testing.assert_close(result[name], value, rtol=0, atol=0)
    assert not course.notes
    assert not any(isinstance(step, Plan) for step in seen)


def test_out_of_memory_goes_down_to_smaller_tiles(blog_net, course, monkeypatch):
    def no_memory(*args):
        yield engine.Progress(1.0)
        raise MemoryBudgetError("the whole does not fit")

    x = blog_net.input((24, 2, 2))
    monkeypatch.setattr(engine, "run_whole", no_memory)
    asked = course.plan.memory
    result, seen = finished(run(course, x, None))
    assert course.plan.kind == "tiles"
    assert course.plan.memory <= asked // 2
    assert course.notes == ["Memory ran out on 'cpu'; run again in smaller tiles."]
    assert course.notes[0] in [getattr(step, "message", "") for step in seen]
    assert [step for step in seen if isinstance(step, Plan)] == [course.plan]
    truth, _ = finished(run_tiles(blog_net.program, x, course.plan.tiling))
    for name, value in truth.items():
        torch.testing.assert_close(result[name], value, rtol=1e-5, atol=1e-6)


def test_the_last_rung_is_an_error_that_says_why(blog_net, course, monkeypatch):
    def no_memory(*args):
        raise MemoryBudgetError("a plane of it does not fit")
        yield

    monkeypatch.setattr(engine, "run_whole", no_memory)
    monkeypatch.setattr(engine, "run_tiles", no_memory)
    with pytest.raises(MemoryBudgetError, match="a plane of it does not fit"):
        finished(run(course, blog_net.input((24, 2, 2)), None))
    assert course.notes == ["Memory ran out on 'cpu'; run again in smaller tiles."]


def test_a_device_without_memory_hands_over_to_the_cpu(blog_net, course, monkeypatch):
    gpu = torch.device("cuda", 0)
    course.program = replace(blog_net.program, device=gpu, dtype=torch.float16)
    asked = []

    def lowered(device, dtype):
        asked.append((device, dtype))
        return blog_net.program

    def planned(at, x, imposed):
        if at.program.device == gpu:
            raise MemoryBudgetError("nothing fits")
        return run_whole(at.program, x, imposed)

    monkeypatch.setattr(engine, "_as_planned", planned)
    monkeypatch.setattr(engine, "release", lambda device: None)
    x = blog_net.input((24, 2, 2))
    result, _ = finished(run(course, x, lowered))
    assert asked == [(CPU, torch.float32)]
    assert course.notes[-1] == "Memory ran out on 'cuda:0'; run again on the CPU."
    whole, _ = finished(run_whole(blog_net.program, x))
    for name, value in whole.items():
        torch.testing.assert_close(result[name], value, rtol=0, atol=0)


def test_overflow_in_reduced_precision_is_run_again_in_float32(blog_net, course, monkeypatch):
    course.program = lower(blog_net.graph, CPU, torch.bfloat16)

    def overflowing(program, x, imposed):
        result = yield from run_whole(program, x, imposed)
        if program.dtype != torch.float32:
            result[program.graph.output] = result[program.graph.output] / 0
        return result

    monkeypatch.setattr(engine, "run_whole", overflowing)
    x = blog_net.input((3, 3, 3))
    result, seen = finished(run(course, x, lambda device, dtype: blog_net.program))
    assert course.program.dtype == torch.float32
    assert course.notes == ["bfloat16 overflowed in this network; run again in float32."]
    assert any(isinstance(step, Plan) for step in seen)
    torch.testing.assert_close(result, blog_net.truth(x), rtol=1e-5, atol=1e-5)
