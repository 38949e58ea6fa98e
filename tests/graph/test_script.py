"""Programs without Python are read as well as the networks that they were made of."""

from __future__ import annotations

import io

import pytest
import torch
from graph_networks import Function, randomised, traced_unet, unet
from torch import nn

from napari_attention_unet.errors import GraphError
from napari_attention_unet.graph.evaluate import run
from napari_attention_unet.graph.trace import trace

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")


def loaded(module: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    stream = io.BytesIO()
    torch.jit.save(module, stream)
    stream.seek(0)
    return torch.jit.load(stream)


def scripted(module: nn.Module) -> torch.jit.ScriptModule:
    return loaded(torch.jit.script(module))


def traced(module: nn.Module) -> torch.jit.ScriptModule:
    return loaded(torch.jit.trace(module, torch.zeros(1, 1, 16, 16, 16)))


def exported(
    module: nn.Module, dynamic: bool = True, least: int = 2
) -> torch.export.ExportedProgram:
    dims = {2 + i: 4 * torch.export.Dim(n, min=least, max=64) for i, n in enumerate("zyx")}
    x = torch.zeros(1, 1, 16, 24, 32)
    program = torch.export.export(module, (x,), dynamic_shapes=(dims,) if dynamic else None)
    stream = io.BytesIO()
    torch.export.save(program, stream)
    stream.seek(0)
    return torch.export.load(stream)


def same(graph, module: nn.Module, x: torch.Tensor, atol: float = 0.0) -> None:
    with torch.no_grad():
        torch.testing.assert_close(run(graph, x)[0], module(x), rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("program", "gate"),
    [
        (traced, "additive"),
        (traced, "two"),
        (traced, "softmax"),
        (traced, ""),
        (scripted, "additive"),
    ],
    ids=["traced", "traced-two", "traced-softmax", "traced-none", "scripted"],
)
def test_torchscript_gives_the_graph_of_its_network(program, gate):
    module, wanted = unet(gate), traced_unet(gate)
    graph = trace(program(module))
    assert graph.gates == tuple(
        type(gate)(gate.name, graph.gates[i].node, gate.kind, gate.grid)
        for i, gate in enumerate(wanted.gates)
    )
    assert (graph.in_channels, graph.stride) == (wanted.in_channels, wanted.stride)
    assert graph.receptive_field == wanted.receptive_field
    assert [n.op for n in graph.nodes.values()] == [n.op for n in wanted.nodes.values()]
    x = torch.randn(1, 1, 12, 20, 16)
    same(graph, module, x)
    for name, alpha in run(graph, x)[1].items():
        torch.testing.assert_close(alpha, run(wanted, x)[1][name], rtol=0, atol=0)


def test_frozen_torchscript_has_no_names_but_the_same_gates():
    module = unet("additive")
    graph = trace(loaded(torch.jit.freeze(torch.jit.script(module))))
    assert [gate.grid for gate in graph.gates] == [g.grid for g in traced_unet("additive").gates]
    same(graph, module, torch.randn(1, 1, 8, 16, 12), atol=1e-4)  # batch norms are folded


class Everything(nn.Module):
    """Operators that torch takes apart below autograd."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(2, 4, 3, padding=1)
        self.up = nn.ConvTranspose3d(4, 4, 2, 2)
        self.batch, self.instance = nn.BatchNorm3d(4), nn.InstanceNorm3d(4, affine=True)
        self.group, self.prelu = nn.GroupNorm(2, 4), nn.PReLU(4)
        self.fc = nn.Linear(4, 4)
        self.psi, self.act = nn.Conv3d(4, 1, 1), nn.SiLU()

    def forward(self, x):
        y = self.prelu(self.batch(self.conv(x)))
        z = nn.functional.max_pool3d(self.instance(y), 2)
        z = nn.functional.leaky_relu(self.group(self.up(z)), 0.1)
        w = torch.sigmoid(self.fc(nn.functional.adaptive_avg_pool3d(z, 1).flatten(1)))
        z = self.act(z * w.view(1, 4, 1, 1, 1))
        psi = self.psi(nn.functional.avg_pool3d(z, 2))
        alpha = nn.functional.softmax(psi.flatten(2), dim=2).view(psi.shape)
        alpha = nn.functional.interpolate(alpha, scale_factor=2.0, mode="trilinear")
        return 1 + alpha * y


@pytest.mark.parametrize("program", ["traced", "exported", "decomposed"])
def test_operators_are_put_together_again(program):
    module = randomised(Everything()).eval()
    x = torch.zeros(1, 2, 16, 16, 16)
    if program == "traced":
        taken = loaded(torch.jit.trace(module, x))
    else:
        dims = {2 + i: 2 * torch.export.Dim(n, min=2, max=600) for i, n in enumerate("zyx")}
        saved = torch.export.export(module, (x,), dynamic_shapes=(dims,))
        if program == "decomposed":
            kept = torch.export.default_decompositions()
            kept.pop(torch.ops.aten.upsample_trilinear3d.vec, None)
            saved = saved.run_decompositions(kept)
        taken = saved.module()
    graph, wanted = trace(taken, 2), trace(module)
    assert [gate.kind for gate in graph.gates] == ["softmax"]
    assert graph.receptive_field == wanted.receptive_field
    ours, theirs = ({n.op for n in g.nodes.values()} for g in (graph, wanted))
    # a mean, and what activations are made of, are as good as they are
    assert ours - theirs <= {"mean", "gt", "where"}
    assert theirs - ours <= {"adaptive_avg_pool3d", "leaky_relu", "prelu", "silu"}
    same(graph, module, torch.randn(1, 2, 12, 8, 20), atol=1e-5)


def test_exported_programs_of_any_size_are_graphs_of_any_size():
    module = unet("additive")
    graph = trace(exported(module).module(), 1)
    assert graph.gates == traced_unet("additive").gates
    assert not graph.fixed
    same(graph, module, torch.randn(1, 1, 8, 16, 12))


@pytest.mark.parametrize("gate", ["additive", "softmax", ""])
def test_exported_programs_of_one_size_are_fixed(gate):
    module, extent = unet(gate), (16, 24, 32)
    graph = trace(exported(module, dynamic=False).module(), 1, extent)
    wanted = traced_unet(gate)
    assert graph.fixed
    assert graph.stride == extent
    assert "16 x 24 x 32 voxels and no other size" in " ".join(graph.notes)
    assert [(g.name, g.kind, g.grid) for g in graph.gates] == [
        (g.name, g.kind, g.grid) for g in wanted.gates
    ]
    assert graph.receptive_field == wanted.receptive_field
    for gate in graph.gates:
        assert graph.shape_at(gate.node, extent) == wanted.shape_at(
            wanted.gate(gate.name).node, extent
        )
    same(graph, module, torch.randn(1, 1, *extent))
    with pytest.raises(GraphError, match="multiple of the network's stride"):
        run(graph, torch.zeros(1, 1, 16, 24, 16))


def test_a_network_of_any_size_is_not_fixed_by_a_size_that_is_known():
    assert not trace(unet("additive"), extent=(16, 24, 32)).fixed


def test_torchscript_that_branches_on_data_is_refused():
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv3d(1, 2, 1)

        def forward(self, x):
            if bool(x.sum() > 0):
                x = -x
            return self.conv(x)

    with pytest.raises(GraphError, match="depends on the values"):
        trace(torch.jit.script(Branch()), 1)


def test_writing_into_a_part_is_refused():
    def parts(self, x):
        y = self.conv(x)
        y[:, :1] += 1.0
        return self.out(y)

    with pytest.raises(GraphError, match="writes into parts"):
        trace(traced(randomised(Function(parts))))
