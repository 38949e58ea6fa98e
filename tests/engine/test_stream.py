from __future__ import annotations

import gc
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from engine_networks import Ungated, finished, randomised
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from napari_attention_unet.engine import stream
from napari_attention_unet.engine.stream import TensorPlanes, run_stream, streamable
from napari_attention_unet.engine.stream_plan import (
    Blocks,
    make_schedule,
    plan_stream,
    results_of,
    spools,
    stream_bytes,
)
from napari_attention_unet.engine.stream_ring import Ring
from napari_attention_unet.engine.tiling import Reach, exact_cuts
from napari_attention_unet.errors import GraphError, MemoryBudgetError
from napari_attention_unet.graph.evaluate import run
from napari_attention_unet.graph.lower import lower
from napari_attention_unet.graph.operations import kernels
from napari_attention_unet.graph.trace import trace

CPU = torch.device("cpu")
few = settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
any_blocks = st.builds(Blocks, st.integers(1, 5), st.sampled_from([1, 7, 50, 1000]))
cells = st.tuples(st.integers(1, 7), st.integers(1, 3), st.integers(1, 3))


def streamed(program, x, imposed=None, budget=1 << 40, **changes):
    """All results, each voxel of which was delivered once; and the plan."""
    extent = tuple(x.shape[2:])
    plan = replace(plan_stream(program, extent, budget, imposed or ()), **changes)
    names = results_of(program)
    results = {n: torch.full(program.shape_at(n, extent), torch.nan) for n in names}

    def sink(name, start, values):
        assert values.dtype == torch.float32
        places = (slice(a, a + n) for a, n in zip(start, values.shape[2:], strict=True))
        part = results[name][(..., *places)]
        assert part.isnan().all()
        assert (
            start[0] == 0 or not results[name][:, :, start[0] - 1, start[1], start[2]].isnan().any()
        )
        part.copy_(values)

    finished(run_stream(program, TensorPlanes(x), sink, plan, imposed))
    return results, plan


def assert_same(results, truth, near=1e-5):
    assert results.keys() == truth.keys()
    for name, value in truth.items():
        away = (results[name] - value).abs().max()
        assert away <= near * max(1.0, float(value.abs().max())), name


@few
@given(shape=cells, blocks=any_blocks, seed=st.integers(0, 99))
def test_equals_the_modules_own_forward(network, shape, blocks, seed):
    x = network.input(shape, seed)
    assert streamable(network.program) == ()
    results, _ = streamed(network.program, x, blocks=blocks)
    assert_same(results, network.truth(x))


class Random(nn.Module):
    """Layers that a seed chooses: any kernel, stride, padding, dilation, groups, up and down."""

    def __init__(self, choices: list[tuple]) -> None:
        super().__init__()
        self.choices = choices
        self.layers = nn.ModuleList(self._layer(*choice) for choice in choices)
        self.psi, self.out = nn.Conv3d(4, 1, 1), nn.Conv3d(8, 2, 1)

    @staticmethod
    def _layer(kind: str, kernel: int, groups: int) -> nn.Module:
        same = kernel // 2
        return {
            "conv": lambda: nn.Conv3d(4, 4, kernel, padding=same, groups=groups),
            "dilated": lambda: nn.Conv3d(4, 4, 3, padding=2, dilation=2, groups=groups),
            "strided": lambda: nn.Conv3d(4, 4, 3, stride=2, padding=1),
            "wide": lambda: nn.Conv3d(4, 4, 4, stride=2, padding=1),
            "max": lambda: nn.MaxPool3d(2),
            "overlapping": lambda: nn.MaxPool3d(3, 2, 1),
            "mean": lambda: nn.AvgPool3d(2),
            "instance": lambda: nn.InstanceNorm3d(4),
            "group": lambda: nn.GroupNorm(groups, 4),
            "leaky": lambda: nn.LeakyReLU(0.1),
        }[kind]()

    def forward(self, x):
        x = x.expand(-1, 4, -1, -1, -1) * 1.0
        first = x
        for layer, (_, kernel, groups) in zip(self.layers, self.choices, strict=True):
            before = x
            x = layer(x)
            if x.shape[2:] != before.shape[2:]:
                mode, corners = [("nearest", None), ("trilinear", False), ("trilinear", True)][
                    kernel // 2
                ]
                x = F.interpolate(x, size=before.shape[2:], mode=mode, align_corners=corners)
            elif groups == 2:
                x = x + before  # a residual waits beside its branch
        x = torch.cat((torch.sigmoid(self.psi(x)) * x, first), 1)
        return self.out(x)


kinds = ["conv", "dilated", "strided", "wide", "max", "overlapping", "mean", "instance", "group"]


