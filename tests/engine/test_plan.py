from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from engine_networks import in_tiles
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_attention_unet.engine import plan as plans
from napari_attention_unet.engine import tiles
from napari_attention_unet.engine.device import GIB
from napari_attention_unet.engine.plan import make_plan, memory_budget
from napari_attention_unet.engine.whole import run_whole
from napari_attention_unet.errors import InputError, MemoryBudgetError
from napari_attention_unet.graph.lower import finished, lower


def test_whole_where_it_fits(network):
    extent = tuple(4 * s for s in network.graph.stride)
    plan = make_plan(network.program, extent, GIB)
    assert plan.kind == "whole"
    assert plan.tiling is None
    assert plan.memory <= GIB
    assert "the whole volume needs" in plan.reason
    assert "1 GiB may be used" in plan.reason


def test_a_large_volume_is_streamed_on_a_cpu(blog_net):
    plan = make_plan(blog_net.program, (128, 128, 64), 1 << 50)
    assert plan.kind == "stream"
    assert plan.reason.startswith("the fastest way: plane by plane, exact, in ")
    assert plan.memory < make_plan(blog_net.program, (128, 128, 64), 1 << 50, "whole").memory


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cells=st.tuples(*[st.integers(3, 60)] * 3), share=st.floats(0.05, 0.9))
def test_tiles_fit_the_budget(blog_net, cells, share):
    extent = tuple(4 * n for n in cells)
    needs = make_plan(blog_net.program, extent, 1 << 50, "whole").memory
    budget = int(needs * share)
    smallest = make_plan(blog_net.program, (4, 4, 4), 1 << 50).memory
    rows = 4 * 4 * (1 + 2 * (3 + 1 + 1 / 8)) * extent[1] * extent[2]
    if budget < rows + smallest:
        with pytest.raises(MemoryBudgetError, match="Even in the smallest tiles"):
            make_plan(blog_net.program, extent, budget, "tiles")
        return
    plan = make_plan(blog_net.program, extent, budget, "tiles")
    assert plan.kind == "tiles"
    assert plan.memory <= budget
    tiling = plan.tiling
    assert tiling is not None
    assert tiling.count > 1
    for axis, cuts in enumerate(tiling.axes):
        covered = [False] * extent[axis]
        for cut in cuts:
            covered[cut.keep_start : cut.keep_stop] = [True] * (cut.keep_stop - cut.keep_start)
        assert all(covered)
    assert plan.work == pytest.approx(
        make_plan(blog_net.program, extent, 1 << 50).work * tiling.voxels
        / (extent[0] * extent[1] * extent[2])
    )  # fmt: skip


