"""The network against the published structure, and its gates against their formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from blog_network import BlogAttentionUNet3D
from torch import nn
from torch.nn import functional as F

from napari_attention_unet.models.attention_unet_3d import AttentionUNet3D
from napari_attention_unet.models.gates import AttentionGate, GridAttentionGate


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights, and random statistics of batch normalisation as after training."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, t in module.state_dict().items():
            if name.endswith("running_var"):
                t.copy_(0.5 + torch.rand(t.shape, generator=rng))
            elif t.is_floating_point() and t.ndim == 1:
                t.copy_(0.3 * torch.randn(t.shape, generator=rng) + name.endswith("weight"))
    return module.eval()


@pytest.mark.parametrize(("in_channels", "out_channels"), [(1, 4), (4, 3), (2, 1)])
def test_blog_checkpoints_load_strictly_and_give_the_same(in_channels, out_channels):
    torch.manual_seed(1)
    theirs = randomise(BlogAttentionUNet3D(in_channels, out_channels, b=4))
    ours = AttentionUNet3D(in_channels, out_channels, widths=(4, 8, 16, 32)).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(1, in_channels, 32, 16, 48)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))


def test_default_arguments_are_the_full_size():
    with torch.device("meta"):
        count = sum(p.numel() for p in AttentionUNet3D(1, 1).parameters())
        same = sum(p.numel() for p in BlogAttentionUNet3D(1, 1).parameters())
    assert count == same
    assert round(count / 1e6) == 139


@pytest.mark.parametrize("widths", [(3,), (4, 6), (5, 4, 7), (2, 3, 4, 5, 6)])
@pytest.mark.parametrize("gate", ["skip", "grid"])
def test_any_depth_and_width(widths, gate):
    net = AttentionUNet3D(2, 3, widths, center=5, gate=gate).eval()
    assert net.stride == (2 ** len(widths),) * 3
    x = torch.randn(1, 2, *net.stride)
    with torch.no_grad():
        assert net(x).shape == (1, 3, *net.stride)
    gates = {name for name, m in net.named_modules() if isinstance(m, AttentionGate)}
    grids = {name for name, m in net.named_modules() if isinstance(m, GridAttentionGate)}
    levels = range(1, len(widths) + 1)
    if gate == "skip":
        assert (gates, grids) == ({f"att{i}" for i in levels}, set())
    else:
        assert (gates, grids) == (set(), {f"att{i}" for i in levels if i > 1})


def test_arguments_that_make_no_network():
    with pytest.raises(ValueError, match="widths"):
        AttentionUNet3D(1, 2, ())
    with pytest.raises(ValueError, match="'skip' or 'grid', not 'soft'"):
        AttentionUNet3D(1, 2, (2,), gate="soft")


def test_attention_gate_follows_its_formula():
    gate = randomise(AttentionGate(gating_channels=3, skip_channels=2, inner_channels=4), 2)
    g, x = torch.randn(1, 3, 2, 3, 4), torch.randn(1, 2, 2, 3, 4)

    def line(block: nn.Sequential, t: np.ndarray) -> np.ndarray:
        conv, bn = block[0], block[1]
        w, b = conv.weight[:, :, 0, 0, 0].detach().numpy(), conv.bias.detach().numpy()
        y = np.einsum("oc,cv->ov", w, t) + b[:, None]
        mean, var = (s.numpy()[:, None] for s in (bn.running_mean, bn.running_var))
        scale, shift = (p.detach().numpy()[:, None] for p in (bn.weight, bn.bias))
        return (y - mean) / np.sqrt(var + bn.eps) * scale + shift

    inner = line(gate.W_g, g[0].flatten(1).numpy()) + line(gate.W_x, x[0].flatten(1).numpy())
    alpha = 1 / (1 + np.exp(-line(gate.psi, np.maximum(inner, 0))))
    with torch.no_grad():
        np.testing.assert_allclose(gate.coefficients(g, x)[0].flatten(1), alpha, rtol=1e-5)
        np.testing.assert_allclose(
            gate(g, x)[0].flatten(1), alpha * x[0].flatten(1).numpy(), rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("align_corners", [False, True])
def test_grid_gate_follows_its_formula(align_corners):
    torch.manual_seed(3)
    gate = randomise(GridAttentionGate(2, 3, 4, align_corners=align_corners), 3)
    x, g = torch.randn(1, 2, 8, 4, 12), torch.randn(1, 3, 2, 1, 3)

    # theta's kernel equals its stride: one product for each block of 2x2x2 voxels
    cells = x.reshape(1, 2, 4, 2, 2, 2, 6, 2).permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)
    theta = (cells @ gate.theta.weight.flatten(1).T).permute(0, 4, 1, 2, 3)
    phi = torch.einsum("oc,bczyx->bozyx", gate.phi.weight[:, :, 0, 0, 0], g)
    phi = phi + gate.phi.bias[:, None, None, None]
    up = {"mode": "trilinear", "align_corners": align_corners}
    inner = torch.relu(theta + F.interpolate(phi, (4, 2, 6), **up))
    energy = torch.einsum("c,bczyx->bzyx", gate.psi.weight[0, :, 0, 0, 0], inner) + gate.psi.bias
    alpha = torch.sigmoid(energy)[:, None]
    with torch.no_grad():
        torch.testing.assert_close(gate.coefficients(x, g), alpha, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(gate(x, g), gate.W(F.interpolate(alpha, (8, 4, 12), **up) * x))


def test_grid_gate_upsampling_differs_by_align_corners():
    torch.manual_seed(4)
    one, two = (GridAttentionGate(2, 3, 4, align_corners=a).eval() for a in (False, True))
    two.load_state_dict(one.state_dict())
    x, g = torch.randn(1, 2, 8, 8, 8), torch.randn(1, 3, 2, 2, 2)
    with torch.no_grad():
        assert (one.coefficients(x, g) - two.coefficients(x, g)).abs().max() > 1e-3


def test_grid_gates_of_the_network_lie_on_the_coarser_grid_and_take_the_coarser_features():
    net = AttentionUNet3D(1, 2, (4, 6, 8), gate="grid").eval()
    seen = {}
    for level in (2, 3):
        gate = net.get_submodule(f"att{level}")
        gate.register_forward_pre_hook(
            lambda module, inputs, level=level: seen.update(
                {level: (inputs, module.coefficients(*inputs))}
            )
        )
    with torch.no_grad():
        net(torch.randn(1, 1, 16, 24, 8))
    shapes = {
        level: (tuple(x.shape[1:]), tuple(g.shape[1:]), tuple(alpha.shape[2:]))
        for level, ((x, g), alpha) in seen.items()
    }
    assert shapes == {
        3: ((8, 4, 6, 2), (16, 2, 3, 1), (2, 3, 1)),
        2: ((6, 8, 12, 4), (8, 4, 6, 2), (4, 6, 2)),
    }
