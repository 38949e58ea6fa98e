"""A run from kept values equals a whole run with the same gates, bit for bit."""

from __future__ import annotations

import math

import pytest
import torch
from engine_networks import finished

from napari_attention_unet.engine.recompute import (
    downstream,
    run_again,
    run_keeping,
    worth_keeping,
)
from napari_attention_unet.engine.whole import run_whole
from napari_attention_unet.graph.lower import lower


@pytest.mark.parametrize("few", [False, True], ids=["each gate", "first gate"])
def test_equals_a_whole_run(network, few):
    program = network.program
    # statistics of the whole volume are summed slab by slab, and how it is cut depends on timing
    exact = all(map(math.isfinite, network.graph.receptive_field))
    x = network.input((3, 2, 4))
    extent = tuple(x.shape[2:])
    names = worth_keeping(program, extent, 1 << 40)
    if few and len(network.graph.gates) > 1:
        most = sum(v.numel() * v.element_size() for v in _kept(program, x, names).values.values())
        fewer = worth_keeping(program, extent, most - 1)
        assert set(fewer) < set(names)
        names = fewer
    kept = _kept(program, x, names)
    _equal(kept.results, finished(run_whole(program, x))[0], exact=exact)
    for gate in network.graph.gates:
        shape = kept.results[gate.node].shape
        part = torch.full(shape, float("nan"))
        part[..., : shape[-1] // 2] = 0.25
        for value in (torch.zeros(shape), part):
            imposed = {gate.node: value}
            got, _ = finished(run_again(kept, imposed))
            _equal(got, finished(run_whole(program, x, imposed))[0], exact=exact)
            changed = {gate.node} | downstream(program, imposed)
            assert {op.name for op in kept.operations(imposed)} & changed
    every = {
        gate.node: torch.full_like(kept.results[gate.node], 0.5) for gate in network.graph.gates
    }
    _equal(
        finished(run_again(kept, every))[0], finished(run_whole(program, x, every))[0], exact=exact
    )
    _equal(finished(run_again(kept, {}))[0], kept.results, exact=exact)


def test_in_reduced_precision_too(blog_net):
    program = lower(blog_net.graph, torch.device("cpu"), torch.bfloat16)
    x = blog_net.input((3, 3, 3))
    kept = _kept(program, x, worth_keeping(program, tuple(x.shape[2:]), 1 << 40))
    assert {value.dtype for value in kept.values.values()} == {torch.bfloat16}
    for gate in blog_net.graph.gates:
        imposed = {gate.node: torch.zeros_like(kept.results[gate.node])}
        got, _ = finished(run_again(kept, imposed))
        _equal(got, finished(run_whole(program, x, imposed))[0])


def test_only_what_depends_on_a_gate_is_computed(blog_net):
    """Of a U-Net, the last gate needs no encoder and no deeper decoder."""
    program = blog_net.program
    x = blog_net.input((3, 3, 3))
    names = worth_keeping(program, tuple(x.shape[2:]), 1 << 40)
    kept = _kept(program, x, names)
    first, last = (gate.node for gate in blog_net.graph.gates)

    def paths(node):
        imposed = {node: torch.zeros_like(kept.results[node])}
        return {blog_net.graph.nodes[op.name].path for op in kept.operations(imposed)}

    assert not any(path.startswith(("encoder", "center")) for path in paths(first) | paths(last))
    assert any(path.startswith("decoder2") for path in paths(first))
    assert not any(path.startswith(("decoder2", "att2")) for path in paths(last))
    assert not kept.operations({})


def test_no_room_keeps_nothing(blog_net):
    assert worth_keeping(blog_net.program, (64, 64, 64), 1000) is None


def test_what_is_held_is_counted(blog_net):
    x = blog_net.input((3, 3, 3))
    kept = _kept(blog_net.program, x, [])
    values = (x, *kept.results.values())
    assert kept.bytes == sum(4 * v.numel() for v in values)


def _kept(program, x, names):
    return finished(run_keeping(program, x, names))[0]


def _equal(one, other, *, exact=True):
    assert one.keys() == other.keys()
    for name, value in other.items():
        if exact:
            assert torch.equal(one[name], value), name
        else:
            torch.testing.assert_close(one[name], value, rtol=1e-5, atol=1e-6)
