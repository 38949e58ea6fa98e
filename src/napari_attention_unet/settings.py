"""The settings of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from napari_attention_unet.errors import InputError
from napari_attention_unet.models.card import ACTIVATIONS
from napari_attention_unet.volume import Vec3

OUTPUTS = ("mask", "probabilities", "logits")


@dataclass(frozen=True)
class Settings:
    """How `predict` runs a model on a volume.

    Attributes
    ----------
    spacing : tuple of float or None
        Voxel size along z, y, x instead of the volume's own, in its units; in the units of the
        model card where the volume states none.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda:0"`` or ``"mps"``.
    precision : str
        ``"auto"``, ``"float32"`` (exact to 1e-4 of the network's own forward), ``"bfloat16"`` or
        ``"float16"``. ``"auto"`` takes bfloat16 where the device has it.
    plan : str
        ``"auto"``, ``"whole"`` or ``"tiles"``.
    normalize : str or (low, high)
        ``"card"`` (z-score where the checkpoint has no card), ``"zscore"``, ``"percentile"``,
        ``"minmax"``, ``"none"``, or the intensities that map to 0 and 1.
    outputs : sequence of str
        Any of ``"mask"``, ``"probabilities"``, ``"logits"``; the mask and the gates always come.
    activation : str
        ``"card"``, ``"softmax"``, ``"sigmoid"`` or ``"none"``.
    threshold : float or None
        Probability (0..1) above which a voxel belongs to a class; None takes the most probable
        class, or 0.5 where classes do not compete.
    memory : float or None
        GiB that the run may take on its device; None takes what is free.
    gates : mapping of str to float or array
        Gates to force: a number for the whole map, or an array like `GateMap.coefficients`, in
        which NaN means as computed.
    keep_largest : bool
        Keep the largest connected component of the foreground alone.
    out : zarr.Group or None
        Where to write mask, maps and provenance as well, once they are complete.

    Raises
    ------
    InputError
        If a value is none of these.
    """

    spacing: Vec3 | None = None
    device: str = "auto"
    precision: str = "auto"
    plan: str = "auto"
    normalize: Any = "card"
    outputs: Sequence[str] = ("mask",)
    activation: str = "card"
    threshold: float | None = None
    memory: float | None = None
    gates: Mapping[str, Any] = field(default_factory=dict)
    keep_largest: bool = False
    out: Any = None

    def __post_init__(self) -> None:
        outputs = (self.outputs,) if isinstance(self.outputs, str) else tuple(self.outputs)
        object.__setattr__(self, "outputs", outputs)
        object.__setattr__(self, "gates", dict(self.gates or {}))
        if unknown := set(outputs) - set(OUTPUTS):
            raise InputError(
                f"outputs has {', '.join(map(repr, sorted(unknown)))}; "
                f"there are {', '.join(map(repr, OUTPUTS))}, and the gates always come."
            )
        if self.activation not in ("card", *ACTIVATIONS):
            raise InputError(
                f"activation='{self.activation}' is not known; use 'card', "
                f"{', '.join(map(repr, ACTIVATIONS))}."
            )
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise InputError(f"threshold={self.threshold:g} is not a probability between 0 and 1.")
        if self.memory is not None and not self.memory > 0:
            raise InputError(
                f"memory={self.memory:g} GiB is not positive; leave it out to use what is free."
            )
        if self.out is not None and not hasattr(self.out, "create_array"):
            raise InputError(
                f"out is a {type(self.out).__name__}; pass a zarr group, such as "
                "zarr.open_group('result.zarr')."
            )

    def as_json(self) -> dict[str, Any]:
        """The settings in plain JSON types, for the provenance; arrays as their shape."""
        known = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "out"}
        known["spacing"] = None if self.spacing is None else [float(s) for s in self.spacing]
        known["outputs"] = list(self.outputs)
        for name in ("threshold", "memory"):
            known[name] = None if known[name] is None else float(known[name])
        known["gates"] = {name: _plain(value) for name, value in self.gates.items()}
        if not isinstance(self.normalize, str):
            known["normalize"] = _plain(self.normalize)
        return known


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list) and len(value) == 2:
        return [float(v) for v in value]
    shape = np.shape(value)
    if shape:
        return {"shape": [int(n) for n in shape]}
    return float(value) if isinstance(value, int | float | np.number) else str(value)
