"""Small networks, written for the tests, that do what networks in the field do."""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F
from torch import nn

from napari_attention_unet.graph.graph import Graph
from napari_attention_unet.graph.trace import trace


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with random weights and, unlike after construction, random statistics."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if tensor.is_floating_point():
                tensor.uniform_(-0.5, 0.5, generator=generator)
                if name.endswith(("running_var", "1.weight")):
                    tensor.abs_().add_(0.5)
    return module


def conv_bn_relu(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(channels, out, 3, padding=1, bias=False),
        nn.BatchNorm3d(out),
        nn.ReLU(inplace=True),
    )


class AdditiveGate(nn.Module):
    """Gate on the skip's own grid, as in most re-implementations."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.W_g = nn.Sequential(nn.Conv3d(channels, channels, 1), nn.BatchNorm3d(channels))
        self.W_x = nn.Sequential(nn.Conv3d(channels, channels, 1), nn.BatchNorm3d(channels))
        self.psi = nn.Sequential(nn.Conv3d(channels, 1, 1), nn.BatchNorm3d(1), nn.Sigmoid())
        self.relu = nn.ReLU(inplace=True)

    def forward(self, g: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return x * self.psi(self.relu(self.W_g(g) + self.W_x(x)))


class GridGate(nn.Module):
    """Gate of the paper: computed on the gating signal's grid, up-sampled to the skip's."""

    def __init__(self, channels: int, gating: int, mode: str, factor=(2, 2, 2)) -> None:
        super().__init__()
        self.theta = nn.Conv3d(channels, channels, factor, factor, bias=False)
        self.phi = nn.Conv3d(gating, channels, 1)
        self.psi = nn.Conv3d(channels, 1, 1)
        self.mode = mode

    def forward(self, x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        theta = self.theta(x)
        phi = F.interpolate(self.phi(g), size=theta.shape[2:], mode="trilinear")
        psi = self.psi(F.relu(theta + phi, inplace=True))
        if self.mode == "softmax":
            alpha = F.softmax(psi.view(1, 1, -1), dim=2).view(1, 1, *psi.shape[2:])
        else:
            alpha = torch.sigmoid(psi)
        alpha = F.interpolate(alpha, size=x.shape[2:], mode="trilinear")
        return alpha.expand_as(x) * x


class TwoGates(nn.Module):
    def __init__(self, channels: int, gating: int) -> None:
        super().__init__()
        self.gate_block_1 = GridGate(channels, gating, "sigmoid")
        self.gate_block_2 = GridGate(channels, gating, "sigmoid")

    def forward(self, x: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        return self.gate_block_1(x, g) + self.gate_block_2(x, g)


class UNet(nn.Module):
    """Three levels with max-pooling; `gate` makes the gates, or there are none."""

    def __init__(self, channels: int = 1, out: int = 3, gate: str = "additive") -> None:
        super().__init__()
        a, b, c = 3, 4, 6
        self.down1, self.down2 = conv_bn_relu(channels, a), conv_bn_relu(a, b)
        self.center = conv_bn_relu(b, c)
        self.pool = nn.MaxPool3d(2)
        self.up2 = nn.ConvTranspose3d(c, b, 4, stride=2, padding=1)
        self.up1 = nn.ConvTranspose3d(b, a, 2, stride=2)
        self.merge2, self.merge1 = conv_bn_relu(2 * b, b), conv_bn_relu(2 * a, a)
        self.drop = nn.Dropout3d(0.5)
        self.final = nn.Conv3d(a, out, 1)
        self.gate = gate
        if gate == "additive":
            self.att2, self.att1 = AdditiveGate(b), AdditiveGate(a)
        elif gate in ("sigmoid", "softmax"):
            self.att2, self.att1 = GridGate(b, c, gate), GridGate(a, b, gate)
        elif gate == "two":
            self.att2, self.att1 = TwoGates(b, c), TwoGates(a, b)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        e1 = self.down1(x)
        e2 = self.down2(self.pool(e1))
        d = self.center(self.pool(e2))
        u = self.up2(d)
        s = (
            e2
            if not self.gate
            else self.att2(u, e2)
            if self.gate == "additive"
            else self.att2(e2, d)
        )
        d = self.merge2(torch.cat((u, s), 1))
        u = self.up1(d)
        s = (
            e1
            if not self.gate
            else self.att1(u, e1)
            if self.gate == "additive"
            else self.att1(e1, d)
        )
        return self.final(self.drop(self.merge1(torch.cat((u, s), 1))))


class InstanceNormUNet(nn.Module):
    """Strided convolutions, InstanceNorm, PReLU; anisotropic strides; gate on the skip's grid."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv3d(2, 4, 3, padding=1)
        self.down = nn.Conv3d(4, 6, 3, stride=(1, 2, 3), padding=1)
        self.norm, self.act = nn.InstanceNorm3d(6), nn.PReLU()
        self.up = nn.ConvTranspose3d(6, 4, 3, stride=(1, 2, 3), padding=1, output_padding=(0, 1, 2))
        self.attention = AdditiveGate(4)
        self.out = nn.Conv3d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.head(x)
        g = self.up(self.act(self.norm(self.down(x))))
        return self.out(torch.cat([self.attention(g, x), g], dim=1))


class Function(nn.Module):
    """A network whose forward is given: `conv` 1 to 4 channels, `psi` 4 to 1, `out` 4 to 2."""

    def __init__(self, forward, **modules: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 4, 3, padding=1)
        self.psi = nn.Conv3d(4, 1, 1)
        self.out = nn.Conv3d(4, 2, 1)
        for name, module in modules.items():
            setattr(self, name, module)
        self.function = forward

    def forward(self, x: torch.Tensor):
        return self.function(self, x)


@cache
def traced_unet(gate: str) -> Graph:
    """A `UNet` with random weights, traced once for all tests."""
    return trace(unet(gate))


@cache
def unet(gate: str) -> nn.Module:
    return randomised(UNet(gate=gate)).eval()
