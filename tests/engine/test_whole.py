from __future__ import annotations

import gc
import weakref

import pytest
import torch
from engine_networks import finished
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_attention_unet.engine import whole
from napari_attention_unet.engine.plan import peak_bytes
from napari_attention_unet.engine.whole import Execution, run_whole
from napari_attention_unet.errors import MemoryBudgetError


def assert_same(result, truth):
    assert result.keys() == truth.keys()
    for name, value in truth.items():
        assert result[name].dtype == torch.float32
        # statistics of a few voxels may divide by a small spread: relative to the largest value
        assert (result[name] - value).abs().max() <= 1e-5 * max(1.0, float(value.abs().max()))


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cells=st.tuples(*[st.integers(1, 4)] * 3), seed=st.integers(0, 99))
def test_equals_the_modules_own_forward(network, cells, seed):
    x = network.input(cells, seed)
    result, _ = finished(run_whole(network.program, x))
    assert_same(result, network.truth(x))


def test_does_not_depend_on_the_slabs(network, monkeypatch):
    x = network.input((3, 2, 2))
    truth = network.truth(x)
    monkeypatch.setattr(Execution, "_planes", lambda self, op, work: 1)
    result, steps = finished(run_whole(network.program, x))
    assert_same(result, truth)
    assert len(steps) > 3 * len(network.program.operations)


def test_work_adds_up(network):
    x = network.input((2, 2, 2))
    execution = Execution(network.program, x, {})
    shape_at = network.program.shape_at
    extent = tuple(x.shape[2:])
    total = sum(
        op.work(shape_at(op.name, extent), [shape_at(n, extent) for n in op.inputs])
        for op in execution.operations
    )
    _, steps = finished(run_whole(network.program, x))
    assert sum(step.work for step in steps) == pytest.approx(total)


