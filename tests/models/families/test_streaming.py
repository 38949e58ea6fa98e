"""Each family, streamed plane by plane, equals its graph run plainly."""

from __future__ import annotations

import pytest
import torch
from test_references import REFERENCES, build, read

from napari_attention_unet.engine.stream import TensorPlanes, run_stream, streamable
from napari_attention_unet.engine.stream_plan import plan_stream, results_of
from napari_attention_unet.graph.evaluate import run
from napari_attention_unet.graph.lower import finished, lower
from napari_attention_unet.graph.trace import trace


@pytest.mark.parametrize("path", REFERENCES, ids=lambda path: path.stem)
def test_output_and_every_gate(path):
    state, arrays, about = read(path)
    if about["family"] == "MONAI AttentionUnet":
        pytest.importorskip("monai")
    graph = trace(build(state, **about["options"]).module, arrays["input"].shape[1])
    program = lower(graph, torch.device("cpu"), torch.float32)
    assert streamable(program) == ()
    z, y, x = graph.stride
    volume = torch.randn(1, graph.in_channels, 3 * z, y * (2 if y < 16 else 1), x)
    try:
        output, gates = run(graph, volume)
    except ValueError:  # statistics of a single sample
        volume = torch.randn(1, graph.in_channels, 3 * z, 2 * y, 2 * x)
        output, gates = run(graph, volume)
    truth = {graph.output: output, **{g.node: gates[g.name][None, None] for g in graph.gates}}
    extent = tuple(volume.shape[2:])
    results = {name: torch.full_like(value, torch.nan) for name, value in truth.items()}
    assert results.keys() == results_of(program)

    def sink(name, start, values):
        results[name].narrow(2, start[0], values.shape[2]).copy_(values)

    plan = plan_stream(program, extent, 1 << 40)
    finished(run_stream(program, TensorPlanes(volume), sink, plan))
    for name, value in truth.items():
        away = (results[name] - value).abs().max()
        assert away <= 1e-4 * max(1.0, float(value.abs().max())), name
