"""Gates and small parts that several families share."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_attention_unet.models.gates import GridAttentionGate

Size3 = tuple[int, int, int]

#: Ways in which the authors' gate makes coefficients, in their words.
GATE_MODES = ("concatenation", "concatenation_residual", "concatenation_debug")


class ModalGridGate(GridAttentionGate):
    """The paper's gate with the variants of the authors' code.

    Parameters
    ----------
    skip_channels, gating_channels, inner_channels : int
        As in `GridAttentionGate`.
    stride : tuple of int
        Stride of ``theta`` along z, y, x.
    align_corners : bool
        Of the trilinear interpolation.
    mode : str
        ``"concatenation"``: sigmoid; ``"concatenation_residual"``: softmax over space;
        ``"concatenation_debug"``: softplus in place of the ReLU, then sigmoid.
    """

    def __init__(
        self,
        skip_channels: int,
        gating_channels: int,
        inner_channels: int,
        stride: Size3 = (2, 2, 2),
        align_corners: bool = False,
        mode: str = "concatenation",
    ) -> None:
        super().__init__(skip_channels, gating_channels, inner_channels, stride, align_corners)
        self.mode = mode

    def coefficients(self, x: Tensor, g: Tensor) -> Tensor:
        """Attention coefficients, shape (batch, 1, z', y', x'), on the grid of theta."""
        if self.mode == "concatenation":
            return super().coefficients(x, g)
        theta = self.theta(x)
        inner = theta + self._up(self.phi(g), theta)
        if self.mode == "concatenation_debug":
            return torch.sigmoid(self.psi(F.softplus(inner)))
        energy: Tensor = self.psi(F.relu(inner))
        return torch.softmax(energy.flatten(2), dim=2).view_as(energy)


def conv(
    channels: int, out: int, kernel: Size3, stride: Size3 = (1, 1, 1), bias: bool = True
) -> nn.Conv3d:
    """A convolution that keeps the grid (at stride 1): odd kernel, zero padding."""
    z, y, x = (k // 2 for k in kernel)
    return nn.Conv3d(channels, out, kernel, stride, (z, y, x), bias=bias)


def pooling_of(kernel: tuple[int, ...]) -> Size3:
    """Pooling that goes with a kernel: 2 along axes that it looks along, 1 along the others."""
    z, y, x = (2 if k > 1 else 1 for k in kernel)
    return z, y, x


def product(factors: list[Size3]) -> Size3:
    """Product of the factors, per axis."""
    z = y = x = 1
    for a, b, c in factors:
        z, y, x = z * a, y * b, x * c
    return z, y, x
