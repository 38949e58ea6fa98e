"""MONAI's networks, where it is installed: gates found, values equal to their own."""

from __future__ import annotations

import pytest
import torch
from graph_networks import randomised

from napari_attention_unet.graph.evaluate import run
from napari_attention_unet.graph.trace import trace

nets = pytest.importorskip("monai.networks.nets")

GATED = {
    "three levels": ((3, 1, 2, (4, 8, 16), (2, 2)), ["model.1.submodule.1", "model.1"]),
    "anisotropic": (
        (3, 2, 3, (5, 7, 9), ((2, 2, 1), (1, 2, 2))),
        ["model.1.submodule.1", "model.1"],
    ),
}


def assert_same(module, graph, channels):
    x = torch.randn(1, channels, *(n * s for n, s in zip((3, 2, 5), graph.stride, strict=True)))
    with torch.no_grad():
        wanted = module(x)
    torch.testing.assert_close(run(graph, x)[0], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", GATED)
def test_attention_unet(case):
    arguments, blocks = GATED[case]
    module = randomised(nets.AttentionUnet(*arguments)).eval()
    graph = trace(module, arguments[1])
    assert [gate.name for gate in graph.gates] == [f"{block}.attention" for block in blocks]
    assert_same(module, graph, arguments[1])
    # A strided convolution of three voxels keeps the centre of the first.
    assert {gate.grid.translate for gate in graph.gates} == {(0, 0, 0)}
    assert graph.gates[-1].grid.scale == (1, 1, 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nets.SegResNet(3, 8, 1, 2, blocks_down=(1, 1), blocks_up=(1,)),
        lambda: nets.BasicUNet(3, 1, 2, (4, 4, 4, 4, 4, 4)),
        lambda: nets.VNet(3, 1, 2),
        lambda: nets.UNet(3, 1, 2, (4, 8), (2,), num_res_units=1),
    ],
)
def test_networks_without_gates(make):
    module = randomised(make()).eval()
    graph = trace(module, 1)
    assert graph.gates == ()
    assert_same(module, graph, 1)
