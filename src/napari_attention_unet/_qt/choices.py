"""The person's choices, kept from one start of napari to the next."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from qtpy.QtCore import QSettings

_ORGANISATION = "napari-attention-unet"
_APPLICATION = "panel"
_KEY = "choices"

#: How many checkpoints the model list remembers.
RECENT = 8


@dataclass
class Choices:
    """What the panel remembers; the defaults are what *Reset* goes back to.

    Attributes
    ----------
    model : str
        Bundled name or path.
    recent : list of str
        Paths of checkpoints opened before, latest first.
    device, precision, plan, normalize : str
        As `predict` takes them.
    window : list of float
        Intensities that map to 0 and 1 when `normalize` is ``"window"``.
    spacing : str
        Voxel size typed by the person, ``""`` for the image's own.
    rule : str
        ``"argmax"`` or ``"threshold"``.
    threshold : float
        Probability above which a voxel belongs to a class, for the rule ``"threshold"``.
    memory : float
        Memory budget in GiB; 0 lets the planner decide.
    keep_largest : bool
        Keep the largest connected component of the foreground alone.
    region : str
        ``"whole"``, ``"box"`` or ``"slab"``.
    slab : int
        Slices of the visible slab, through the plane.
    all_times : bool
        Run every time point, not just the one on display.
    mask, probabilities, gates : bool
        Which layers a run adds.
    replace : bool
        Whether a run replaces the results of an earlier one on the same image.
    letters : bool
        Orientation letters on the canvas.
    scaling : str
        Display range of the gates: ``"full"`` (0 to 1) or ``"percentile"`` (1 to 99 %).
    advanced : bool
        Whether the advanced part is unfolded.
    """

    model: str = ""
    recent: list[str] | None = None
    device: str = "auto"
    precision: str = "auto"
    plan: str = "auto"
    normalize: str = "card"
    window: list[float] | None = None
    spacing: str = ""
    rule: str = "argmax"
    threshold: float = 0.5
    memory: float = 0.0
    keep_largest: bool = False
    region: str = "whole"
    slab: int = 32
    all_times: bool = False
    mask: bool = True
    probabilities: bool = False
    gates: bool = True
    replace: bool = True
    letters: bool = True
    scaling: str = "full"
    advanced: bool = False


def _store() -> QSettings:
    return QSettings(
        QSettings.Format.IniFormat, QSettings.Scope.UserScope, _ORGANISATION, _APPLICATION
    )


def load() -> Choices:
    """The choices of the last time; the defaults where there are none or they cannot be read."""
    defaults = Choices()
    try:
        kept = json.loads(str(_store().value(_KEY, "{}")))
    except ValueError:
        return defaults
    if not isinstance(kept, dict):
        return defaults
    known: dict[str, Any] = {}
    for field in fields(Choices):
        value, default = kept.get(field.name), getattr(defaults, field.name)
        if value is not None and (default is None or type(value) is type(default)):
            known[field.name] = value
    return Choices(**known)


def save(choices: Choices) -> None:
    """Keep the choices for the next start."""
    _store().setValue(_KEY, json.dumps(asdict(choices)))
