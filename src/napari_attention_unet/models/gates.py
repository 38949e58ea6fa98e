"""Attention gates: the modules that decide where a skip connection is let through.

Both gates here are additive, soft, spatial attention (Oktay et al. 2018, "Attention U-Net:
Learning where to look for the pancreas", arXiv:1804.03999, eq. 1 and 2)::

    alpha = sigmoid( psi( relu( W_x x + W_g g ) ) )          x_hat = alpha * x

with the skip features ``x``, the gating signal ``g`` from the decoder, and one attention
coefficient ``alpha`` in 0..1 for each voxel, the same for all channels of ``x``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class AttentionGate(nn.Module):
    """Additive attention gate on the skip's own grid.

    ``alpha = sigmoid(BN(psi . relu(BN(W_g g) + BN(W_x x))))``, all three convolutions 1x1x1
    with bias: the form of most implementations, in which ``g`` has been brought to the grid of
    ``x`` before the gate. (arXiv:1804.03999, eq. 1 and 2, without the strided grid of its
    figure 2; `GridAttentionGate` has that.)

    Parameters
    ----------
    gating_channels, skip_channels : int
        Channels of ``g`` and of ``x``.
    inner_channels : int
        Channels in which the two are added.
    """

    def __init__(self, gating_channels: int, skip_channels: int, inner_channels: int) -> None:
        super().__init__()
        self.W_g = nn.Sequential(
            nn.Conv3d(gating_channels, inner_channels, 1), nn.BatchNorm3d(inner_channels)
        )
        self.W_x = nn.Sequential(
            nn.Conv3d(skip_channels, inner_channels, 1), nn.BatchNorm3d(inner_channels)
        )
        self.psi = nn.Sequential(nn.Conv3d(inner_channels, 1, 1), nn.BatchNorm3d(1), nn.Sigmoid())
        self.relu = nn.ReLU(inplace=True)

    def coefficients(self, g: Tensor, x: Tensor) -> Tensor:
        """Attention coefficients, shape (batch, 1, z, y, x), 0..1, on the grid of `x`."""
        alpha: Tensor = self.psi(self.relu(self.W_g(g) + self.W_x(x)))
        return alpha

    def forward(self, g: Tensor, x: Tensor) -> Tensor:
        """Gate the skip.

        Parameters
        ----------
        g : Tensor, shape (batch, gating_channels, z, y, x)
            Gating signal, on the grid of `x`.
        x : Tensor, shape (batch, skip_channels, z, y, x)
            Skip features.

        Returns
        -------
        Tensor, shape and dtype of `x`
            ``alpha * x``.
        """
        return x * self.coefficients(g, x)


class GridAttentionGate(nn.Module):
    """The paper's attention gate, computed on the coarse grid of the gating signal.

    ``alpha = up(sigmoid(psi . relu(theta x + up(phi g))))`` where ``theta`` is a strided
    convolution without bias whose kernel equals its stride, ``phi`` and ``psi`` are 1x1x1
    convolutions with bias, and ``up`` is trilinear: of ``phi g`` to the grid of ``theta x``, and
    of the coefficients to the grid of ``x`` (arXiv:1804.03999, section 2.2 and figure 2;
    parameter names follow the authors' code). ``W`` mixes the gated features with a 1x1x1
    convolution and batch normalisation.

    Parameters
    ----------
    skip_channels, gating_channels, inner_channels : int
        Channels of ``x``, of ``g``, and of the sum.
    stride : tuple of int
        Stride of ``theta`` along z, y, x.
    align_corners : bool
        How trilinear interpolation places samples. Networks trained before torch 0.4 used True;
        the coefficients of one such network move by up to 0.16 with the wrong choice, and no
        checkpoint says which was used.
    """

    def __init__(
        self,
        skip_channels: int,
        gating_channels: int,
        inner_channels: int,
        stride: tuple[int, int, int] = (2, 2, 2),
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.theta = nn.Conv3d(skip_channels, inner_channels, stride, stride=stride, bias=False)
        self.phi = nn.Conv3d(gating_channels, inner_channels, 1)
        self.psi = nn.Conv3d(inner_channels, 1, 1)
        self.W = nn.Sequential(
            nn.Conv3d(skip_channels, skip_channels, 1), nn.BatchNorm3d(skip_channels)
        )

    def _up(self, t: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(t, like.shape[2:], mode="trilinear", align_corners=self.align_corners)

    def coefficients(self, x: Tensor, g: Tensor) -> Tensor:
        """Attention coefficients, shape (batch, 1, z', y', x'), 0..1, on the grid of theta."""
        theta = self.theta(x)
        return torch.sigmoid(self.psi(F.relu(theta + self._up(self.phi(g), theta))))

    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        """Gate the skip.

        Parameters
        ----------
        x : Tensor, shape (batch, skip_channels, z, y, x)
            Skip features.
        g : Tensor, shape (batch, gating_channels, any spatial shape)
            Gating signal, usually on a coarser grid.

        Returns
        -------
        Tensor, shape and dtype of `x`
            ``W(alpha * x)``.
        """
        gated: Tensor = self.W(self._up(self.coefficients(x, g), x) * x)
        return gated
