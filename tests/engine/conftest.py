"""Traced networks, once for all tests: tracing takes longer than running them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from engine_networks import Corners, Mixed, Statistics, blog, randomised
from torch import Tensor, nn

from napari_attention_unet.graph.graph import Graph
from napari_attention_unet.graph.lower import Program, lower
from napari_attention_unet.graph.trace import trace

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Network:
    module: nn.Module
    graph: Graph
    program: Program

    def input(self, cells: tuple[int, int, int], seed: int = 0) -> Tensor:
        """Noise of so many strides along each axis."""
        extent = [n * s for n, s in zip(cells, self.graph.stride, strict=True)]
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(1, self.graph.in_channels, *extent, generator=generator)

    def truth(self, x: Tensor) -> dict[str, Tensor]:
        """The module's own forward, and what its graph's plain operators give at the gates."""
        from napari_attention_unet.graph.evaluate import run

        with torch.no_grad():
            output, gates = run(self.graph, x)
            made = {self.graph.output: self.module(x)}
        torch.testing.assert_close(output, made[self.graph.output], rtol=1e-5, atol=1e-6)
        return made | {g.node: gates[g.name][None, None] for g in self.graph.gates}


def _network(module: nn.Module, channels: int = 1) -> Network:
    graph = trace(module, channels)
    return Network(module, graph, lower(graph, CPU, torch.float32))


@pytest.fixture(scope="session")
def blog_net() -> Network:
    return _network(blog())


@pytest.fixture(scope="session")
def mixed_net() -> Network:
    return _network(randomised(Mixed()), 2)


@pytest.fixture(scope="session")
def statistics_net() -> Network:
    return _network(randomised(Statistics()))


@pytest.fixture(scope="session")
def corners_net() -> Network:
    return _network(randomised(Corners()))


@pytest.fixture(params=["blog", "mixed", "statistics", "corners"])
def network(request: pytest.FixtureRequest) -> Network:
    return request.getfixturevalue(f"{request.param}_net")
