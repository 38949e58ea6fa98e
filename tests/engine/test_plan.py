from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_attention_unet.engine import plan as plans
from napari_attention_unet.engine.device import GIB
from napari_attention_unet.engine.plan import make_plan, memory_budget
from napari_attention_unet.engine.tiles import run_tiles
from napari_attention_unet.engine.whole import run_whole
from napari_attention_unet.errors import InputError, MemoryBudgetError
from napari_attention_unet.graph.lower import finished


def test_whole_where_it_fits(network):
    extent = tuple(4 * s for s in network.graph.stride)
    plan = make_plan(network.program, extent, GIB)
    assert plan.kind == "whole"
    assert plan.tiling is None
    assert plan.memory <= GIB
    assert "the whole volume needs" in plan.reason
    assert "1 GiB may be used" in plan.reason


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cells=st.tuples(*[st.integers(3, 60)] * 3), share=st.floats(0.05, 0.9))
def test_tiles_fit_the_budget(blog_net, cells, share):
    extent = tuple(4 * n for n in cells)
    needs = make_plan(blog_net.program, extent, 1 << 50).memory
    budget = int(needs * share)
    smallest = make_plan(blog_net.program, (4, 4, 4), 1 << 50).memory
    held = 4 * (1 + 3 + 1 + 1 / 8) * extent[0] * extent[1] * extent[2]
    if budget < held + smallest:
        with pytest.raises(MemoryBudgetError, match="Even in the smallest tiles"):
            make_plan(blog_net.program, extent, budget)
        return
    plan = make_plan(blog_net.program, extent, budget)
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
    plan = make_plan(blog_net.program, long, needs // 2)
    assert plan.tiling.exact
    assert "exact margins" in plan.reason
    assert len(plan.tiling.axes[1]) == len(plan.tiling.axes[2]) == 1
    short = (24, 24, 24)
    needs = make_plan(blog_net.program, short, 1 << 50).memory
    plan = make_plan(blog_net.program, short, needs // 2)
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
    result = finished(run_tiles(blog_net.program, x, plan.tiling))
    whole = finished(run_whole(blog_net.program, x))
    for name, value in whole.items():
        torch.testing.assert_close(result[name], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("wish", ["stream", "fast"])
def test_unknown_plans_say_what_works(blog_net, wish):
    with pytest.raises(InputError, match=r"'auto', 'whole', (or )?'tiles'"):
        make_plan(blog_net.program, (8, 8, 8), GIB, wish)


def test_imposed_gates_need_less(blog_net):
    extent = (32, 32, 32)
    full = make_plan(blog_net.program, extent, 1 << 50)
    gates = [gate.node for gate in blog_net.graph.gates]
    assert make_plan(blog_net.program, extent, 1 << 50, imposed=gates).work < full.work


def test_budget(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(plans, "free_memory", lambda device: 10 * GIB)
    assert memory_budget(cpu) == 8 * GIB
    assert memory_budget(cpu, 0.5) == GIB // 2
