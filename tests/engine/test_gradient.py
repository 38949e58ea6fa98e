"""Gradients within a graph equal torch's own through the whole of it."""

from __future__ import annotations

import pytest
import torch
from engine_networks import finished

from napari_attention_unet.errors import GraphError
from napari_attention_unet.graph.evaluate import evaluate
from napari_attention_unet.graph.gradient import gradient_steps
from napari_attention_unet.inspect.gradcam import gated_features


def torchs_own(graph, x, seed, nodes):
    """Everything evaluated with gradients on, in one backward call."""
    values = {graph.input: x.clone().requires_grad_()}

    def lookup(name):
        return values[name] if name in values else graph.constants[name].detach()

    for node in graph.nodes.values():
        values[node.name] = evaluate(node, lookup, tuple(x.shape[2:]), x.device)
    total = (values[graph.output] * seed).sum()
    wanted = [values[name] for name in nodes]
    return values, dict(zip(nodes, torch.autograd.grad(total, wanted), strict=True))


def test_equal_torchs_own(network):
    graph = network.graph
    x = network.input((2, 3, 2))
    seed = torch.randn(graph.shape_at(graph.output, x.shape[2:]))
    nodes = sorted({gated_features(graph, gate) for gate in graph.gates} | {graph.gates[0].node})
    found, shares = finished(gradient_steps(graph, x, seed, nodes))
    values, gradients = torchs_own(graph, x, seed, nodes)
    for name in nodes:
        torch.testing.assert_close(found.values[name], values[name].detach())
        torch.testing.assert_close(found.gradients[name], gradients[name])
        assert found.gradients[name].abs().max() > 0
    assert shares == sorted(shares)
    assert 0 <= shares[0] <= shares[-1] <= 1


def test_a_node_that_nothing_follows_from_is_named(blog_net):
    graph = blog_net.graph
    x = blog_net.input((2, 2, 2))
    seed = torch.zeros(graph.shape_at(graph.output, x.shape[2:]))
    with pytest.raises(GraphError, match="nowhere"):
        finished(gradient_steps(graph, x, seed, ["nowhere"]))


def test_leaves_nothing_that_asks_for_gradients(blog_net):
    graph = blog_net.graph
    x = blog_net.input((2, 2, 2))
    seed = torch.ones(graph.shape_at(graph.output, x.shape[2:]))
    node = graph.gates[0].node
    found, _ = finished(gradient_steps(graph, x, seed, [node]))
    assert not found.values[node].requires_grad
    assert not found.gradients[node].requires_grad
    assert all(constant.grad is None for constant in graph.constants.values())