@settings(max_examples=15, deadline=None)
@given(
    choices=st.lists(
        st.tuples(
            st.sampled_from([*kinds, "leaky"]), st.sampled_from([1, 3, 5]), st.sampled_from([1, 2])
        ),
        min_size=1,
        max_size=5,
    ),
    blocks=any_blocks,
    depth=st.integers(5, 9),
)
def test_any_mix_of_layers(choices, blocks, depth):
    graph = trace(randomised(Random(choices)), 1)
    program = lower(graph, CPU, torch.float32)
    assert streamable(program) == ()
    x = torch.randn(1, 1, *(n * s for n, s in zip((depth, 4, 3), graph.stride, strict=True)))
    output, gates = run(graph, x)
    truth = {graph.output: output, **{g.node: gates[g.name][None, None] for g in graph.gates}}
    results, _ = streamed(program, x, blocks=blocks)
    assert_same(results, truth, 1e-4)


@pytest.mark.parametrize("name", ["blog", "mixed"])
def test_parts_of_the_plane(name, request):
    """Cut along y and x, with exact margins: the same, delivered part by part."""
    network = request.getfixturevalue(f"{name}_net")
    x = network.input((2, 20, 24))
    extent = tuple(x.shape[2:])
    reach = Reach(network.program, network.program.needed(results_of(network.program)))
    cuts = (exact_cuts(reach, extent, 1, 2), exact_cuts(reach, extent, 2, 3))
    assert cuts[0][0].length < extent[1]
    results, plan = streamed(network.program, x, cuts=cuts)
    assert plan.parts == 6
    assert_same(results, network.truth(x))


def test_a_plane_that_does_not_fit_is_cut(blog_net):
    x = blog_net.input((2, 24, 24))
    extent = tuple(x.shape[2:])
    least = replace(plan_stream(blog_net.program, extent, 1 << 40), blocks=Blocks(1, 1))
    whole = stream_bytes(blog_net.program, extent, least)
    plan = plan_stream(blog_net.program, extent, whole - 1)
    assert plan.parts > 1
    assert plan.memory <= whole - 1
    results, _ = streamed(blog_net.program, x, budget=whole - 1)
    assert_same(results, blog_net.truth(x))
    with pytest.raises(MemoryBudgetError, match="Streaming needs"):
        plan_stream(blog_net.program, extent, 1000)


def test_statistics_wait_on_disk(statistics_net):
    x = statistics_net.input((6, 3, 4))
    results, plan = streamed(statistics_net.program, x, on_disk=True)
    assert_same(results, statistics_net.truth(x))
    in_memory = stream_bytes(
        statistics_net.program, tuple(x.shape[2:]), replace(plan, on_disk=False)
    )
    assert stream_bytes(statistics_net.program, tuple(x.shape[2:]), plan) < in_memory


def test_without_onednn(blog_net, monkeypatch):
    monkeypatch.setattr(kernels, "_chosen", {})
    monkeypatch.setattr(kernels, "_trial", lambda *args: kernels.plain)
    x = blog_net.input((3, 2, 2))
    results, _ = streamed(lower(blog_net.graph, CPU, torch.float32), x)
    assert_same(results, blog_net.truth(x))


def test_reduced_precision_is_near(blog_net):
    x = blog_net.input((6, 5, 4))
    truth = blog_net.truth(x)
    results, _ = streamed(lower(blog_net.graph, CPU, torch.bfloat16), x)
    for gate in blog_net.graph.gates:
        assert (results[gate.node] - truth[gate.node]).abs().max() < 0.03
    output = blog_net.graph.output
    assert (results[output].argmax(1) == truth[output].argmax(1)).float().mean() > 0.98


@pytest.mark.parametrize("whole", [True, False])
def test_imposed_gates(blog_net, whole):
    x = blog_net.input((3, 2, 3))
    graph = blog_net.graph
    gate = graph.gate("att1")
    values = torch.rand(graph.shape_at(gate.node, tuple(x.shape[2:])))
    forced = values.clone()
    if not whole:
        forced[:, :, 2:5, 3:] = torch.nan
    hook = blog_net.module.att1.psi.register_forward_hook(
        lambda module, inputs, output: torch.where(forced.isnan(), output, forced)
    )
    with torch.no_grad():
        truth = blog_net.module(x)
    hook.remove()
    results, _ = streamed(blog_net.program, x, {gate.node: forced})
    torch.testing.assert_close(results[graph.output], truth, rtol=1e-5, atol=1e-5)
    given_part = ~forced.isnan()
    assert (results[gate.node][given_part] == values[given_part]).all()
    assert not results[gate.node].isnan().any()


def test_what_cannot_be_streamed_is_named():
    class Flipped(Ungated):
        def forward(self, x):
            return super().forward(x.flip(2))

    program = lower(trace(randomised(Flipped()), 1), CPU, torch.float32)
    assert streamable(program) == ("flip",)
    x = torch.zeros(1, 1, 8, 8, 8)
    with pytest.raises(GraphError, match=r"because of: flip\. Use plan='whole'"):
        streamed(program, x)


