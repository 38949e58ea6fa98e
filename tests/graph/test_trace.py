"""A graph computes what its module computes, and leaves the module alone."""

from __future__ import annotations

import operator

import pytest
import torch
import torch.nn.functional as F
from graph_networks import (
    Function,
    InstanceNormUNet,
    UNet,
    conv_bn_relu,
    randomised,
    traced_unet,
    unet,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from napari_attention_unet.errors import GraphError
from napari_attention_unet.graph.evaluate import evaluate, run
from napari_attention_unet.graph.graph import Extent, Graph
from napari_attention_unet.graph.trace import trace


def assert_same(graph: Graph, module: nn.Module, extent: tuple[int, ...]) -> None:
    x = torch.randn(1, graph.in_channels, *extent, dtype=graph.dtype)
    with torch.no_grad():
        wanted = module.eval()(x)
    got, _ = run(graph, x)
    assert got.shape == wanted.shape
    assert got.shape[1] == graph.out_channels
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module", params=["additive", "sigmoid", "softmax", "two", "", "instance"])
def traced(request) -> tuple[Graph, nn.Module]:
    if request.param == "instance":
        module = randomised(InstanceNormUNet())
        return trace(module), module
    return traced_unet(request.param), unet(request.param)


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(times=st.tuples(*[st.sampled_from([2, 3, 5, 7])] * 3))
def test_output_is_the_modules_for_any_multiple_of_the_stride(traced, times):
    graph, module = traced
    assert_same(graph, module, tuple(n * s for n, s in zip(times, graph.stride, strict=True)))


def test_shapes_are_foretold(traced):
    graph, _ = traced
    extent = tuple(5 * s for s in graph.stride)
    values = {graph.input: torch.randn(1, graph.in_channels, *extent), **graph.constants}
    for node in graph.nodes.values():
        values[node.name] = evaluate(node, values.__getitem__, extent, torch.device("cpu"))
        assert tuple(values[node.name].shape) == graph.shape_at(node.name, extent), node
        assert values[node.name].dtype == node.dtype


def test_graph_is_functional_and_lean(traced):
    graph, _ = traced
    assert list(graph.nodes)[-1] == graph.output
    for node in graph.nodes.values():
        assert not node.target._schema.is_mutable
        assert node.op not in (
            "dropout",
            "feature_dropout",
            "clone",
            "detach",
            "contiguous",
            "expand",
        )
        if node.op.startswith("upsample"):
            assert graph.nodes[node.args[0].name].shape != node.shape
    read = {name for node in graph.nodes.values() for name in node.inputs}
    assert set(graph.constants) <= read
    assert set(graph.nodes) - read == {graph.output}


def test_whole_tensors_that_are_written_to_need_no_decomposition(monkeypatch):
    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr(torch.export.ExportedProgram, "run_decompositions", refuse)
    trace(conv_bn_relu(1, 2))  # an in-place ReLU
    trace(Function(write_to_a_copy))


def test_stride_is_the_least():
    assert traced_unet("additive").stride == (4, 4, 4)
    # theta of the deepest gate halves e2 once more, which has been pooled once: no more than that.
    assert traced_unet("sigmoid").stride == (4, 4, 4)
    assert trace(InstanceNormUNet()).stride == (1, 2, 3)
    assert trace(conv_bn_relu(1, 2)).stride == (1, 1, 1)


def test_strides_of_other_factors():
    module = nn.Sequential(
        nn.Conv3d(1, 2, 5, stride=5, padding=2), nn.Conv3d(2, 2, 3, stride=(3, 1, 2), padding=1)
    )
    graph = trace(module)
    assert graph.stride == (15, 5, 10)
    assert_same(graph, module, (45, 35, 20))


def test_channels_are_those_of_the_convolution_that_runs_first():
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.psi = nn.Conv3d(4, 1, 1)
            self.conv = nn.Conv3d(3, 4, 1)

        def forward(self, x):
            x = F.relu(x)
            return self.psi(self.conv(x))

    module = Late()
    assert trace(module).in_channels == 3
    assert not module.psi._forward_pre_hooks
    assert not module.conv._forward_pre_hooks


def test_input_off_the_stride_is_refused():
    graph = traced_unet("")
    with pytest.raises(GraphError, match=r"10, 8, 8.*multiple.*\(4, 4, 4\)"):
        run(graph, torch.zeros(1, 1, 10, 8, 8))
    with pytest.raises(GraphError, match=r"takes \(1, 1, z, y, x\).*\(1, 2, 8, 8, 8\)"):
        run(graph, torch.zeros(1, 2, 8, 8, 8))


def test_module_is_left_alone():
    seen = []

    def forward(self, x):
        self.last = torch.sigmoid(self.psi(self.conv(x)))
        self.maps.append(self.last)
        self.count += 1
        return self.out(self.conv(x) * self.last)

    module = Function(forward)
    module.maps, module.last = [], None
    module.register_buffer("count", torch.zeros(()))
    module.conv.register_forward_hook(lambda *_: seen.append(1))
    module.train()
    module.psi.eval()
    before = {
        name: (t, t.clone(), t.data_ptr()) for name, t in module.state_dict(keep_vars=True).items()
    }
    graph = trace(module)
    assert module.training
    assert module.conv.training
    assert not module.psi.training
    assert module.maps == []
    assert module.last is None
    assert len(module.conv._forward_hooks) == 1
    assert not module.psi._forward_hooks
    for name, tensor in module.state_dict(keep_vars=True).items():
        same, value, pointer = before[name]
        assert tensor is same
        assert tensor.data_ptr() == pointer
        assert torch.equal(tensor, value)
        assert name == "count" or tensor.requires_grad
    assert graph.constants["conv.weight"].data_ptr() == module.conv.weight.data_ptr()
    assert not graph.constants["conv.weight"].requires_grad


def test_a_big_network_takes_no_memory():
    with torch.device("meta"):
        module = nn.Sequential(*[conv_bn_relu(1 if i == 0 else 1024, 1024) for i in range(5)])
    graph = trace(module)
    assert sum(t.numel() for t in graph.constants.values()) > 1e8
    assert all(t.device.type == "meta" for t in graph.constants.values())


def test_gradients_reach_the_input():
    graph = traced_unet("additive")
    x = torch.randn(1, 1, 8, 8, 8, requires_grad=True)
    run(graph, x)[0].sum().backward()
    assert x.grad.abs().sum() > 0


def write_to_a_view(self, x):
    y = self.conv(x)
    y[:, 0] = 1
    y[:, 1:3].mul_(2)
    return self.out(y)


def write_after_reading(self, x):
    y = self.conv(x)
    z = y * 2
    y += 1
    F.relu_(y.contiguous())
    return self.out(y + z)


def write_to_a_copy(self, x):
    y = self.conv(x)
    z = y.clone()
    z.relu_()
    return self.out(y + z)


def no_grad_inside(self, x):
    with torch.no_grad():
        y = self.conv(x)
    return self.out(y)


def autocast_inside(self, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = self.conv(x)
    return self.out(y.float())


def checkpointed(self, x):
    return self.out(torch.utils.checkpoint.checkpoint(self.conv, x, use_reentrant=False))


def divided_by_its_size(self, x):
    y = self.conv(x)
    return self.out(y / (y.shape[2] * y.shape[3] * y.shape[4])) + y.shape[4]


def with_positions(self, x):
    place = torch.linspace(-1, 1, x.shape[2], device=x.device).view(1, 1, -1, 1, 1)
    return self.out(self.conv(x) * place) + torch.arange(x.shape[4], device=x.device)


def padded_to_match(self, x):
    y = self.conv(x)
    z = F.interpolate(F.avg_pool3d(y, 2), scale_factor=2)
    wide = [w for a, b in zip(y.shape[:1:-1], z.shape[:1:-1], strict=True) for w in (0, a - b)]
    return self.out(y + F.pad(z, wide))


def stretched(self, x):
    y = self.conv(x)
    z = F.interpolate(F.max_pool3d(y, 2), size=y.shape[2:], mode="trilinear", align_corners=True)
    return self.out(y + z)


def resampled_by_odd_factors(self, x):
    y = F.interpolate(self.conv(x), scale_factor=1.5, mode="trilinear")
    return self.out(F.interpolate(y, scale_factor=1 / 1.5, mode="trilinear"))


def resampled_to_less_than_the_factor(self, x):
    y = self.conv(x)[:, :, 1:, 1:, 1:]  # an odd size, times 1.5, is cut off
    y = F.interpolate(y, scale_factor=1.5, mode="trilinear")
    return self.out(F.interpolate(y, scale_factor=2))


def cropped(self, x):
    return self.out(self.conv(x)[:, :, 1:-1, 2:, :-3])


def reflected(self, x):
    return self.out(F.pad(self.conv(x), (1, 2, 3, 4, 0, 1), mode="reflect"))


def split_and_swapped(self, x):
    a, b = self.conv(x).chunk(2, 1)
    c, *_ = torch.split(a, [1, 1], dim=1)
    d, _ = b.max(1, keepdim=True)
    e, f = b.unbind(1)
    return self.out(torch.cat([c, d, e.unsqueeze(1), f[:, None]], 1))


def flattened_softmax(self, x):
    y = self.conv(x)
    return self.out(y * F.softmax(y.flatten(2), -1).view_as(y))


def pixel_shuffled(self, x):
    y = F.avg_pool3d(self.conv(x), 2).repeat(1, 2, 1, 1, 1)
    z, h, w = y.shape[2:]
    y = y.view(1, 1, 2, 2, 2, z, h, w).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return self.out(y.reshape(1, 1, 2 * z, 2 * h, 2 * w).expand(-1, 4, -1, -1, -1))


def excited(self, x):
    y = self.conv(x)
    return self.out(y * torch.sigmoid(F.adaptive_avg_pool3d(y, 1).view(1, 4)).view(1, 4, 1, 1, 1))


FUNCTIONS = [
    write_to_a_view,
    write_after_reading,
    write_to_a_copy,
    no_grad_inside,
    autocast_inside,
    checkpointed,
    divided_by_its_size,
    with_positions,
    padded_to_match,
    stretched,
    resampled_by_odd_factors,
    resampled_to_less_than_the_factor,
    cropped,
    reflected,
    split_and_swapped,
    flattened_softmax,
    pixel_shuffled,
    excited,
]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_ways_of_writing_a_network(function):
    module = randomised(Function(function))
    graph = trace(module)
    assert_same(graph, module, tuple(n * s for n, s in zip((11, 7, 13), graph.stride, strict=True)))
    for node in graph.nodes.values():
        assert node.target is operator.getitem or not node.target._schema.is_mutable


LAYERS = {
    "same padding, even kernel": nn.Conv3d(1, 2, (2, 3, 4), padding="same", dilation=(3, 1, 1)),
    "circular padding": nn.Conv3d(1, 2, 3, padding=1, padding_mode="circular"),
    "weight norm": nn.utils.parametrizations.weight_norm(nn.Conv3d(1, 2, 3)),
    "spectral norm": nn.utils.spectral_norm(nn.Conv3d(1, 2, 3)),
    "norms": nn.Sequential(
        nn.Conv3d(1, 4, 3),
        nn.GroupNorm(2, 4),
        nn.InstanceNorm3d(4, affine=True, track_running_stats=True),
        nn.BatchNorm3d(4, track_running_stats=False),
        nn.PReLU(4),
    ),
    "pools": nn.Sequential(
        nn.AvgPool3d(3, 2, 1), nn.MaxPool3d((1, 2, 2)), nn.Upsample(scale_factor=2, mode="nearest")
    ),
    "data parallel": nn.DataParallel(nn.Conv3d(1, 2, 3)),
    "double": nn.Conv3d(1, 2, 3).double(),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_layers(layer):
    module = randomised(LAYERS[layer]).eval()
    graph = trace(module, 1)
    assert_same(graph, module, tuple(n * s for n, s in zip((11, 7, 13), graph.stride, strict=True)))


def test_statistics_are_of_the_constants_alone():
    graph = trace(LAYERS["norms"], 1)
    assert [node.op for node in graph.nodes.values()] == [
        "conv3d",
        "group_norm",
        "batch_norm",
        "instance_norm",
        "prelu",
    ]
    graph = trace(LAYERS["weight norm"], 1)
    assert [node.op for node in graph.nodes.values()] == ["conv3d"]


class Thorough(nn.Module):
    """Writes to a view, which torch has to undo; then does a bit of everything."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 4, 3, padding="same")
        self.norm, self.act = nn.GroupNorm(2, 4), nn.LeakyReLU(0.1, inplace=True)
        self.pool, self.mean = nn.MaxPool3d(2, return_indices=True), nn.AvgPool3d(2)
        self.unet, self.other = UNet(channels=4, gate="softmax"), InstanceNormUNet()

    def forward(self, x):
        y = self.conv(x)
        y[:, 0] = 1
        y = self.act(self.norm(y))
        z, _ = self.pool(y)
        z = F.interpolate(self.mean(F.interpolate(z, scale_factor=2)), size=y.shape[2:])
        channel = torch.sigmoid(F.adaptive_avg_pool3d(y, 1))
        best, _ = self.unet(F.dropout(z + y, 0.5, self.training) * channel).max(1, keepdim=True)
        return torch.cat([best, self.other(y.chunk(2, 1)[1])], 1)


def test_the_thorough_way_gives_the_same_plain_operators():
    module = randomised(Thorough())
    graph = trace(module)
    assert_same(graph, module, (8, 16, 24))
    assert {node.op for node in graph.nodes.values()} == {
        *("conv3d", "conv_transpose3d", "batch_norm", "instance_norm", "group_norm"),
        *("relu", "leaky_relu", "prelu", "sigmoid", "softmax", "add", "mul", "cat"),
        *("max_pool3d", "avg_pool3d", "adaptive_avg_pool3d", "amax", "reshape"),
        *(
            "upsample_nearest3d",
            "upsample_trilinear3d",
            "select",
            "select_scatter",
            "fill",
            "slice",
        ),
    }
    assert [gate.name for gate in graph.gates] == ["unet.att2", "unet.att1", "other.attention"]


def test_one_of_several_outputs():
    def deep(self, x):
        y = self.conv(x)
        return {"aux": self.out(self.pool(y)), "heads": [self.out(y), self.out(y * 2)]}

    graph = trace(Function(deep, pool=nn.MaxPool3d(2)))
    assert graph.notes == (
        "The network returns 3 tensors; the first one at full resolution, number 2, is used.",
    )
    assert graph.stride == (1, 1, 1)
    assert [node.op for node in graph.nodes.values()] == ["conv3d", "conv3d"]
    half = trace(
        Function(
            lambda self, x: (self.out(self.pool(self.conv(x))), x.mean()), pool=nn.MaxPool3d(2)
        )
    )
    assert half.notes == ("The network returns 2 tensors; the first one, number 1, is used.",)


def branching_on_data(self, x):
    y = self.conv(x)
    return self.out(y) if y.mean() > 0 else self.out(-y)


def reading_a_number(self, x):
    y = self.conv(x)
    return self.out(y / y.max().item())


def branching_on_size(self, x):
    y = self.conv(x)
    return self.out(F.relu(y) if x.shape[2] > 100 else y)


def looping_over_size(self, x):
    y = self.conv(x)
    for _ in range(x.shape[2] // 32):
        y = F.relu(y)
    return self.out(y)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Function(branching_on_data), "depends on the values in the volume"),
        (Function(reading_a_number), "computes a number from its data"),
        (Function(branching_on_size), "runs other operators.*every size"),
        (Function(looping_over_size), "runs other operators.*every size"),
        (Function(lambda self, x: x), "returns its input"),
        (Function(lambda self, x: self.conv(x).mean((2, 3, 4))), r"returned \[\(1, 4\)\]"),
        (Function(lambda self, x: "mask"), "returned no tensor"),
        (Function(lambda self, x: self.conv(self.conv(x))), "could not be run on an input of 1 ch"),
        (Function(lambda self, x: self.conv(x.view(1, 1, 96, 96, 96))), "could not be run"),
        (nn.ReLU(), "no 3D convolution.*give in_channels"),
    ],
    ids=lambda value: (
        None
        if isinstance(value, str)
        else getattr(getattr(value, "function", value), "__name__", "module")
    ),
)
def test_what_cannot_be_traced_is_said(module, message):
    module.train()
    with pytest.raises(GraphError, match=message):
        trace(module)
    assert module.training


def test_sizes_of_flattened_axes():
    graph = trace(Function(flattened_softmax))
    (flat,) = (n for n in graph.nodes.values() if n.op == "reshape" and len(n.shape) == 3)
    assert flat.shape == (1, 4, Extent((0, 1, 2), flat.shape[2].scale))
    assert flat.shape_at((2, 3, 5)) == (1, 4, 30)
    with pytest.raises(GraphError, match="multiple of the network's stride"):
        Extent((0,), graph.nodes[graph.output].shape[2].scale / 2).at((3, 1, 1))
