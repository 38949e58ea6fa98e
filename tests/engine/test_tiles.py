from __future__ import annotations

import itertools

import pytest
import torch
from engine_networks import Taken, finished, in_tiles
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_attention_unet.engine import tiles
from napari_attention_unet.engine.stream import TensorPlanes
from napari_attention_unet.engine.tiles import gaussian
from napari_attention_unet.engine.tiling import Reach, Tiling, blended_cuts, exact_cuts
from napari_attention_unet.engine.whole import run_whole
from napari_attention_unet.errors import MemoryBudgetError

few = settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def exact_tiling(network, extent, parts):
    reach = Reach(network.program, network.program.operations)
    assert reach.bounded
    z, y, x = (exact_cuts(reach, extent, axis, n) for axis, n in enumerate(parts))
    return Tiling((z, y, x), exact=True)


@pytest.mark.parametrize("name", ["blog_net", "mixed_net"])
@few
@given(cells=st.tuples(*[st.integers(2, 6)] * 3), data=st.data())
def test_exact_tiles_equal_the_whole(name, request, cells, data):
    network = request.getfixturevalue(name)
    x = network.input(cells)
    extent = tuple(x.shape[2:])
    parts = data.draw(st.tuples(*[st.integers(1, min(3, n)) for n in cells]))
    tiling = exact_tiling(network, extent, parts)
    assert tiling.count == parts[0] * parts[1] * parts[2]
    result, _ = in_tiles(network.program, x, tiling)
    whole, _ = finished(run_whole(network.program, x))
    assert result.keys() == whole.keys()
    for key, value in whole.items():
        torch.testing.assert_close(result[key], value, rtol=1e-5, atol=1e-5)


def test_a_margin_too_small_would_show(blog_net):
    """The test above can fail: with half the margins the maps differ."""
    x = blog_net.input((24, 2, 2))
    extent = tuple(x.shape[2:])
    tiling = exact_tiling(blog_net, extent, (3, 1, 1))
    first, middle, last = tiling.axes[0]
    less = type(middle)(
        (middle.start + middle.keep_start) // 8 * 4,
        middle.stop,
        middle.keep_start,
        middle.keep_stop,
    )
    assert less.start > middle.start
    result, _ = in_tiles(blog_net.program, x, Tiling(((first, less, last), *tiling.axes[1:]), True))
    whole, _ = finished(run_whole(blog_net.program, x))
    output = blog_net.graph.output
    assert (result[output] - whole[output]).abs().max() > 1e-5


@pytest.mark.parametrize("name", ["blog_net", "mixed_net"])
def test_reach_is_no_wider_than_the_receptive_field(name, request):
    network = request.getfixturevalue(name)
    reach = Reach(network.program, network.program.operations)
    for axis in range(3):
        stride = network.graph.stride[axis]
        extent = tuple(s * 200 for s in network.graph.stride)
        middle = 100 * stride
        cut = reach.cut(extent, axis, (middle, middle + stride))
        field = network.graph.receptive_field[axis]
        assert field <= cut.length <= field + 3 * stride


def test_networks_that_look_everywhere_have_no_exact_tiles(statistics_net, corners_net):
    for network in (statistics_net, corners_net):
        assert not Reach(network.program, network.program.operations).bounded


