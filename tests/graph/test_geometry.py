"""Where samples lie, against analytic truth.

Two truths are used. A *coordinate image*, whose voxels hold their own coordinate, comes out of any
network of centred averages and linear resampling as the coordinate of each sample's centre. And a
*point of light* in the input may light only the samples whose window holds it: the places from
which a sample is lit have their middle at its centre.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from graph_networks import InstanceNormUNet, traced_unet
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from napari_attention_unet.graph.evaluate import evaluate, run
from napari_attention_unet.graph.geometry import grid_of, lines
from napari_attention_unet.graph.graph import Grid
from napari_attention_unet.graph.receptive import receptive_field
from napari_attention_unet.graph.trace import trace


class Chain(nn.Module):
    """Stages one after the other, with a gate on the result of each."""

    def __init__(self, *stages: nn.Module) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = 0.0
        for stage in self.stages:
            x = stage(x)
            alpha = torch.sigmoid(x[:, :1])
            total = total + (torch.cat([x, x], 1) * alpha).mean()
        return torch.cat([x, x], 1) * torch.sigmoid(x) + total


def averaging(layer: nn.Module) -> nn.Module:
    """A convolution, or a transposed one, that keeps the value of a constant."""
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.weight /= layer.weight.sum()
        layer.bias.zero_()
    return layer


def interpolating(stride: tuple[int, int, int]) -> nn.Module:
    """A transposed convolution that up-samples linearly, by 2 or 1 an axis."""
    lines_ = [torch.tensor([0.25, 0.75, 0.75, 0.25]) if s == 2 else torch.ones(1) for s in stride]
    layer = nn.ConvTranspose3d(
        1, 1, [len(w) for w in lines_], stride, padding=[1 if s == 2 else 0 for s in stride]
    )
    with torch.no_grad():
        layer.weight[0, 0] = torch.einsum("i,j,k->ijk", *lines_)
        layer.bias.zero_()
    return layer


class Resize(nn.Module):
    def __init__(self, factor: float, mode: str = "trilinear", align: bool | None = False) -> None:
        super().__init__()
        self.factor, self.mode, self.align = factor, mode, align

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = [int(n * self.factor) for n in x.shape[2:]]
        return F.interpolate(x, size=size, mode=self.mode, align_corners=self.align)


class Edges(nn.Module):
    """Cropping or, with negative numbers, padding; ``(before, after)`` of z, y and x."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.widths = [-w for w in reversed(widths)]
        self.widths = [w for i in (0, 2, 4) for w in (self.widths[i + 1], self.widths[i])]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pad(x, self.widths)


class SpaceToDepth(nn.Module):
    """The mean of the eight samples of each cell, by slices; odd ones at the end are left out."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z, y, x_ = (n // 2 * 2 for n in x.shape[2:])
        x = x[:, :, :z, :y, :x_]
        parts = [x[:, :, i::2, j::2, k::2] for i in (0, 1) for j in (0, 1) for k in (0, 1)]
        return torch.cat(parts, 1).mean(1, keepdim=True)


@st.composite
def chains(draw) -> list[nn.Module]:
    """Stages of centred averages and linear resampling, that shrink a volume at most eightfold."""
    chain: list[nn.Module] = []
    halvings = 3
    for _ in range(draw(st.integers(3, 5))):
        kinds = ["conv", "pool", "up", "linear", "aligned", "edges"]
        kind = draw(st.sampled_from(kinds + ["halved", "cells"] * (halvings > 0)))
        kernel = [draw(st.integers(1, 4)) for _ in range(3)]
        stride = tuple(draw(st.integers(1, 2 if halvings else 1)) for _ in range(3))
        padding = [draw(st.integers(0, (k - 1) // 2)) for k in kernel]
        if kind == "conv":
            dilation = [draw(st.integers(1, 2)) if k < 3 else 1 for k in kernel]
            chain.append(averaging(nn.Conv3d(1, 1, kernel, stride, padding, dilation)))
        elif kind == "pool":
            chain.append(nn.AvgPool3d(kernel, stride, padding))
        elif kind == "up":
            chain.append(interpolating(draw(st.tuples(*[st.sampled_from([1, 2])] * 3))))
        elif kind in ("linear", "aligned"):
            chain.append(Resize(2, align=kind == "aligned"))
        elif kind == "edges":
            chain.append(Edges(*[draw(st.integers(-1, 1)) for _ in range(6)]))
        else:
            chain.append(Resize(0.5) if kind == "halved" else SpaceToDepth())
        halvings -= kind in ("halved", "cells") or (kind in ("conv", "pool") and 2 in stride)
    return chain


def values_of(graph, x):
    """Every node's value."""
    values = {graph.input: x, **graph.constants}
    for node in graph.nodes.values():
        values[node.name] = evaluate(node, values.__getitem__, x.shape[2:], x.device)
    return values


