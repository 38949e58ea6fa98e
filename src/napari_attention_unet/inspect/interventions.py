"""What the network says when a gate looks elsewhere.

A map of attention coefficients shows where a gate is high, not whether that mattered. Setting the
gate to something else and running the network again shows it: what changes in the mask was caused
by the gate.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from napari_attention_unet.errors import InputError
from napari_attention_unet.prediction import GateMap, Prediction, Step

from .baseline import Baseline, changed_steps
from .difference import OTHER_CLASS, class_changes, difference_labels
from .table import Column

#: States that a gate can be switched to by name.
SWITCHES = ("computed", "open", "closed", "mean")
#: Painted labels on a gate's grid.
PAINTED_CLOSED, PAINTED_OPEN = 1, 2
#: What the columns of `Intervention.volumes` are.
CHANGE_COLUMNS: tuple[Column, ...] = (
    Column("class", "Class", "", "Class, or foreground (every class but background)."),
    Column("before", "Before", "{volume}", "Volume of the class before."),
    Column("after", "After", "{volume}", "Volume of the class after."),
    Column("change", "Change", "{volume}", "After minus before."),
    Column("change_percent", "Change", "%", "Change in percent of before."),
    Column("gained", "Gained", "voxels", "Voxels that are of the class after, but not before."),
    Column("lost", "Lost", "voxels", "Voxels that are of the class before, but not after."),
    Column(
        "dice",
        "Dice",
        "",
        "Overlap of before and after, 2|A∩B| / (|A|+|B|): 1 is unchanged, 0 has nothing in common.",
    ),
)
#: A name of `SWITCHES`, a number, or an array on the gate's grid.
Switch = str | float | npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Intervention:
    """What the network says with some gates changed.

    Attributes
    ----------
    prediction : Prediction
        With the changed gates; `GateMap.forced` marks them.
    difference : array, shape (z, y, x), uint8
        Against the mask of the baseline: 0 background, 1 unchanged, 2 gained, 3 lost, 4 foreground
        in both but of another class; see `difference.DIFFERENCE`.
    volumes : DataFrame
        A row for all the foreground, then one a class; see `difference.class_changes`.
    changed_class : int
        Voxels that are foreground in both, of another class.
    """

    prediction: Prediction
    difference: npt.NDArray[np.uint8]
    volumes: pd.DataFrame
    changed_class: int


def intervene_steps(
    baseline: Baseline, switches: Mapping[str, Switch]
) -> Generator[Step, None, Intervention]:
    """Run the network with some gates changed, and compare its mask with the baseline's.

    Parameters
    ----------
    baseline : Baseline
        From `baseline_steps`; one serves any number of changes.
    switches : mapping of str to str, float or array
        For each gate that is to change: see `forced_coefficients`.

    Yields
    ------
    Step

    Returns
    -------
    Intervention

    Raises
    ------
    InputError
        If there is no such gate, or a switch cannot be used.
    """
    gates = {}
    for name, switch in switches.items():
        coefficients = forced_coefficients(_gate(baseline.prediction, name), switch)
        if coefficients is not None:
            gates[name] = coefficients
    prediction = yield from changed_steps(baseline, gates)
    before, after = np.asarray(baseline.prediction.mask), np.asarray(prediction.mask)
    difference = difference_labels(before, after)
    return Intervention(
        prediction=prediction,
        difference=difference,
        volumes=class_changes(before, after, prediction.classes, prediction.volume),
        changed_class=int(np.count_nonzero(difference == OTHER_CLASS)),
    )


def forced_coefficients(gate: GateMap, switch: Switch) -> float | npt.NDArray[np.float32] | None:
    """The coefficients that a switch stands for.

    Parameters
    ----------
    gate : GateMap
        As computed.
    switch : str, float or array
        ``"computed"``; ``"open"``, everything passes (see `open_value`); ``"closed"``, nothing
        passes (0); ``"mean"``, the gate's own mean everywhere, so that it passes as much as before
        but prefers no place; a number; or an array of the shape of ``gate.coefficients``: integers
        0 as computed, 1 closed, 2 open, or floating-point coefficients, NaN as computed.

    Returns
    -------
    float, array or None
        As `Settings.gates` takes it; None for as computed.

    Raises
    ------
    InputError
        If it is none of these.
    """
    if isinstance(switch, str):
        if switch not in SWITCHES:
            known = ", ".join(map(repr, SWITCHES))
            raise InputError(
                f"The gate '{gate.name}' cannot be switched to '{switch}'; use {known}, or an "
                "array on its grid."
            )
        return _named(gate, switch)
    array = np.asarray(switch)
    if array.ndim == 0 and array.dtype.kind in "iuf":
        return float(_checked(gate, array.astype(np.float32)))
    if array.shape != gate.coefficients.shape:
        raise InputError(
            f"What is given for the gate '{gate.name}' has the shape {array.shape}; its grid has "
            f"{gate.coefficients.shape} samples."
        )
    if array.dtype.kind in "iu":
        return _painted(gate, array)
    if array.dtype.kind == "f":
        forced: npt.NDArray[np.float32] = _checked(gate, array.astype(np.float32))
        return None if np.isnan(forced).all() else forced
    raise InputError(
        f"What is given for the gate '{gate.name}' is of type {array.dtype}; paint integers "
        "(0 as computed, 1 closed, 2 open), or give coefficients as floating-point numbers."
    )


def open_value(gate: GateMap) -> float:
    """The coefficient of an open gate.

    1 for gates whose features it then passes as they are. The coefficients of a spatial softmax
    share a sum of 1 over the volume, so that 1 everywhere is nothing that the network could have
    met: there it is the gate's largest coefficient, and every place passes as the most attended
    one does.
    """
    return float(np.asarray(gate.coefficients).max()) if gate.kind == "softmax" else 1.0


def _named(gate: GateMap, switch: str) -> float | None:
    if switch == "computed":
        return None
    if switch == "mean":
        return float(np.asarray(gate.coefficients).mean(dtype=np.float64))
    return open_value(gate) if switch == "open" else 0.0


def _painted(gate: GateMap, labels: npt.NDArray[Any]) -> npt.NDArray[np.float32] | None:
    unknown = np.setdiff1d(labels, (0, PAINTED_CLOSED, PAINTED_OPEN))
    if unknown.size:
        raise InputError(
            f"The labels painted for the gate '{gate.name}' have the value {unknown[0]}; paint 0 "
            "for as computed, 1 for closed and 2 for open."
        )
    if not labels.any():
        return None
    forced = np.full(labels.shape, np.nan, np.float32)
    forced[labels == PAINTED_CLOSED] = 0.0
    forced[labels == PAINTED_OPEN] = open_value(gate)
    return forced


def _checked(gate: GateMap, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    known = values[~np.isnan(values)]
    if values.ndim == 0 and not known.size:
        raise InputError(f"The gate '{gate.name}' cannot be set to NaN; give a number.")
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    if not np.isfinite((low, high)).all():
        raise InputError(f"What is given for the gate '{gate.name}' has infinite coefficients.")
    if gate.kind != "candidate" and (low < 0 or high > 1):
        raise InputError(
            f"What is given for the gate '{gate.name}' goes from {low:g} to {high:g}; its "
            "coefficients lie between 0 and 1."
        )
    return values


def _gate(prediction: Prediction, name: str) -> GateMap:
    try:
        return prediction.gate(name)
    except KeyError:
        known = ", ".join(f"'{gate.name}'" for gate in prediction.gates) or "none"
        raise InputError(f"There is no gate '{name}' to change; the gates are: {known}.") from None