def test_exact_tiles_where_the_reach_allows(blog_net):
    long = (4 * 240, 8, 8)
    needs = make_plan(blog_net.program, long, 1 << 50).memory
    plan = make_plan(blog_net.program, long, needs // 2, "tiles")
    assert plan.tiling.exact
    assert "exact margins" in plan.reason
    assert len(plan.tiling.axes[1]) == len(plan.tiling.axes[2]) == 1
    short = (24, 24, 24)
    needs = make_plan(blog_net.program, short, 1 << 50).memory
    plan = make_plan(blog_net.program, short, needs // 2, "tiles")
    assert not plan.tiling.exact
    assert "blended, an approximation" in plan.reason


def test_networks_that_look_everywhere_are_blended(statistics_net):
    plan = make_plan(statistics_net.program, (64, 16, 16), 1 << 50, "tiles")
    assert not plan.tiling.exact
    assert "the network looks at the whole volume" in plan.reason


def test_forced_plans(blog_net):
    extent = (96, 8, 8)
    whole = make_plan(blog_net.program, extent, 1 << 50, "whole")
    assert whole.kind == "whole"
    with pytest.raises(MemoryBudgetError, match=r"The whole volume needs .* use plan='auto'"):
        make_plan(blog_net.program, extent, whole.memory // 2, "whole")
    tiles = make_plan(blog_net.program, extent, 1 << 50, "tiles")
    assert tiles.kind == "tiles"
    assert tiles.tiling.count > 1
    assert "as asked for" in tiles.reason
    one = make_plan(blog_net.program, (4, 4, 4), 1 << 50, "tiles")  # nothing to cut
    assert one.tiling.count == 1


def test_a_plan_runs_as_it_says(blog_net):
    x = blog_net.input((160, 2, 2))
    extent = tuple(x.shape[2:])
    plan = make_plan(blog_net.program, extent, 1 << 50, "tiles")
    assert plan.tiling.exact
    result, _ = in_tiles(blog_net.program, x, plan.tiling)
    whole = finished(run_whole(blog_net.program, x))
    for name, value in whole.items():
        torch.testing.assert_close(result[name], value, rtol=1e-5, atol=1e-5)


def test_unknown_plans_say_what_works(blog_net):
    with pytest.raises(InputError, match=r"'auto', 'whole', 'stream', 'tiles'"):
        make_plan(blog_net.program, (8, 8, 8), GIB, "fast")


@pytest.fixture(scope="module")
def deep_plans(blog_net):
    """Whole and stream of a volume that is deep enough for streaming to need far less."""
    extent = (4 * 200, 32, 32)
    return (
        extent,
        make_plan(blog_net.program, extent, 1 << 50, "whole"),
        make_plan(blog_net.program, extent, 1 << 50, "stream"),
    )


def test_streaming_needs_less_and_is_taken_where_the_whole_does_not_fit(blog_net, deep_plans):
    extent, whole, stream = deep_plans
    assert stream.kind == "stream"
    assert stream.memory < whole.memory / 2
    assert "plane by plane, exact" in stream.reason
    automatic = make_plan(blog_net.program, extent, whole.memory - 1)
    assert automatic.kind == "stream"
    assert automatic.work == whole.work
    assert automatic.reason.startswith("the whole volume needs")


def test_too_little_for_streaming_leads_to_parts_of_the_plane_or_tiles(blog_net):
    wide = (64, 4 * 150, 32)
    one = make_plan(blog_net.program, wide, 1 << 50, "stream")
    assert one.stream.parts == 1
    budget = one.memory
    while (plan := make_plan(blog_net.program, wide, budget)).stream is not None:
        if plan.stream.parts > 1:
            break
        budget = budget * 3 // 4
    assert plan.memory <= budget
    assert plan.kind == "tiles" or "parts of the plane" in plan.reason


def test_an_operator_that_cannot_be_streamed_is_named(blog_net, monkeypatch):
    monkeypatch.setattr(plans, "streamable", lambda program: ("roll", "flip"))
    with pytest.raises(InputError, match=r"cannot be streamed because of roll, flip; use"):
        make_plan(blog_net.program, (96, 8, 8), 1 << 50, "stream")
    needs = make_plan(blog_net.program, (96, 8, 8), 1 << 50).memory
    plan = make_plan(blog_net.program, (96, 8, 8), needs * 2 // 3)
    assert plan.kind == "tiles"
    assert "it cannot be streamed because of roll, flip" in plan.reason


def test_what_a_run_holds_anyway_counts(blog_net):
    extent = (96, 8, 8)
    needs = make_plan(blog_net.program, extent, 1 << 50).memory
    assert make_plan(blog_net.program, extent, needs).kind == "whole"
    less = make_plan(blog_net.program, extent, needs, held=needs // 4)
    assert less.kind != "whole"
    assert needs // 4 < less.memory <= needs


def test_tiles_of_a_size(blog_net):
    plan = make_plan(blog_net.program, (40, 32, 24), 1 << 50, tile=(16, 16, 32))
    assert plan.kind == "tiles"
    assert plan.tiling.largest == (16, 16, 24)
    assert not plan.tiling.exact
    for cuts in plan.tiling.axes[:2]:
        steps = [b.start - a.start for a, b in itertools.pairwise(cuts)]
        assert max(steps) - min(steps) <= 4
    with pytest.raises(InputError, match=r"takes multiples of 4×4×4, such as 16×20×32"):
        make_plan(blog_net.program, (40, 32, 24), 1 << 50, tile=(16, 17, 32))


def test_imposed_gates_need_less(blog_net):
    extent = (32, 32, 32)
    full = make_plan(blog_net.program, extent, 1 << 50)
    gates = {
        gate.node: torch.ones(blog_net.graph.shape_at(gate.node, extent))
        for gate in blog_net.graph.gates
    }
    assert make_plan(blog_net.program, extent, 1 << 50, imposed=gates).work < full.work


def test_budget(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(plans, "free_memory", lambda device: 10 * GIB)
    assert memory_budget(cpu) == 8 * GIB
    assert memory_budget(cpu, 0.5) == GIB // 2


def test_a_network_of_one_size_is_run_in_tiles_of_it(blog_net):
    graph = replace(blog_net.graph, fixed=True, stride=(16, 16, 16))
    program = lower(graph, torch.device("cpu"), torch.float32)
    plan = make_plan(program, (32, 16, 48), 1 << 50)
    assert plan.kind == "tiles"
    assert not plan.tiling.exact
    assert "the network takes 16×16×16 voxels alone" in plan.reason
    for cuts, extent in zip(plan.tiling.axes, (32, 16, 48), strict=True):
        assert {cut.length for cut in cuts} == {16}
        assert all(cut.start % 2 == 0 for cut in cuts), "grids of half the size lie alike"
        assert (cuts[0].start, cuts[-1].stop) == (0, extent)
        assert all(b.start - a.start <= 8 for a, b in itertools.pairwise(cuts))
    x = torch.randn(1, 1, 32, 16, 48)
    sizes = set()
    with pytest.MonkeyPatch.context() as patch:
        real = tiles.run_whole

        def watched(program, piece, given):
            sizes.add(tuple(piece.shape[2:]))
            return real(program, piece, given)

        patch.setattr(tiles, "run_whole", watched)
        result, _ = in_tiles(program, x, plan.tiling)
    assert sizes == {(16, 16, 16)}
    assert all(value.isfinite().all() for value in result.values())
    assert make_plan(program, (16, 16, 16), 1 << 50).kind == "whole"
    for options in ({"wish": "stream"}, {"wish": "whole"}, {"tile": (8, 8, 8)}):
        with pytest.raises(InputError, match="This network takes 16×16×16 voxels"):
            make_plan(program, (32, 16, 48), 1 << 50, **options)