def test_buffers_do_not_grow_with_depth(blog_net):
    """What is allocated is what was estimated, whatever the depth beyond the skips' lag."""
    program, held = blog_net.program, []
    for depth in (512, 2048):
        extent = (depth, 8, 8)
        plan = plan_stream(program, extent, 1 << 40)
        held.append(stream_bytes(program, extent, plan))
    assert held[1] <= 1.02 * held[0]


def test_the_estimate_is_honest(network, monkeypatch):
    """Of the buffers: all that are there at the same time."""
    made, worst = [], [0]
    begin = stream._Stream._begin

    def watched(self, stage, folder):
        begin(self, stage, folder)
        worst[0] = max(worst[0], sum(ring.nbytes for ring in self.rings.values()))
        made.append(stage)

    monkeypatch.setattr(stream._Stream, "_begin", watched)
    x = network.input((9, 2, 2))
    _, plan = streamed(network.program, x)
    estimate = stream_bytes(network.program, tuple(x.shape[2:]), plan)
    assert made
    assert worst[0] <= estimate <= 4 * worst[0]


def test_stages_keep_what_later_ones_read(statistics_net):
    schedule, stages = make_schedule(statistics_net.program, (8, 8, 8), Blocks(1, 1))
    # instance norm, group norm, squeeze, softmax: four barriers
    assert len(schedule.steps) == 5
    assert {group.stage for group in stages.groups} == set(range(5))
    for buffer in schedule.buffers.values():
        whole = buffer.depth + buffer.before + buffer.after
        assert not spools(buffer) or buffer.capacity == whole


@settings(max_examples=60, deadline=None)
@given(
    depth=st.integers(1, 30), before=st.integers(0, 3), after=st.integers(0, 3),
    reads=st.integers(1, 5), writes=st.integers(1, 6), room=st.integers(0, 4),
)  # fmt: skip
def test_every_range_of_a_ring_is_what_was_written(depth, before, after, reads, writes, room):
    """Written in pieces of one size, read in ranges of another as soon as they are there."""
    longest = max(reads, writes, before, after)
    capacity = reads + writes + before + after + room
    ring = Ring((1, 2, depth, 3, 2), before, after, capacity, longest, torch.float32, CPU)
    value = torch.arange(depth * 12.0).view(1, 2, depth, 3, 2) + 1
    padded = F.pad(value, (0, 0, 0, 0, before, after))
    read = -before
    for start in range(0, depth, writes):
        stop = min(start + writes, depth)
        ring.planes(start, stop).copy_(value[:, :, start:stop])
        ring.keep(start, stop)
        there = stop + (after if stop == depth else 0)
        while read + reads <= there:
            got = ring.planes(read, read + reads)
            assert got.permute(0, 2, 3, 4, 1).is_contiguous()
            assert torch.equal(got, padded[:, :, read + before : read + before + reads])
            read += 1


def test_out_of_memory_goes_on_with_smaller_blocks(blog_net, monkeypatch):
    act, messages = stream._Stream._act, []

    def small_memory(self, action, start, stop, made):
        if stop - start > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: 12 bytes")
        act(self, action, start, stop, made)

    monkeypatch.setattr(stream._Stream, "_act", small_memory)
    x = blog_net.input((3, 2, 2))
    results, _ = streamed(blog_net.program, x)
    assert_same(results, blog_net.truth(x))
    plan = plan_stream(blog_net.program, tuple(x.shape[2:]), 1 << 40)
    steps = run_stream(blog_net.program, TensorPlanes(x), lambda *part: None, plan)
    messages = [step.message for step in steps if "memory ran out" in step.message]
    assert messages


def test_out_of_memory_for_a_single_plane_is_an_error(blog_net, monkeypatch):
    def no_memory(self, *args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(stream._Stream, "_act", no_memory)
    with pytest.raises(MemoryBudgetError, match="for a single plane"):
        streamed(blog_net.program, blog_net.input((2, 2, 2)))


def test_work_adds_up(network):
    x = network.input((3, 2, 2))
    extent = tuple(x.shape[2:])
    plan = plan_stream(network.program, extent, 1 << 40)
    steps = run_stream(network.program, TensorPlanes(x), lambda *part: None, plan)
    assert sum(step.work for step in steps) == pytest.approx(plan.work, rel=0.02)


def test_closing_frees_everything_at_once(statistics_net):
    x = statistics_net.input((4, 4, 4))
    plan = plan_stream(statistics_net.program, tuple(x.shape[2:]), 1 << 40)
    steps = run_stream(statistics_net.program, TensorPlanes(x), lambda *part: None, plan)
    for _ in range(5):
        next(steps)
    gc.collect()
    assert any(type(thing) is Ring for thing in gc.get_objects())
    gc.disable()
    try:
        steps.close()
        assert not any(type(thing) is Ring for thing in gc.get_objects())
    finally:
        gc.enable()
