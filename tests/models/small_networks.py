"""A small gated network that no family knows, importable by name, and its weights."""

from __future__ import annotations

import torch
from torch import nn

from napari_attention_unet.models.families.attu_net import AttUNet


class Gated(nn.Module):
    """Two levels, one gate."""

    def __init__(self, channels: int = 1, classes: int = 2, width: int = 4) -> None:
        super().__init__()
        self.enter = nn.Conv3d(channels, width, 3, padding=1)
        self.down = nn.Conv3d(width, width, 2, 2)
        self.gate = nn.Sequential(nn.Conv3d(width, 1, 1), nn.Sigmoid())
        self.leave = nn.Conv3d(width, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.enter(x))
        alpha = self.gate(self.down(y))
        return self.leave(y * nn.functional.interpolate(alpha, scale_factor=2.0))


class Squashed(Gated):
    """Ends in a sigmoid itself."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.enter(x))
        alpha = self.gate(self.down(y))
        y = self.leave(y * nn.functional.interpolate(alpha, scale_factor=2.0))
        return torch.sigmoid(y)


class NoNetwork:
    """Not an nn.Module."""


def randomised(network: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
            if tensor.is_floating_point():
                tensor.uniform_(-0.5, 0.5, generator=generator)
                if name.endswith("running_var"):
                    tensor.abs_().add_(0.5)
    return network.eval()


def gated(**arguments) -> Gated:
    return randomised(Gated(**arguments))


def known() -> AttUNet:
    return randomised(AttUNet(1, 2, [2, 3, 4], [2, 3]))
