"""Small networks, written for the tests, of every operation that the engine knows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_attention_unet.engine.stream import TensorPlanes
from napari_attention_unet.engine.tiles import run_tiles
from napari_attention_unet.models.attention_unet_3d import AttentionUNet3D


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with random weights and, unlike after construction, random statistics."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm3d):
                part.running_mean.normal_(0, 0.3, generator=generator)
                part.running_var.uniform_(0.5, 1.5, generator=generator)
                part.weight.uniform_(0.5, 1.5, generator=generator)
                part.bias.normal_(0, 0.3, generator=generator)
            elif isinstance(part, nn.Conv3d | nn.ConvTranspose3d):
                fan = part.weight[0].numel()
                part.weight.normal_(0, (2 / fan) ** 0.5, generator=generator)
                if part.bias is not None:
                    part.bias.normal_(0, 0.1, generator=generator)
    return module.eval()


def blog(widths: tuple[int, ...] = (4, 6)) -> nn.Module:
    return randomised(AttentionUNet3D(1, 3, widths))


class Mixed(nn.Module):
    """Every local operation, anisotropic strides, and a gate on a grid of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv3d(2, 4, (3, 1, 5), padding=(1, 0, 2))
        self.norm = nn.BatchNorm3d(4)  # before an activation, after an addition: not foldable
        self.down = nn.Conv3d(4, 6, 3, stride=(1, 2, 2), padding=1, bias=False)
        self.down_norm, self.down_act = nn.BatchNorm3d(6), nn.PReLU(init=0.2)
        self.dilated = nn.Conv3d(6, 6, 3, padding=2, dilation=2, groups=3)
        self.leaky = nn.LeakyReLU(0.1)
        self.max = nn.MaxPool3d(3, stride=2, padding=1)
        self.mean = nn.AvgPool3d(2)
        self.each = nn.PReLU(6, init=0.3)
        self.up = nn.ConvTranspose3d(6, 6, 3, stride=2, padding=1, output_padding=1, groups=2)
        self.up_norm = nn.BatchNorm3d(6)
        self.back = nn.ConvTranspose3d(6, 4, (1, 4, 4), stride=(1, 2, 2), padding=(0, 1, 1))
        self.psi = nn.Conv3d(4, 1, 1)
        self.out = nn.Conv3d(9, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        e = self.head(x)
        e = F.relu(self.norm(e + e.tanh()))
        d = self.down_act(self.down_norm(self.down(e)))
        d = self.leaky(self.dilated(d))
        low = self.each(self.max(d)) - self.mean(d)
        near = F.interpolate(low, scale_factor=2, mode="nearest")
        smooth = F.interpolate(low, size=d.shape[2:], mode="trilinear")
        u = F.relu(self.up_norm(self.up(low))) + near * smooth
        u = self.back(u)
        alpha = torch.sigmoid(self.psi(F.max_pool3d(u, 2)))
        gated = F.interpolate(alpha, scale_factor=2, mode="nearest") * e
        mean = gated.mean(1, keepdim=True)
        return self.out(torch.cat((u, gated, torch.softmax(mean, 1)), 1))


class Statistics(nn.Module):
    """Instance and group normalisation, a spatial softmax gate, a squeeze over all voxels."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv3d(1, 4, 3, padding=1)
        self.instance = nn.InstanceNorm3d(4)
        self.group = nn.GroupNorm(2, 4)
        self.squeeze = nn.Linear(4, 4)
        self.psi = nn.Conv3d(4, 1, 1)
        self.out = nn.Conv3d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.instance(self.head(x)), 0.2)
        x = self.group(x * 3 + 5)
        x = x * torch.sigmoid(self.squeeze(x.mean((2, 3, 4)))).view(1, 4, 1, 1, 1)
        psi = F.max_pool3d(self.psi(x), 2)
        alpha = torch.softmax(psi.flatten(2), 2).view_as(psi)
        return self.out(x * F.interpolate(alpha, scale_factor=2, mode="nearest") * 100)


class Corners(nn.Module):
    """Trilinear resampling with corners aligned, on a gate's way."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv3d(1, 3, 3, padding=1)
        self.low = nn.Conv3d(3, 3, 3, padding=1)
        self.psi = nn.Conv3d(3, 1, 1)
        self.out = nn.Conv3d(3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.head(x))
        g = self.low(F.max_pool3d(x, 4))
        g = F.interpolate(g, size=x.shape[2:], mode="trilinear", align_corners=True)
        return self.out(x * torch.sigmoid(self.psi(x + g)))


class Ungated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(4, 4, 3, padding=1)
        )
        self.up = nn.ConvTranspose3d(4, 2, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.convs(x))


def finished(steps):
    """What a run returns, and all that it yielded."""
    seen = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as end:
            return end.value, seen


class Taken:
    """Puts together what a run hands over, and holds it to the order of its planes."""

    def __init__(self, program, extent):
        self.program, self.extent = program, extent
        names = (program.graph.output, *(gate.node for gate in program.graph.gates))
        self.values = {n: torch.full(program.shape_at(n, extent), torch.nan) for n in names}
        self.taken = dict.fromkeys(names, 0)

    def __call__(self, name, start, values):
        assert values.dtype == torch.float32
        assert start[1:] == (0, 0)
        stop = start[0] + values.shape[2]
        assert start[0] <= self.taken[name], "planes are missing"
        fresh = max(0, self.taken[name] - start[0])
        self.values[name][:, :, start[0] + fresh : stop] = values[:, :, fresh:]
        self.taken[name] = max(stop, self.taken[name])


def in_tiles(program, x, tiling, imposed=None, start=0):
    """Results of `run_tiles`, and all that it yielded."""
    taken = Taken(program, tuple(x.shape[2:]))
    _, seen = finished(run_tiles(program, TensorPlanes(x), tiling, taken, imposed, start))
    return taken.values, seen
