"""The settings of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from napari_attention_unet.errors import InputError
from napari_attention_unet.models.card import ACTIVATIONS
from napari_attention_unet.volume import Shape3, Vec3

OUTPUTS = ("mask", "probabilities", "logits")
GATE_DTYPES = ("float32", "float16", "uint8")


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
        ``"auto"``, ``"whole"``, ``"stream"`` or ``"tiles"``.
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
        Where to write mask, maps and provenance, each plane as soon as it is computed. A run into a
        group that an equal run left unfinished goes on where that one stopped.
    gate_dtype : str
        Type in which gate maps are kept: ``"float32"``, ``"float16"``, or ``"uint8"`` (0..255 for
        0..1). Maps whose values have no such range (spatial softmax, candidates) stay float32.
    tile : tuple of int or None
        Size of blended tiles along z, y, x in voxels of the network's grid, such as the size of the
        patches that it was trained on; the volume is then run in tiles. None lets the plan decide.
    flips : str
        Axes of the volume, any of ``"zyx"``, along which it is also run mirrored: output and gates
        of all combinations are turned back and averaged. ``""`` for none.

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
    gate_dtype: str = "float32"
    tile: Shape3 | None = None
    flips: str = ""

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
        self._check_ways()

    def _check_ways(self) -> None:
        if self.gate_dtype not in GATE_DTYPES:
            raise InputError(
                f"gate_dtype='{self.gate_dtype}' is not known; use "
                f"{', '.join(map(repr, GATE_DTYPES))}."
            )
        if self.tile is not None:
            tile = tuple(int(n) for n in self.tile)
            if len(tile) != 3 or min(tile) < 1 or tile != tuple(self.tile):
                raise InputError(
                    f"tile={self.tile} is not a size; give three numbers of voxels along z, y, x."
                )
            if self.plan not in ("auto", "tiles"):
                raise InputError(
                    f"tile={tile} is a size of tiles, and plan='{self.plan}' has none."
                )
            object.__setattr__(self, "tile", tile)
        flips = "".join(self.flips)
        if set(flips) - set("zyx") or len(set(flips)) < len(flips):
            raise InputError(f"flips='{flips}' is not known; use any of the axes 'zyx'.")
        object.__setattr__(self, "flips", "".join(axis for axis in "zyx" if axis in flips))

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Settings:
        """The settings that `as_json` gave.

        Raises
        ------
        InputError
            If a gate was forced to an array, of which JSON has the shape alone, or a value is
            none of these.
        """
        known = {name: value for name, value in said.items() if name in cls.__dataclass_fields__}
        forced = [name for name, value in known.get("gates", {}).items() if isinstance(value, dict)]
        if forced:
            raise InputError(
                f"{', '.join(forced)} was forced to an array, of which only the shape is known."
            )
        for name in ("spacing", "tile", "normalize"):
            if isinstance(known.get(name), list):
                known[name] = tuple(known[name])
        return cls(**known)

    def as_json(self) -> dict[str, Any]:
        """The settings in plain JSON types, for the provenance; arrays as their shape."""
        known = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "out"}
        known["spacing"] = None if self.spacing is None else [float(s) for s in self.spacing]
        known["outputs"] = list(self.outputs)
        known["tile"] = None if self.tile is None else list(self.tile)
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
