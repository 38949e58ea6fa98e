"""Networks of which it is known what each gate does."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_attention_unet import Model, load_model
from napari_attention_unet.models.card import Normalization


class OneCarrier(nn.Module):
    """Two gates, of which `carrier` alone makes the mask.

    The foreground's logit is 4 * carrier - 2, so its mask is where the carrier is above a half; the
    other gate, on a grid of half the resolution, adds at most 0.1 to both logits alike.
    """

    def __init__(self) -> None:
        super().__init__()
        self.carrier, self.idle = Carrier(), Idle()
        self.features = nn.Conv3d(1, 2, 1)
        self.out = nn.Conv3d(4, 2, 1)
        with torch.no_grad():
            self.features.weight.zero_()
            self.features.bias.fill_(1.0)
            self.out.weight[:, :, 0, 0, 0] = torch.tensor([[0, 0, 0.1, 0], [4, 0, 0.1, 0.0]])
            self.out.bias[:] = torch.tensor([0.0, -2.0])

    def forward(self, x: Tensor) -> Tensor:
        f = self.features(x)
        return self.out(torch.cat((self.carrier(x, f), self.idle(x, f)), 1))


class Carrier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.psi = nn.Conv3d(1, 1, 1)
        nn.init.constant_(self.psi.weight, 20.0)
        nn.init.constant_(self.psi.bias, -10.0)

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        return f * torch.sigmoid(self.psi(x))


class Idle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.psi = nn.Conv3d(1, 1, 1)
        nn.init.constant_(self.psi.weight, 3.0)
        nn.init.constant_(self.psi.bias, 0.5)

    def forward(self, x: Tensor, f: Tensor) -> Tensor:
        alpha = torch.sigmoid(self.psi(F.avg_pool3d(x, 2)))
        return f * F.interpolate(alpha, scale_factor=2, mode="nearest")


def as_model(module: nn.Module, **card) -> Model:
    return load_model(module.eval(), normalization=Normalization("none"), **card)


def object_volume(shape: tuple[int, int, int] = (7, 10, 9)) -> np.ndarray:
    """Ones in a box of zeros."""
    volume = np.zeros(shape, np.float32)
    volume[2:5, 3:8, 2:6] = 1.0
    return volume
