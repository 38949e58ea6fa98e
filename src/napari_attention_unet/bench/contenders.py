"""Who is compared: this package, MONAI's sliding window and one like nnU-Net's.

All take the same float32 voxels in memory and give a label map; what is made once for a network
(its trace, its lowered weights, a bfloat16 copy of it) is made before, and not timed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from napari_attention_unet.engine.device import resolve_precision
from napari_attention_unet.model import Model, load_model
from napari_attention_unet.predict import predict
from napari_attention_unet.volume import Shape3

from . import nnunet
from .networks import monai

#: What is timed, in the words of the report.
TIMED = (
    "Timed from float32 voxels in memory to a label map in memory, warm. Ours: the whole of "
    "`predict` (checks, plan, normalisation 'none', network, labels and every gate's map); tracing "
    "and lowering are done before. The others: sliding window and argmax; they give no gate maps."
)
#: Window of the others, as the field uses.
WINDOW: Shape3 = (96, 96, 96)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Outcome:
    """What a contender gives.

    Attributes
    ----------
    mask : array, shape (z, y, x), uint8
    logits : array, shape (class, z, y, x), float32, or None
        None where it was not asked for.
    gates : dict of str to array
        Coefficients of every gate; empty where it gives none.
    network : float or None
        Seconds of the network's part, where it is told; see `Entry.network`.
    notes : list of str
        How it ran.
    """

    mask: npt.NDArray[Any]
    logits: npt.NDArray[np.float32] | None = None
    gates: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    network: float | None = None
    notes: list[str] = field(default_factory=list)


#: ``run(voxels (z, y, x) float32, whether logits are wanted)``
Run = Callable[[npt.NDArray[np.float32], bool], Outcome]


@dataclass(frozen=True)
class Contender:
    """A way of running a network over a volume.

    Attributes
    ----------
    name, title : str
        For options; for people.
    prepare : callable
        Makes `Run` of a network.
    """

    name: str
    title: str
    prepare: Callable[[nn.Module], Run] = field(repr=False)

    @property
    def ours(self) -> bool:
        """Whether it is this package."""
        return self.name.startswith("ours")

    @property
    def dtype(self) -> torch.dtype:
        """In which it computes."""
        if self.ours:
            return resolve_precision(self.name.removeprefix("ours-"), CPU)
        return torch.bfloat16 if "bf16" in self.title else torch.float32


def _ours(module: nn.Module, precision: str) -> Run:
    return run_ours(load_model(module), precision)


def run_ours(model: Model, precision: str) -> Run:
    """Our run of a model that is traced already."""
    model.program(CPU, resolve_precision(precision, CPU))

    def run(voxels: npt.NDArray[np.float32], logits: bool) -> Outcome:
        made = predict(
            model,
            voxels,
            device="cpu",
            precision=precision,
            normalize="none",
            outputs=("mask", "logits") if logits else ("mask",),
        )
        told = made.provenance
        return Outcome(
            made.mask,
            made.logits,
            {gate.name: gate.coefficients for gate in made.gates},
            told["seconds"].get("network"),
            [f"plan {told['plan']}: {told['plan_reason']}", *told["notes"]],
        )

    return run


def _window(network: Callable[[Tensor], Tensor], batch: int) -> Callable[[Tensor], Tensor]:
    return partial(
        monai().inferers.sliding_window_inference,
        roi_size=WINDOW,
        sw_batch_size=batch,
        predictor=network,
    )


def _labelled(infer: Callable[[Tensor], Tensor], dtype: torch.dtype = torch.float32) -> Run:
    def run(voxels: npt.NDArray[np.float32], logits: bool) -> Outcome:
        with torch.inference_mode():
            x = torch.from_numpy(voxels)[None, None].to(dtype)
            if dtype != torch.float32:
                x = x.contiguous(memory_format=torch.channels_last_3d)
            found = infer(x)
            mask = found.argmax(1)[0].to(torch.uint8).numpy()
            return Outcome(mask, found[0].float().numpy() if logits else None)

    return run


def _channels_last(module: nn.Module) -> nn.Module:
    made = copy.deepcopy(module)
    made.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return made


def _monai_defaults(module: nn.Module) -> Run:
    return _labelled(_window(module, 1))


def _monai_autocast(module: nn.Module) -> Run:
    network = _channels_last(module)

    def forward(x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast("cpu", torch.bfloat16):
            made: Tensor = network(x)
        return made.float()

    return _labelled(_window(forward, 4))


def _monai_best(module: nn.Module) -> Run:
    network = _channels_last(module).bfloat16()
    return _labelled(_window(network, 1), torch.bfloat16)


def _nnunet(module: nn.Module, mirror: bool) -> Run:
    return _labelled(lambda x: nnunet.predict(module, x, WINDOW, mirror))


CONTENDERS: dict[str, Contender] = {
    made.name: made
    for made in (
        Contender("ours-auto", "ours, auto precision", partial(_ours, precision="auto")),
        Contender("ours-float32", "ours, float32", partial(_ours, precision="float32")),
        Contender(
            "monai-defaults",
            "MONAI sliding window, its defaults (overlap 0.25, windows one by one)",
            _monai_defaults,
        ),
        Contender(
            "monai-autocast",
            "MONAI sliding window, bf16 autocast, channels_last_3d, batches of 4",
            _monai_autocast,
        ),
        Contender(
            "monai-best",
            "MONAI sliding window, network in bf16, channels_last_3d, windows one by one",
            _monai_best,
        ),
        Contender(
            "nnunet",
            "like nnU-Net: overlap 0.5, Gaussian, no mirroring",
            partial(_nnunet, mirror=False),
        ),
        Contender(
            "nnunet-mirroring",
            "like nnU-Net: overlap 0.5, Gaussian, eight mirrorings",
            partial(_nnunet, mirror=True),
        ),
    )
}