@settings(max_examples=8, deadline=None)
@given(chain=chains())
def test_coordinates_come_out_as_centres(chain):
    graph = trace(Chain(*chain).double(), 1)
    moving = [node.name for node in graph.nodes.values() if node.op in MOVING]
    checked = 0
    for axis in range(3):
        extent = [10 * s for s in graph.stride]
        extent[axis] = max(48 // graph.stride[axis], 12) * graph.stride[axis]
        x = torch.ones(1, 1, *extent, dtype=torch.float64)
        place = torch.arange(extent[axis], dtype=torch.float64).view([-1, 1, 1])
        answers = values_of(graph, x * place.movedim(0, axis)), values_of(graph, x)
        placed = lines(graph, extent)
        for name in moving:
            line = placed[name][axis]
            centre = [size // 2 for size in answers[0][name].shape[2:]]
            centre[axis] = slice(None)
            got, weight = (values[name][0, 0][tuple(centre)] for values in answers)
            # Padding takes weight away near the ends, and clamping bends there.
            sample = torch.arange(line.size)
            good = (weight - 1).abs() < 1e-6
            good &= (sample >= line.size * 0.35) & (sample < line.size * 0.65)
            wanted = float(line.start) + float(line.jump) * sample.double()
            torch.testing.assert_close(got[good], wanted[good], rtol=0, atol=1e-4)
            checked += int(good.sum())
    assert checked > 0 or not moving


MOVING = (
    "conv3d",
    "conv_transpose3d",
    "avg_pool3d",
    "upsample_trilinear3d",
    "constant_pad_nd",
)


POINTS = {
    # stages; scale and translate of each one's gate
    "max-pool": (
        lambda: [nn.MaxPool3d(2), nn.MaxPool3d(2), nn.MaxPool3d(2)],
        [(2, 0.5), (4, 1.5), (8, 3.5)],
    ),
    "strided, odd kernel": (
        lambda: [ones(3, 2, 1), ones(3, 2, 1), ones(5, 2, 2)],
        [(2, 0), (4, 0), (8, 0)],
    ),
    "strided, even kernel": (
        lambda: [ones(2, 2, 0), ones(4, 2, 1), ones(4, 4, 0)],
        [(2, 0.5), (4, 1.5), (16, 7.5)],
    ),
    "same grid, even kernel": (lambda: [ones(2, 1, 0), ones(4, 1, 1)], [(1, 0.5), (1, 1)]),
    "max-pool, odd kernel": (
        lambda: [nn.MaxPool3d(3, 2, 1), nn.MaxPool3d(3, 3), ones(3, 1, 1)],
        [(2, 0), (6, 2), (6, 2)],
    ),
    "dilated": (lambda: [ones(3, 1, 2, 2), ones(2, 2, 0, 3)], [(1, 0), (2, 1.5)]),
}


def ones(kernel, stride=1, padding=0, dilation=1) -> nn.Module:
    layer = nn.Conv3d(1, 1, kernel, stride, padding, dilation)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.zero_()
    return layer


def lit(graph, extent, point) -> dict[str, torch.Tensor]:
    """What each gate answers to a point of light in the dark."""
    x = torch.zeros(1, 1, *extent)
    x[(0, 0, *point)] = 1.0
    return {name: alpha - 0.5 for name, alpha in run(graph, x)[1].items()}


@pytest.mark.parametrize("case", POINTS)
def test_a_sample_is_lit_from_around_its_centre(case):
    make, expected = POINTS[case]
    graph = trace(Chain(*make()), 1)
    gates = graph.gates[: len(expected)]
    for gate, (scale, translate) in zip(gates, expected, strict=True):
        assert gate.grid == Grid((scale,) * 3, (translate,) * 3)
    extent = (max(6 * graph.stride[0], 24), *[-(-12 // s) * s for s in graph.stride[1:]])
    answers = [lit(graph, extent, (place, 5, 5)) for place in range(extent[0])]
    for gate in gates:
        on = torch.stack([answer[gate.name].sum((1, 2)) > 0 for answer in answers])
        whole = (on.sum(0) == on.sum(0).max()).nonzero().flatten()  # not cut off at the ends
        assert len(whole) >= 2
        for sample in whole.tolist():
            sources = on[:, sample].nonzero().flatten().double()
            assert sources.mean() == gate.grid.translate[0] + gate.grid.scale[0] * sample


def test_a_point_lights_one_known_sample():
    # e.g. voxel (21, 9, 6) under a pool of 4, 2 and 1 voxels: sample (5, 4, 6), whose centre is at
    # (21.5, 8.5, 6) and, in a scan of (2, 0.5, 0.5) mm, 43, 4.25 and 3 mm from the first voxel.
    graph = trace(Chain(nn.MaxPool3d((2, 2, 1)), nn.MaxPool3d((2, 1, 1))), 1)
    alpha = lit(graph, (32, 16, 8), (21, 9, 6))
    gate = graph.gates[1]
    ((sample),) = alpha[gate.name].nonzero().tolist()
    assert sample == [5, 4, 6]
    centre = [
        t + s * j for s, t, j in zip(gate.grid.scale, gate.grid.translate, sample, strict=True)
    ]
    assert centre == [21.5, 8.5, 6.0]
    assert [c * v for c, v in zip(centre, (2, 0.5, 0.5), strict=True)] == [43.0, 4.25, 3.0]


UPWARDS = {
    "transposed 2": lambda: transposed(2, 2, 0),
    "transposed 4": lambda: transposed(4, 2, 1),
    "transposed 3": lambda: transposed(3, 2, 1, 1),
    "transposed 3 by 3": lambda: transposed(3, 3, 0),
    "nearest 3": lambda: Resize(3, "nearest", None),
    "nearest-exact 2": lambda: Resize(2, "nearest-exact", None),
    "trilinear 2": lambda: Resize(2),
    "trilinear 3": lambda: Resize(3),
}


def transposed(kernel, stride, padding, output_padding=0) -> nn.Module:
    layer = nn.ConvTranspose3d(1, 1, kernel, stride, padding, output_padding)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.zero_()
    return layer


@pytest.mark.parametrize("pool", [1, 2])
@pytest.mark.parametrize("up", UPWARDS)
def test_a_point_lights_samples_around_itself(up, pool):
    graph = trace(Chain(nn.AvgPool3d(pool), UPWARDS[up]()).double(), 1)
    gate = graph.gates[1]
    x = torch.zeros(1, 1, 8, 8, 8, dtype=torch.float64)
    x[:, :, 4 : 4 + pool, 4 : 4 + pool, 4 : 4 + pool] = 1.0
    answer = torch.logit(run(graph, x)[1][gate.name])
    for axis in range(3):
        weights = answer.movedim(axis, 0).flatten(1).sum(1)
        places = gate.grid.translate[axis] + gate.grid.scale[axis] * torch.arange(len(weights))
        assert float((weights * places).sum() / weights.sum()) == pytest.approx(4 + (pool - 1) / 2)


def test_aligned_corners_depend_on_the_extent():
    graph = trace(Chain(nn.AvgPool3d((4, 2, 1)), Resize(2, align=True)), 1)
    gate = graph.gates[1]
    for extent in ((32, 16, 8), (48, 64, 10)):
        grid = grid_of(graph, gate.node, extent)
        for axis, (n, factor) in enumerate(zip(extent, (4, 2, 1), strict=True)):
            coarse = n // factor
            first, last = (factor - 1) / 2, (factor - 1) / 2 + factor * (coarse - 1)
            assert grid.translate[axis] == first
            assert grid.translate[axis] + grid.scale[axis] * (2 * coarse - 1) == pytest.approx(last)
    assert gate.grid == grid_of(graph, gate.node) == grid_of(graph, gate.node, graph.traced)


def test_the_skip_says_where_a_join_lies():
    # Strided convolution keeps centres, linear up-sampling moves them by half a voxel: they part.
    class Parting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.skip = nn.Conv3d(1, 2, 3, padding=1)
            self.down = nn.Conv3d(2, 2, 3, stride=2, padding=1)
            self.psi = nn.Conv3d(2, 1, 1)

        def forward(self, x):
            x = self.skip(x)
            g = F.interpolate(self.down(x), scale_factor=2, mode="trilinear")
            return x * torch.sigmoid(self.psi(g + x))

    graph = trace(Parting())
    (up,) = (n.name for n in graph.nodes.values() if n.op == "upsample_trilinear3d")
    assert grid_of(graph, up) == Grid((1, 1, 1), (-0.5, -0.5, -0.5))
    assert graph.gates[0].grid == Grid((1, 1, 1), (0, 0, 0))


def test_gates_of_whole_networks():
    for gate, grids in {
        "additive": [(2, 0.5), (1, 0)],
        "sigmoid": [(4, 1.5), (2, 0.5)],
        "softmax": [(4, 1.5), (2, 0.5)],
    }.items():
        graph = traced_unet(gate)
        assert [g.grid for g in graph.gates] == [Grid((s,) * 3, (t,) * 3) for s, t in grids]
        assert grid_of(graph, graph.output) == Grid((1, 1, 1), (0, 0, 0))
    (gate,) = trace(InstanceNormUNet()).gates
    assert gate.grid == Grid((1, 1, 1), (0, 0, 0))


@pytest.mark.parametrize(
    "make",
    [
        lambda: [ones(3, 1, 1), nn.AvgPool3d(2), ones(3, 1, 1), transposed(4, 2, 1), ones(3)],
        lambda: [ones(4, 2, 1), ones(2, 2), ones(3, 1, 2, 2), transposed(2, 2, 0), Resize(2)],
        lambda: [nn.AvgPool3d((1, 2, 3), (1, 2, 3)), ones((5, 3, 1)), Resize(1, "nearest", None)],
        lambda: [ones(3, 2, 1), Resize(2), ones(3, 1, 1), Edges(1, 1, -2, 0, 0, 0)],
        lambda: [SpaceToDepth(), ones(3, 1, 1), Resize(2, align=True)],
    ],
)
def test_receptive_field_is_what_gradients_reach(make):
    network = nn.Sequential(*make()).double()
    graph = trace(network, 1)
    field = receptive_field(graph, graph.output)
    for axis in range(3):
        extent = tuple(
            s * (-(-48 // s) if i == axis else -(-12 // s)) for i, s in enumerate(graph.stride)
        )
        x = torch.zeros(1, 1, *extent, dtype=torch.float64, requires_grad=True)
        y = run(graph, x)[0][0, 0].movedim(axis, 0).flatten(1).sum(1)
        widths = []
        for sample in range(len(y) // 2, len(y) // 2 + graph.stride[axis]):
            (gradient,) = torch.autograd.grad(y[sample], x, retain_graph=True)
            reached = gradient[0, 0].movedim(axis, 0).flatten(1).abs().sum(1).nonzero()
            widths.append(int(reached.max() - reached.min()) + 1)
        assert max(widths) == field[axis]


def test_receptive_field_of_the_whole_volume():
    graph = trace(nn.Sequential(nn.Conv3d(1, 2, 3), nn.InstanceNorm3d(2)))
    assert receptive_field(graph, graph.output) == (float("inf"),) * 3
    graph = trace(nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2), nn.Softmax(1)))
    assert graph.receptive_field == (3, 3, 3)
    graph = traced_unet("softmax")
    assert graph.receptive_field == (float("inf"),) * 3
