"""The model card: what is known of a checkpoint."""

from __future__ import annotations

import colorsys
import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from napari_attention_unet.errors import CheckpointError
from napari_attention_unet.volume import Vec3

ACTIVATIONS = ("softmax", "sigmoid", "none")
NORMALIZATIONS = ("zscore", "percentile", "minmax", "window", "linear", "none")


@dataclass(frozen=True)
class ClassInfo:
    """One class of the mask.

    Attributes
    ----------
    name : str
        What a person calls it.
    color : str
        ``"#rrggbb"``.
    """

    name: str
    color: str


@dataclass(frozen=True)
class Normalization:
    """How intensities are brought to the network's range, before padding.

    Attributes
    ----------
    kind : str
        ``"zscore"`` (per channel over the whole volume, in float64), ``"percentile"`` (`low` and
        `high` are percentiles that map to 0 and 1, clipped), ``"minmax"`` (to 0..1), ``"window"``
        (`low` and `high` are intensities that map to 0 and 1, clipped), ``"linear"`` (the same
        without clipping) or ``"none"``.
    low, high : float
        See `kind`.
    nonzero : bool
        Whether statistics are taken over non-zero voxels alone.
    """

    kind: str = "zscore"
    low: float = 1.0
    high: float = 99.0
    nonzero: bool = False

    def __post_init__(self) -> None:
        if self.kind not in NORMALIZATIONS:
            raise CheckpointError(
                f"Unknown normalisation '{self.kind}'; known: {', '.join(NORMALIZATIONS)}."
            )
        if self.kind == "linear" and not self.low != self.high:
            raise CheckpointError("Linear normalisation needs two intensities that differ.")


@dataclass(frozen=True)
class ModelCard:
    """What is known of a checkpoint, and what was assumed.

    Attributes
    ----------
    name : str
        Name shown to people, e.g. ``"brain-t1"``.
    architecture : str
        e.g. ``"AttentionUNet3D"``.
    arguments : dict
        Keyword arguments that rebuild the network.
    in_channels : int
        Number of input channels.
    channel_names : tuple of str
        One a channel, or empty.
    classes : tuple of ClassInfo
        Background first.
    voxel_size : tuple of float or None
        Voxel size along z, y, x that the network was trained at, in `units`; None if it takes any.
    units : str
        Units of `voxel_size`.
    orientation : str or None
        Directions towards which z, y, x of the network's input grow, e.g. ``"IPL"``; None if any.
    normalization : Normalization
        Of the input.
    activation : str
        Of the output: ``"softmax"``, ``"sigmoid"`` or ``"none"`` (is one already).
    padding_value : float
        With which the input is padded, after normalisation.
    description, training_data, licence, version, limits : str
        For people.
    scores : dict
        What was measured where.
    assumptions : tuple of str
        What the file did not say and was assumed, one sentence each.
    """

    name: str
    architecture: str
    arguments: dict[str, Any] = field(default_factory=dict)
    in_channels: int = 1
    channel_names: tuple[str, ...] = ()
    classes: tuple[ClassInfo, ...] = ()
    voxel_size: Vec3 | None = None
    units: str = "mm"
    orientation: str | None = None
    normalization: Normalization = Normalization()
    activation: str = "softmax"
    padding_value: float = 0.0
    description: str = ""
    training_data: str = ""
    licence: str = ""
    version: str = ""
    limits: str = ""
    scores: dict[str, Any] = field(default_factory=dict)
    assumptions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise CheckpointError(
                f"Unknown activation '{self.activation}'; known: {', '.join(ACTIVATIONS)}."
            )

    def to_json(self) -> str:
        """The card as JSON text."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> ModelCard:
        """Read a card from JSON text.

        Raises
        ------
        CheckpointError
            If the text is not a model card.
        """
        try:
            raw = json.loads(text)
            known = {f.name for f in fields(cls)}
            kept = {k: v for k, v in raw.items() if k in known}
            kept["classes"] = tuple(ClassInfo(**c) for c in kept.get("classes", ()))
            kept["normalization"] = Normalization(**kept.get("normalization", {}))
            if kept.get("voxel_size") is not None:
                z, y, x = (float(v) for v in kept["voxel_size"])
                kept["voxel_size"] = (z, y, x)
            for key in ("channel_names", "assumptions"):
                kept[key] = tuple(kept.get(key, ()))
            return cls(**kept)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"This is not a model card: {error}.") from error


def default_classes(count: int) -> tuple[ClassInfo, ...]:
    """Names and well-separated colours for classes that nobody named.

    Parameters
    ----------
    count : int
        Number of classes, the background included.
    """
    made = [ClassInfo("background", "#000000")]
    for index in range(1, count):
        hue = (0.02 + 0.618034 * (index - 1)) % 1.0
        r, g, b = (round(255 * v) for v in colorsys.hsv_to_rgb(hue, 0.75, 0.95))
        made.append(ClassInfo(f"class {index}", f"#{r:02x}{g:02x}{b:02x}"))
    return tuple(made)
