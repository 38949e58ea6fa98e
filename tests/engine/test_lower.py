from __future__ import annotations

import torch
from engine_networks import Corners, randomised

from napari_attention_unet.engine.whole import run_whole
from napari_attention_unet.graph.lower import finished, lower
from napari_attention_unet.graph.operations import (
    Convolution,
    GlobalPooling,
    GroupNormalization,
    Resize,
    ScaleShift,
    SpatialSoftmax,
    TransposedConvolution,
    Whole,
    kernels,
)
from napari_attention_unet.graph.trace import trace

CPU = torch.device("cpu")


def test_normalisation_and_activation_are_folded(blog_net):
    operations = blog_net.program.operations
    kinds = [type(op).__name__ for op in operations]
    # 3 convolutions a level, 2 + 1 up in the centre and each decoder, 2 + 1 at the end, 2 a gate
    assert kinds.count("Convolution") == 2 * 3 + 2 + 2 + 3 + 2 * 2
    assert kinds.count("TransposedConvolution") == 2
    assert kinds.count("Gating") == 2
    names = {blog_net.graph.nodes[op.name].op for op in operations}
    assert "batch_norm" not in {
        blog_net.graph.nodes[op.name].op for op in operations if not isinstance(op, Convolution)
    }
    assert not {"cat", "add"} & names
    assert blog_net.program.unknown == ()


def test_what_cannot_be_folded_still_runs_plane_by_plane(mixed_net):
    operations = mixed_net.program.operations
    assert any(isinstance(op, ScaleShift) and op.activation for op in operations)
    assert sum(isinstance(op, Resize) for op in operations) == 3
    assert all(op.local for op in operations), mixed_net.program.unknown
    slopes = {
        round(op.activation.slope, 6)
        for op in operations
        if isinstance(op, Convolution | TransposedConvolution) and op.activation
    }
    assert slopes == {0.0, 0.1, 0.2}


def test_statistics_of_the_volume_are_known(statistics_net):
    operations = statistics_net.program.operations
    assert sum(isinstance(op, GroupNormalization) for op in operations) == 2
    assert sum(isinstance(op, GlobalPooling) for op in operations) == 1
    assert sum(isinstance(op, SpatialSoftmax) for op in operations) == 1
    # what follows a global pooling has no voxels: nobody needs to know it
    assert any(isinstance(op, Whole) for op in operations)
    assert statistics_net.program.unknown == ()


def test_unknown_operators_are_named():
    class Turned(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv3d(1, 2, 3, padding=1)

        def forward(self, x):
            return self.conv(x) + self.conv(x.flip(2)).cumsum(2)

    program = lower(trace(Turned(), 1), CPU, torch.float32)
    assert {"flip", "cumsum"} <= set(program.unknown)


def test_folding_in_float64_keeps_large_statistics():
    """In float32 a variance far below 1 and a mean far above it would cost digits."""
    module = randomised(
        torch.nn.Sequential(torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.BatchNorm3d(4))
    )
    with torch.no_grad():
        module[1].running_var.fill_(1e-4)
        module[1].running_mean.fill_(3.0)
        module[0].bias.fill_(3.0)
    graph = trace(module, 1)
    x = torch.randn(1, 1, *graph.stride) + torch.zeros(1, 1, 8, 8, 8)
    result = finished(run_whole(lower(graph, CPU, torch.float32), x))[graph.output]
    truth = module.double()(x.double())
    assert (result - truth).abs().max() < 1e-4 * truth.abs().max()


def test_weights_stay_untouched(blog_net):
    before = {name: tensor.clone() for name, tensor in blog_net.module.state_dict().items()}
    lower(blog_net.graph, CPU, torch.bfloat16)
    for name, tensor in blog_net.module.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


def test_reduced_precision_decides_in_float32(blog_net):
    program = lower(blog_net.graph, CPU, torch.bfloat16)
    by_name = {op.name: op for op in program.operations}
    output = by_name[blog_net.graph.output]
    assert output.dtype == output.weights[0].dtype == torch.float32
    for gate in blog_net.graph.gates:
        sigmoid = by_name[gate.node]
        (psi,) = (by_name[name] for name in sigmoid.inputs)
        assert isinstance(psi, Convolution)
        assert sigmoid.dtype == psi.dtype == psi.weights[0].dtype == torch.float32
        (total,) = (by_name[name] for name in psi.inputs)
        assert total.dtype == total.result == torch.float32
        assert {by_name[name].result for name in total.inputs} == {torch.bfloat16}
    (first,) = (op for op in program.operations if blog_net.graph.input in op.inputs)
    assert first.dtype == torch.float32
    assert first.result == torch.bfloat16
    assert sum(op.dtype == torch.bfloat16 for op in program.operations) > 15


def test_reduced_precision_is_near(blog_net):
    x = blog_net.input((6, 5, 4))
    truth = blog_net.truth(x)
    result = finished(run_whole(lower(blog_net.graph, CPU, torch.bfloat16), x))
    for gate in blog_net.graph.gates:
        assert (result[gate.node] - truth[gate.node]).abs().max() < 0.03
    output = blog_net.graph.output
    assert (result[output].argmax(1) == truth[output].argmax(1)).float().mean() > 0.98


def test_plain_kernels_give_the_same(blog_net, monkeypatch):
    monkeypatch.setattr(kernels, "_chosen", {})
    monkeypatch.setattr(kernels, "_trial", lambda *args: kernels.plain)
    x = blog_net.input((3, 2, 4))
    truth = blog_net.truth(x)
    program = lower(blog_net.graph, CPU, torch.float32)
    convolutions = [op for op in program.operations if isinstance(op, Convolution)]
    assert all(op.kernel is kernels.plain for op in convolutions)
    assert any(len(op.inputs) == 2 and len(op.weights) == 1 for op in convolutions)
    result = finished(run_whole(program, x))
    for name, value in truth.items():
        torch.testing.assert_close(result[name], value, rtol=1e-5, atol=1e-5)


def test_half_precision_weights_are_taken_up():
    module = randomised(Corners()).half()
    graph = trace(module, 1)
    x = torch.randn(1, 1, *(2 * s for s in graph.stride))
    result = finished(run_whole(lower(graph, CPU, torch.float32), x))[graph.output]
    truth = module.float()(x)
    torch.testing.assert_close(result, truth, rtol=1e-5, atol=1e-5)