def test_slabs_take_the_time_they_should(blog_net, monkeypatch):
    """On a clock that runs by the work that is done."""
    program, target, speed = blog_net.program, 2e-3, 3e9
    program.rates.clear()
    clock, slabs = [0.0], []
    run_slab = Execution._fits

    def timed(self, op, do, start, stop):
        shape, *inputs = [program.shape_at(n, self.extent) for n in (op.name, *op.inputs)]
        seconds = op.work(shape, inputs) * (stop - start) / shape[2] / speed
        clock[0] += seconds
        slabs.append((seconds, stop - start, start == 0, stop == shape[2]))
        return run_slab(self, op, do, start, stop)

    monkeypatch.setattr(Execution, "_fits", timed)
    monkeypatch.setattr(whole, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(whole, "TARGET", target)
    finished(run_whole(program, blog_net.input((16, 4, 4))))
    program.rates.clear()
    assert all(seconds <= 1.01 * target or planes == 1 for seconds, planes, *_ in slabs)
    # and they are not needlessly short, once the speed is known
    inner = [s for s, _, first, last in slabs if not first and not last]
    assert len(inner) > 10
    assert min(inner) > 0.5 * target


def test_frees_each_value_after_its_last_use(network):
    x = network.input((2, 3, 2))
    held = []
    execution = Execution(network.program, x, {})
    for op in execution.operations:
        for _ in execution.run(op):
            pass
        storages = {}
        for value in execution.values.values():
            storage = value.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        held.append(sum(storages.values()))
        execution.forget(op)
    assert not execution.values
    extent = tuple(x.shape[2:])
    estimate = peak_bytes(network.program, execution.operations, execution.wanted, extent)
    results = sum(
        4 * torch.Size(network.program.shape_at(n, extent)).numel() for n in execution.wanted
    )
    assert max(held) <= estimate <= max(held) + results + 1000


def test_closing_frees_everything_at_once(blog_net, monkeypatch):
    made = []
    original = Execution._keep

    def keep(self, op, value):
        made.append(weakref.ref(value))
        original(self, op, value)

    monkeypatch.setattr(Execution, "_keep", keep)
    gc.collect()
    gc.disable()
    try:
        steps = run_whole(blog_net.program, blog_net.input((4, 4, 4)))
        for _ in range(14):
            next(steps)
        assert sum(ref() is not None for ref in made) >= 2
        steps.close()
        assert not any(ref() is not None for ref in made)
    finally:
        gc.enable()


@pytest.mark.parametrize("value", [0.0, 1.0, 0.25])
def test_imposed_number(blog_net, value):
    """Against the module with a hook that puts the number where the sigmoid was."""
    x = blog_net.input((2, 3, 2))
    graph, module = blog_net.graph, blog_net.module
    gate = graph.gate("att2")
    shape = graph.shape_at(gate.node, tuple(x.shape[2:]))
    hook = module.att2.psi.register_forward_hook(lambda m, i, o: torch.full_like(o, value))
    with torch.no_grad():
        truth = module(x)
    hook.remove()
    result, _ = finished(run_whole(blog_net.program, x, {gate.node: torch.full(shape, value)}))
    torch.testing.assert_close(result[graph.output], truth, rtol=1e-5, atol=1e-5)
    assert (result[gate.node] == value).all()


def test_imposed_map_with_holes(blog_net):
    x = blog_net.input((2, 2, 3))
    graph, module = blog_net.graph, blog_net.module
    gate = graph.gate("att1")
    given_map = torch.rand(graph.shape_at(gate.node, tuple(x.shape[2:])))
    given_map[..., 3:] = float("nan")

    def impose(_module, _inputs, output):
        return torch.where(given_map.isnan(), output, given_map)

    hook = module.att1.psi.register_forward_hook(impose)
    with torch.no_grad():
        truth = module(x)
    hook.remove()
    result, _ = finished(run_whole(blog_net.program, x, {gate.node: given_map}))
    torch.testing.assert_close(result[graph.output], truth, rtol=1e-5, atol=1e-5)
    assert not result[gate.node].isnan().any()


def test_what_leads_to_an_imposed_gate_alone_is_not_run(blog_net):
    gate = blog_net.graph.gate("att1").node
    shape = blog_net.graph.shape_at(gate, (8, 8, 8))
    execution = Execution(blog_net.program, torch.zeros(1, 1, 8, 8, 8), {gate: torch.ones(shape)})
    run = {op.name for op in execution.operations}
    everything = {op.name for op in blog_net.program.operations}
    # W_g and W_x with their sum's ReLU, psi, and the sigmoid
    assert len(everything - run) == 3
    assert gate not in run


def test_out_of_memory_goes_on_with_smaller_slabs(blog_net, monkeypatch):
    x = blog_net.input((4, 2, 2))
    truth = blog_net.truth(x)
    blog_net.program.rates.clear()
    monkeypatch.setattr(whole, "_FIRST_GUESS", 1e15)
    conv = next(op for op in blog_net.program.operations if op.inputs == (blog_net.graph.input,))
    compute = Execution._compute

    def small_memory(self, op, start, stop):
        if op is conv and stop - start > 3:
            raise RuntimeError(
                "[enforce fail] DefaultCPUAllocator: can't allocate memory: 12 bytes"
            )
        return compute(self, op, start, stop)

    monkeypatch.setattr(Execution, "_compute", small_memory)
    result, steps = finished(run_whole(blog_net.program, x))
    assert_same(result, truth)
    messages = [step.message for step in steps if "memory ran out" in step.message]
    assert [m.split(" with ")[1] for m in messages] == [
        "8 planes at once", "4 planes at once", "2 planes at once"
    ]  # fmt: skip


def test_out_of_memory_for_a_single_plane_is_an_error(blog_net, monkeypatch):
    def no_memory(self, op, start, stop):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Execution, "_compute", no_memory)
    with pytest.raises(MemoryBudgetError, match=r"Memory ran out in 'encoder1.*plan='tiles'"):
        finished(run_whole(blog_net.program, blog_net.input((2, 2, 2))))


def test_other_errors_pass(blog_net, monkeypatch):
    def broken(self, op, start, stop):
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(Execution, "_compute", broken)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        finished(run_whole(blog_net.program, blog_net.input((2, 2, 2))))
