"""What is settled before a run starts: the volume's frame, the device, what is forced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_attention_unet.checks import check_size, check_volume
from napari_attention_unet.engine.device import resolve_device, resolve_precision
from napari_attention_unet.engine.plan import check_wish
from napari_attention_unet.errors import InputError
from napari_attention_unet.frame import Frame, frame_for
from napari_attention_unet.graph.geometry import grid_of
from napari_attention_unet.model import Model
from napari_attention_unet.models.card import Normalization
from napari_attention_unet.preprocess import resolve_normalization
from napari_attention_unet.settings import Settings
from napari_attention_unet.volume import Volume


@dataclass(frozen=True)
class Job:
    """All that is settled before a run starts.

    Attributes
    ----------
    flips : tuple of int
        The network's axes along which the volume is run mirrored, too.
    imposed : dict of str to Tensor
        Forced gates by node, shape (1, 1, z, y, x) on the network's grid, NaN where computed.
    """

    model: Model
    volume: Volume
    settings: Settings
    frame: Frame
    device: torch.device
    dtype: torch.dtype
    normalization: Normalization
    activation: str
    flips: tuple[int, ...]
    imposed: dict[str, Tensor]


def job_for(model: Model, volume: Any, settings: Settings) -> Job:
    """Settle how a volume is run, and refuse what cannot be, before anything is computed.

    Raises
    ------
    InputError
        If the volume or an option cannot be used; the message says what would work.
    """
    if not isinstance(model, Model):
        raise InputError(f"model is a {type(model).__name__}; pass what load_model gives.")
    volume = _as_volume(volume, settings)
    card = model.card
    check_volume(volume, card)
    check_wish(settings.plan)
    frame = frame_for(volume, card, model.stride)
    check_size(frame, model.stride)
    activation = card.activation if settings.activation == "card" else settings.activation
    if activation == "softmax" and model.graph.out_channels == 1:
        raise InputError("The softmax of one channel is always 1; use activation='sigmoid'.")
    device = resolve_device(settings.device)
    return Job(
        model=model,
        volume=volume,
        settings=settings,
        frame=frame,
        device=device,
        dtype=resolve_precision(settings.precision, device),
        normalization=resolve_normalization(settings.normalize, card),
        activation=activation,
        flips=tuple(frame.axes.index("zyx".index(axis)) for axis in settings.flips),
        imposed=_imposed(model, frame, settings),
    )


def _as_volume(volume: Any, settings: Settings) -> Volume:
    if isinstance(volume, Tensor):
        volume = volume.detach().cpu().numpy()
    made: Volume = volume if isinstance(volume, Volume) else Volume.from_array(volume)
    if settings.spacing is not None:
        z, y, x = (float(s) for s in settings.spacing)
        made = made.replace(spacing=(z, y, x))
    return made


def _imposed(model: Model, frame: Frame, settings: Settings) -> dict[str, Tensor]:
    gates = {gate.name: gate for gate in model.gates}
    made = {}
    for name, value in settings.gates.items():
        if name not in gates:
            known = ", ".join(map(repr, gates)) or "none"
            raise InputError(f"There is no gate '{name}' to force; the gates are: {known}.")
        node = gates[name].node
        shape = model.graph.shape_at(node, frame.padded)
        array = np.asarray(value, dtype=np.float32)
        if array.ndim == 0:
            if not np.isfinite(array):
                raise InputError(f"The gate '{name}' cannot be forced to {value}; give a number.")
            made[node] = torch.full(shape, float(array))
            continue
        grid = grid_of(model.graph, node, frame.padded)
        size = (shape[2], shape[3], shape[4])
        full = frame.place_back(array, size, grid.scale, grid.translate)
        made[node] = torch.from_numpy(full)[None, None]
    return made