@settings(max_examples=200, deadline=None)
@given(cells=st.integers(1, 60), length=st.integers(1, 60), stride=st.sampled_from([1, 2, 8, 16]))
def test_blended_cuts_cover_evenly(cells, length, stride):
    extent = cells * stride
    cuts = blended_cuts(extent, length * stride, stride)
    assert cuts[0].start == 0
    assert cuts[-1].stop == extent
    assert all(c.start % stride == 0 and c.length == min(extent, length * stride) for c in cuts)
    steps = [b.start - a.start for a, b in itertools.pairwise(cuts)]
    if steps:
        assert min(steps) > 0
        assert max(steps) - min(steps) <= stride
        # they overlap by half, as near as strides allow
        assert max(steps) <= max(stride, length // 2 * stride + stride)


@settings(max_examples=50, deadline=None)
@given(cells=st.integers(1, 40), parts=st.integers(1, 12), axis=st.integers(0, 2))
def test_exact_cuts_keep_everything_once(blog_net, cells, parts, axis):
    parts = min(parts, cells)
    extent = tuple(4 * cells if a == axis else 8 for a in range(3))
    reach = Reach(blog_net.program, blog_net.program.operations)
    cuts = exact_cuts(reach, extent, axis, parts)
    assert [c.keep_start for c in cuts] == [0, *(c.keep_stop for c in cuts[:-1])]
    assert cuts[-1].keep_stop == extent[axis]
    for cut in cuts:
        assert 0 <= cut.start <= cut.keep_start < cut.keep_stop <= cut.stop <= extent[axis]
        assert cut.start % 4 == cut.stop % 4 == cut.keep_start % 4 == 0


def blended(network, extent, lengths):
    cuts = (
        blended_cuts(n, w, s) for n, w, s in zip(extent, lengths, network.graph.stride, strict=True)
    )
    return Tiling(tuple(cuts), exact=False)


def test_blending_gives_back_what_every_tile_agrees_on(blog_net, monkeypatch):
    """Tiles that say where they lie in the whole: the blend must be that, at every sample."""
    extent = (24, 16, 20)
    tiling = blended(blog_net, extent, (8, 12, 8))
    assert tiling.count == 5 * 2 * 4
    names = [blog_net.graph.output, *(g.node for g in blog_net.graph.gates)]
    truth = {
        name: torch.rand(blog_net.graph.shape_at(name, extent), dtype=torch.float32)
        for name in names
    }
    marks = torch.arange(24 * 16 * 20.0).reshape(1, 1, *extent)

    def pretend(program, piece, imposed):
        start = int(piece.flatten()[0])
        corner = (start // 320, start // 20 % 16, start % 20)
        yield tiles.Progress(1.0)
        result = {}
        for name, value in truth.items():
            factor = extent[0] // value.shape[2]
            box = [
                slice(c // factor, (c + n) // factor)
                for c, n in zip(corner, piece.shape[2:], strict=True)
            ]
            result[name] = value[(..., *box)]
        return result

    monkeypatch.setattr(tiles, "run_whole", pretend)
    result, _ = in_tiles(blog_net.program, marks, tiling)
    for name, value in truth.items():
        torch.testing.assert_close(result[name], value, rtol=1e-5, atol=1e-6)


def test_blended_tiles_are_near_the_whole(blog_net):
    x = blog_net.input((8, 6, 6))
    whole, _ = finished(run_whole(blog_net.program, x))
    result, steps = in_tiles(blog_net.program, x, blended(blog_net, (32, 24, 24), (24, 24, 24)))
    for name, value in whole.items():
        error = (result[name] - value).abs()
        assert error.mean() < 0.1 * value.std()
        assert error[:, :, 0].mean() < 0.01 * value.std()  # one tile alone, and at a true end
    assert {step.message.split(":")[0] for step in steps if step.message} == {
        "tile 1 of 2",
        "tile 2 of 2",
    }


def test_one_blended_tile_is_the_whole(network):
    x = network.input((2, 2, 3))
    extent = tuple(x.shape[2:])
    result, _ = in_tiles(network.program, x, blended(network, extent, extent))
    whole, _ = finished(run_whole(network.program, x))
    for name, value in whole.items():
        torch.testing.assert_close(result[name], value, rtol=1e-5, atol=1e-6)


def test_gaussian_weights():
    line = gaussian(16)
    torch.testing.assert_close(line, line.flip(0))
    assert line.argmax() in (7, 8)
    assert line.min() >= 1e-3
    assert line[0] < 0.01


def test_imposed_gates_in_tiles(blog_net):
    x = blog_net.input((6, 4, 4))
    gate = blog_net.graph.gate("att2").node
    shape = blog_net.graph.shape_at(gate, tuple(x.shape[2:]))
    imposed = {gate: torch.rand(shape)}
    imposed[gate][:, :, 4:9] = float("nan")
    tiling = exact_tiling(blog_net, tuple(x.shape[2:]), (2, 2, 1))
    result, _ = in_tiles(blog_net.program, x, tiling, imposed)
    whole, _ = finished(run_whole(blog_net.program, x, imposed))
    for name, value in whole.items():
        torch.testing.assert_close(result[name], value, rtol=1e-5, atol=1e-5)


def test_an_exact_tile_that_does_not_fit_is_halved(blog_net, monkeypatch):
    x = blog_net.input((24, 3, 2))
    tiling = exact_tiling(blog_net, tuple(x.shape[2:]), (2, 1, 1))
    real, sizes = tiles.run_whole, []

    def small_memory(program, piece, imposed):
        if piece.shape[2] > 72:
            raise MemoryBudgetError("too large")
        sizes.append(piece.shape[2])
        return (yield from real(program, piece, imposed))

    monkeypatch.setattr(tiles, "run_whole", small_memory)
    assert tiling.largest[0] > 72
    result, steps = in_tiles(blog_net.program, x, tiling)
    assert any("going on with smaller tiles" in step.message for step in steps)
    assert len(sizes) > 2
    whole, _ = finished(run_whole(blog_net.program, x))
    for name, value in whole.items():
        torch.testing.assert_close(result[name], value, rtol=1e-5, atol=1e-5)


def test_a_blended_tile_that_does_not_fit_is_an_error(blog_net, monkeypatch):
    def no_memory(program, piece, imposed):
        raise MemoryBudgetError("too large")
        yield

    monkeypatch.setattr(tiles, "run_whole", no_memory)
    x = blog_net.input((4, 2, 2))
    with pytest.raises(MemoryBudgetError, match="too large"):
        in_tiles(blog_net.program, x, blended(blog_net, (16, 8, 8), (8, 8, 8)))


@few
@given(cells=st.tuples(*[st.integers(2, 6)] * 3), data=st.data())
def test_rows_of_tiles_before_a_plane_are_left_out(blog_net, cells, data):
    """What is handed over from that plane on is the same, for exact tiles and blended ones."""
    x = blog_net.input(cells)
    extent = tuple(x.shape[2:])
    if data.draw(st.booleans()):
        tiling = exact_tiling(blog_net, extent, (cells[0] // 2, 1, 1))
    else:
        tiling = blended(blog_net, extent, (8, 8, 8))
    start = 4 * data.draw(st.integers(0, cells[0] - 1))
    truth, all_steps = in_tiles(blog_net.program, x, tiling)
    taken = Taken(blog_net.program, extent)
    for name, value in taken.values.items():
        taken.taken[name] = start * value.shape[2] // extent[0]
    _, steps = finished(
        tiles.run_tiles(blog_net.program, TensorPlanes(x), tiling, taken, None, start)
    )
    for name, value in truth.items():
        first = start * value.shape[2] // extent[0]
        assert torch.equal(taken.values[name][:, :, first:], value[:, :, first:])
    work, everything = (sum(step.work for step in each) for each in (steps, all_steps))
    assert work <= everything * (1 + 1e-9)
    if start >= 8 and len(tiling.axes[0]) > 2:
        assert work < everything


def test_no_more_than_rows_of_tiles_is_held(blog_net, monkeypatch):
    x = blog_net.input((24, 4, 4))
    tiling = exact_tiling(blog_net, tuple(x.shape[2:]), (8, 1, 1))
    held = []
    real = tiles._Merged.hand_over

    def weighed(self, following):
        held.append(sum(values.shape[2] for _, values in self.held.values()))
        real(self, following)

    monkeypatch.setattr(tiles._Merged, "hand_over", weighed)
    in_tiles(blog_net.program, x, tiling)
    assert len(held) == 8
    assert max(held) == 12 + 12 + 6  # planes of the output, att1 and att2
