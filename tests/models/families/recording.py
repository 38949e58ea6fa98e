"""Record the attention maps that a network makes, whoever wrote it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.maps: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        spatial = name in ("sigmoid", "sigmoid_") and out.ndim in (4, 5) and out.shape[1] == 1
        if spatial or (name == "_softmax" and out.ndim == 3):
            self.maps.append(out.clone())
        return out


def run(module: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Output of `module`, and each one-channel map that it made on the way, in order."""
    with torch.no_grad(), _Recorder() as recorder:
        out = module(x)
    return out, recorder.maps


def randomise(module: nn.Module, seed: int) -> nn.Module:
    """Random weights and random statistics of batch normalisation, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        for name, parameter in part.named_parameters(recurse=False):
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                value = noise * (1.6 / max(1, parameter[0].numel())) ** 0.5
            elif name == "weight" and not isinstance(part, nn.Conv3d):
                value = 1 + 0.3 * noise.clamp(-2, 2)
            else:
                value = 0.3 * noise
            parameter.data.copy_(value)
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            for buffer, low, high in ((part.running_mean, -0.5, 0.5), (part.running_var, 0.4, 2.0)):
                assert buffer is not None
                noise = torch.rand(buffer.shape, generator=generator)
                buffer.copy_(low + (high - low) * noise)
    return module.eval()


def difference(got: Tensor, expected: Tensor) -> float:
    """Greatest difference, relative to the greatest expected value."""
    assert got.shape == expected.shape
    return float((got - expected).abs().max() / expected.abs().max())
