"""Gates are found by what they do: all that are, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from graph_networks import (
    AdditiveGate,
    Function,
    GridGate,
    UNet,
    conv_bn_relu,
    randomised,
    traced_unet,
    unet,
)
from torch import nn

from napari_attention_unet.errors import GraphError
from napari_attention_unet.graph import evaluate
from napari_attention_unet.graph.evaluate import run
from napari_attention_unet.graph.trace import trace


def summary(module: nn.Module) -> list[tuple[str, str]]:
    return [(gate.name, gate.kind) for gate in trace(module).gates]


@pytest.mark.parametrize(
    ("gate", "expected"),
    [
        ("additive", [("att2", "sigmoid"), ("att1", "sigmoid")]),
        ("sigmoid", [("att2", "sigmoid"), ("att1", "sigmoid")]),
        ("softmax", [("att2", "softmax"), ("att1", "softmax")]),
        (
            "two",
            [(f"att{level}.gate_block_{i}", "sigmoid") for level in (2, 1) for i in (1, 2)],
        ),
        ("", []),
    ],
)
def test_gates_of_unets(gate, expected):
    assert [(gate.name, gate.kind) for gate in traced_unet(gate).gates] == expected


def test_names_do_not_depend_on_wrappers():
    wrapped = nn.Sequential()
    wrapped.add_module("net", nn.Sequential(UNet(gate="two")))
    assert [name for name, _ in summary(wrapped)][:2] == [
        "net.0.att2.gate_block_1",
        "net.0.att2.gate_block_2",
    ]


# Ways of writing a gate.


def repeated(self, x):
    y = self.conv(x)
    return self.out(torch.sigmoid(self.psi(self.deep(x))).repeat(1, 4, 1, 1, 1) * y)


def joined(self, x):
    y = self.conv(x)
    return self.out(torch.cat([torch.sigmoid(self.psi(self.deep(x)))] * 4, dim=1) * y)


def cast(self, x):
    return self.out(self.conv(x) * torch.sigmoid(self.psi(self.deep(x)).double()).float())


def in_place(self, x):
    y = self.conv(x)
    y *= self.psi(self.deep(x)).sigmoid_()
    return self.out(y)


def added(self, x):
    y = self.conv(x)
    return self.out(torch.addcmul(y, torch.sigmoid(self.psi(self.deep(x))), y))


def squeezed(self, x):
    y = self.conv(x)
    return self.out(y * torch.sigmoid(self.psi(self.deep(x))).squeeze(1).unsqueeze(1))


def deep() -> nn.Module:
    return nn.Sequential(nn.Conv3d(1, 4, 2, 2), nn.ConvTranspose3d(4, 4, 2, 2))


@pytest.mark.parametrize("function", [repeated, joined, cast, in_place, added, squeezed])
def test_ways_of_writing_a_gate(function):
    module = randomised(Function(function, deep=deep())).eval()
    graph = trace(module)
    assert [gate.kind for gate in graph.gates] == ["sigmoid"]
    x = torch.randn(1, 1, 6, 10, 14)
    (alpha,) = run(graph, x)[1].values()
    with torch.no_grad():
        wanted = torch.sigmoid(module.psi(module.deep(x)))
        torch.testing.assert_close(alpha[None, None].float(), wanted)


def test_softmax_without_flattening_to_three_axes():
    def flat(self, x):
        y = self.psi(self.deep(x))
        return self.out(self.conv(x) * F.softmax(y.reshape(1, -1), 1).reshape(y.shape))

    assert summary(Function(flat, deep=deep())) == [("softmax", "softmax")]


def test_a_module_run_twice_is_two_gates():
    def twice(self, x):
        y = self.conv(x)
        return self.out(self.gate(y, self.gate(y, y)))

    assert [name for name, _ in summary(Function(twice, gate=AdditiveGate(4)))] == [
        "gate",
        "gate_2",
    ]


def test_squeeze_excitation_is_called_so():
    def scse(self, x):
        y = self.conv(x)
        channel = torch.sigmoid(self.mix(F.adaptive_avg_pool3d(y, 1)))
        return self.out(torch.max(y * channel, y * self.sSE(y)))

    module = Function(
        scse, mix=nn.Conv3d(4, 4, 1), sSE=nn.Sequential(nn.Conv3d(4, 1, 1), nn.Sigmoid())
    )
    assert summary(module) == [("sSE", "squeeze-excitation")]


class ChannelPool(nn.Module):
    """Spatial attention of CBAM, as its authors write it; pools a chosen tensor."""

    def __init__(self, over_space: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv3d(2, 1, 7, padding=3, bias=False)
        self.over_space = over_space

    def forward(self, x):
        pooled = torch.cat((torch.max(x, 1)[0].unsqueeze(1), torch.mean(x, 1).unsqueeze(1)), dim=1)
        if self.over_space:
            pooled = pooled - x.mean((2, 3, 4), keepdim=True).mean(1, keepdim=True)
        return x * torch.sigmoid(self.conv(pooled))


class CBAM(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Conv3d(channels, 2, 1), nn.ReLU(), nn.Conv3d(2, channels, 1))
        self.spatial = ChannelPool()

    def forward(self, x):
        pooled = F.adaptive_avg_pool3d(x, 1), F.adaptive_max_pool3d(x, 1)
        return self.spatial(x * torch.sigmoid(sum(self.mlp(p) for p in pooled)))


def test_the_spatial_map_of_cbam_is_called_so():
    def two(self, x):
        return self.out(self.second(self.first(self.conv(x))))

    module = Function(two, first=CBAM(4), second=CBAM(4))
    assert summary(module) == [("first.spatial", "cbam"), ("second.spatial", "cbam")]


def test_a_gating_signal_of_the_same_grid_is_one():
    def same_grid(self, x):
        y = self.conv(x)
        return self.out(self.gate(self.deeper(y), y))

    module = Function(same_grid, gate=AdditiveGate(4), deeper=nn.Conv3d(4, 4, 3, padding=1))
    assert summary(module) == [("gate", "sigmoid")]


def test_a_map_that_pools_something_else_is_no_cbam():
    def of_another(self, x):
        y = self.conv(x)
        other = self.deep(x)
        pooled = torch.cat((other.amax(1, keepdim=True), other.mean(1, keepdim=True)), 1)
        return self.out(y * torch.sigmoid(self.pool(pooled)))

    def of_the_mean_alone(self, x):
        y = self.conv(x)
        return self.out(y * torch.sigmoid(self.one(y.mean(1, keepdim=True))))

    gated = Function(of_another, deep=deep(), pool=nn.Conv3d(2, 1, 3, padding=1))
    assert [kind for _, kind in summary(gated)] == ["sigmoid"]
    alone = Function(of_the_mean_alone, one=nn.Conv3d(1, 1, 3, padding=1))
    assert [kind for _, kind in summary(alone)] == ["squeeze-excitation"]


@pytest.mark.parametrize(
    "squash",
    [
        torch.tanh,
        F.hardsigmoid,
        lambda psi: 1 + torch.sigmoid(psi),
        lambda psi: 1 / (1 + torch.exp(-psi)),
        lambda psi: psi.exp() / (psi.exp() + 1),
        lambda psi: psi.sigmoid() ** 2,
        lambda psi: (psi / 6).clamp(0, 1),
    ],
    ids=["tanh", "hardsigmoid", "1+sigmoid", "1/(1+exp)", "exp/(1+exp)", "squared", "clamped"],
)
def test_maps_that_might_be_gates_are_candidates(squash):
    def odd(self, x):
        return self.out(self.conv(x) * squash(self.psi(self.deep(x))))

    module = randomised(Function(odd, deep=deep())).eval()
    graph = trace(module)
    assert [gate.kind for gate in graph.gates] == ["candidate"]
    x = torch.randn(1, 1, 6, 10, 14)
    (alpha,) = run(graph, x)[1].values()
    with torch.no_grad():
        wanted = squash(module.psi(module.deep(x)))
    torch.testing.assert_close(alpha[None, None], wanted)


def test_two_candidates_in_one_block_are_two():
    def odd(self, x):
        y = self.conv(x)
        psi = self.psi(self.deep(x))
        return self.out(y * torch.tanh(psi) + y * (1 + torch.sigmoid(psi)))

    assert [kind for _, kind in summary(Function(odd, deep=deep()))] == ["candidate", "candidate"]


# What is not a gate.


def head(self, x):
    return torch.sigmoid(self.psi(self.conv(x)))


def masked_image(self, x):
    return torch.sigmoid(self.psi(self.conv(x))) * x


def channel_attention(self, x):
    y = self.conv(x)
    w = torch.sigmoid(self.mix(y.mean((2, 3, 4), keepdim=True)))
    return self.out(y * w)


def one_channel_of_channel_attention(self, x):
    y = self.conv(x)
    return self.out(y * torch.sigmoid(self.psi(y.mean((2, 3, 4), keepdim=True))))


def swish(self, x):
    y = self.conv(x)
    return self.out(y * torch.sigmoid(y))


def scaled_by_the_image(self, x):
    return self.out(self.conv(x) * F.interpolate(F.avg_pool3d(x, 2), scale_factor=2) * x)


def scaled_by_place(self, x):
    y = self.conv(x)
    place = torch.arange(x.shape[4], dtype=x.dtype) - torch.zeros(1, 1, *x.shape[2:])
    return self.out(y * torch.sigmoid(place))


def one_channel_times_one(self, x):
    y = self.conv(x)
    return self.out(y + torch.sigmoid(self.psi(self.deep(x))) * self.psi(y))


def one_map_a_channel(self, x):
    """Out of scope: it says less of places than of features."""
    return self.out(self.conv(x) * torch.sigmoid(self.mix(self.deep(x))))


@pytest.mark.parametrize(
    "function",
    [
        one_map_a_channel,
        head,
        masked_image,
        channel_attention,
        one_channel_of_channel_attention,
        swish,
        scaled_by_the_image,
        scaled_by_place,
        one_channel_times_one,
    ],
)
def test_what_is_not_a_gate(function):
    assert summary(Function(function, mix=nn.Conv3d(4, 4, 1), deep=deep())) == []


# Values.


@pytest.mark.parametrize("gate", ["additive", "sigmoid", "softmax", "two"])
def test_coefficients_are_the_modules_own(gate):
    module, graph = unet(gate), traced_unet(gate)
    seen: list[torch.Tensor] = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if function in (torch.sigmoid, F.softmax):
                seen.append(result)
            return result

    x = torch.randn(1, 1, 20, 12, 28)
    with torch.no_grad(), Watch():
        module(x)
    _, coefficients = run(graph, x)
    assert len(seen) == len(coefficients) == (4 if gate == "two" else 2)
    for (name, alpha), wanted in zip(coefficients.items(), seen, strict=True):
        assert alpha.shape == graph.shape_at(graph.gate(name).node, (20, 12, 28))[2:]
        torch.testing.assert_close(alpha, wanted.reshape(alpha.shape), rtol=1e-5, atol=1e-6)
        if gate == "softmax":
            assert float(alpha.sum()) == pytest.approx(1, abs=1e-5)


def test_forcing_a_gate():
    class Gated(nn.Module):
        """Doubles its input where the gate is open."""

        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Conv3d(1, 2, 1, bias=False)
            self.gate = GridGate(2, 2, "sigmoid")
            self.g = nn.Conv3d(1, 2, 2, 2)

        def forward(self, x):
            return self.gate(self.features(x), self.g(x))

    module = Gated().eval()
    with torch.no_grad():
        module.features.weight.fill_(2.0)
    graph = trace(module)
    x = torch.randn(1, 1, 8, 4, 6)
    free, coefficients = run(graph, x)
    shut, zeros = run(graph, x, {"gate": 0})
    opened, _ = run(graph, x, {"gate": 1.0})
    assert not shut.any()
    assert not zeros["gate"].any()
    torch.testing.assert_close(opened, (2 * x).expand(1, 2, 8, 4, 6))
    again, given = run(graph, x, {"gate": coefficients["gate"].numpy()})
    torch.testing.assert_close(again, free)
    torch.testing.assert_close(given["gate"], coefficients["gate"])
    painted = np.zeros((4, 2, 3), np.float32)
    painted[2:] = 1
    half, _ = run(graph, x, {"gate": painted})
    torch.testing.assert_close(half[:, :, 5:], opened[:, :, 5:])  # beyond the resampled edge
    assert not half[:, :, :3].any()


def test_forcing_says_what_is_wrong():
    graph = traced_unet("additive")
    x = torch.zeros(1, 1, 8, 8, 8)
    with pytest.raises(GraphError, match=r"no gate 'att9'; its gates are: att2, att1"):
        run(graph, x, {"att9": 1})
    with pytest.raises(GraphError, match=r"'att2' have the shape \(8, 8, 8\).*\(4, 4, 4\)"):
        run(graph, x, {"att2": np.ones((8, 8, 8))})
    with pytest.raises(GraphError, match="its gates are: none"):
        run(trace(conv_bn_relu(1, 2)), torch.zeros(1, 1, 8, 8, 8), {"att": 1})


def test_what_only_leads_to_a_forced_gate_is_not_run(monkeypatch):
    graph = traced_unet("additive")
    paths: set[str] = set()
    real = evaluate.evaluate

    def watched(node, *rest):
        paths.add(node.path)
        return real(node, *rest)

    monkeypatch.setattr(evaluate, "evaluate", watched)
    run(graph, torch.zeros(1, 1, 8, 8, 8), {"att2": 1})
    assert "att1.psi.0" in paths
    assert "att1.W_x.0" in paths
    assert not {path for path in paths if path.startswith("att2.")}
