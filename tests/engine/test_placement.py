"""Placement on a GPU, on tensors without data: no hardware is needed."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from napari_attention_unet.engine import whole
from napari_attention_unet.engine.stream import TensorPlanes
from napari_attention_unet.engine.tiles import run_tiles
from napari_attention_unet.engine.tiling import Tiling, blended_cuts
from napari_attention_unet.engine.whole import run_whole
from napari_attention_unet.graph.lower import lower

GPU = torch.device("cuda", 0)


class MovesBetweenDevices(TorchFunctionMode):
    """`Tensor.to` of a fake tensor asks for the real device; the operator behind it does not."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.Tensor.cpu:
            return torch.ops.aten._to_copy(args[0], device=torch.device("cpu"))
        if function is torch.Tensor.to:
            device = next((a for a in args[1:] if isinstance(a, torch.device)), None)
            dtype = next((a for a in args[1:] if isinstance(a, torch.dtype)), None)
            return torch.ops.aten._to_copy(args[0], device=device, dtype=dtype)
        if function is torch.Tensor.contiguous:
            return torch.ops.aten.clone(args[0], **kwargs)
        return function(*args, **kwargs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", ["blog_net", "statistics_net"])
def test_all_is_computed_on_the_gpu(name, request, dtype, monkeypatch):
    """A mix of devices raises; what decides is in float32; results come to the CPU."""
    network = request.getfixturevalue(name)
    seen = []
    keep = whole.Execution._keep

    def record(self, op, value):
        assert value.device == GPU
        assert value.dtype == op.dtype
        seen.append(op)
        keep(self, op, value)

    monkeypatch.setattr(whole.Execution, "_keep", record)
    monkeypatch.setattr(whole, "synchronise", lambda device: None)
    graph = network.graph
    extent = tuple(2 * s for s in graph.stride)
    with FakeTensorMode(allow_non_fake_inputs=True), MovesBetweenDevices():
        program = lower(graph, GPU, dtype)
        x = torch.empty(1, graph.in_channels, *extent)
        steps = run_whole(program, x)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                results = end.value
                break
        assert all(value.device.type == "cpu" for value in results.values())
        assert all(value.dtype == torch.float32 for value in results.values())
    deciding = {graph.output, *(gate.node for gate in graph.gates)}
    assert all(op.dtype == torch.float32 for op in seen if op.name in deciding)
    assert any(op.dtype == dtype for op in seen)


def test_tiles_are_moved_one_by_one(blog_net, monkeypatch):
    placed = []
    init = whole.Execution.__init__

    def record(self, program, x, imposed):
        assert x.device.type == "cpu"
        init(self, program, x, imposed)
        placed.append(self.values[program.graph.input].device)

    monkeypatch.setattr(whole.Execution, "__init__", record)
    monkeypatch.setattr(whole, "synchronise", lambda device: None)
    lines = (blended_cuts(n, 8, 4) for n in (16, 8, 8))
    with FakeTensorMode(allow_non_fake_inputs=True), MovesBetweenDevices():
        program = lower(blog_net.graph, GPU, torch.float16)
        planes = TensorPlanes(torch.empty(1, 1, 16, 8, 8))
        handed = []

        def sink(name, start, values):
            assert values.device.type == "cpu"
            handed.append(name)

        for _ in run_tiles(program, planes, Tiling(tuple(lines), False), sink):
            pass
        assert len(set(handed)) == 3
    assert placed == [GPU] * 3
