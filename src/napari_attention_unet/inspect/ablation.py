"""Which gate carries the result: each one closed, open and at its mean, one after the other."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from napari_attention_unet.errors import InputError
from napari_attention_unet.prediction import Prediction, Step

from .baseline import Baseline
from .difference import FOREGROUND, dice
from .interventions import CHANGE_COLUMNS, intervene_steps
from .steps import portion
from .table import Column

#: States that are tried of each gate.
ABLATIONS = ("closed", "open", "mean")
#: What the columns of the ablation table are.
ABLATION_COLUMNS: tuple[Column, ...] = (
    Column("gate", "Gate", "", "The gate that was changed; all others were computed."),
    Column("switch", "Set to", "", "closed (0), open (1), or mean (its own mean everywhere)."),
    Column("coefficient", "Coefficient", "", "What the gate was set to."),
    *CHANGE_COLUMNS,
    Column("reference_dice", "Dice with reference", "", "Overlap with the reference labels."),
    Column(
        "reference_change",
        "Gain in Dice",
        "",
        "Dice with the reference, minus that of the unchanged mask: below 0 the gate helps.",
    ),
)


def ablation_steps(
    baseline: Baseline,
    reference: npt.NDArray[Any] | None = None,
    switches: Sequence[str] = ABLATIONS,
    gates: Sequence[str] | None = None,
) -> Generator[Step, None, pd.DataFrame]:
    """Change each gate by itself, and compare the masks with the unchanged one.

    Parameters
    ----------
    baseline : Baseline
        From `baseline_steps`.
    reference : array, shape (z, y, x), integer, optional
        Labels that are right, with the values of the mask, to tell what each gate is worth.
    switches : sequence of str
        Any of `interventions.SWITCHES`.
    gates : sequence of str, optional
        Names; all of them where not given.

    Yields
    ------
    Step

    Returns
    -------
    DataFrame
        A row for each gate, switch and class, the class ``"foreground"`` first (all classes but
        the background): ``gate``, ``switch``, ``coefficient`` (that the gate was set to), and the
        columns of `difference.class_changes`, of which ``dice`` is against the unchanged mask.
        With `reference` also ``reference_dice``, and ``reference_change``, by how much it is
        better than that of the unchanged mask. ``attrs["unit"]`` is that of the volumes. See
        `ABLATION_COLUMNS`.

    Raises
    ------
    InputError
        If the network has no gates, or the reference does not lie on the mask's grid.
    """
    names = [gate.name for gate in baseline.prediction.gates] if gates is None else list(gates)
    if not names:
        raise InputError(
            f"The network of '{baseline.model.name}' has no attention gates to change."
        )
    if reference is not None:
        reference = _checked_reference(baseline, reference)
    runs = [(name, switch) for name in names for switch in switches]
    tables = []
    for index, (name, switch) in enumerate(runs):
        label = f"{name} {switch}"
        work = intervene_steps(baseline, {name: switch})
        changed = yield from portion(work, index, len(runs), label)
        table = changed.volumes.copy()
        table.insert(0, "gate", name)
        table.insert(1, "switch", switch)
        mean = np.asarray(changed.prediction.gate(name).coefficients).mean(dtype=np.float64)
        table.insert(2, "coefficient", float(mean))
        if reference is not None:
            before = _against(baseline.prediction, reference)
            after = _against(changed.prediction, reference)
            table["reference_dice"] = after
            table["reference_change"] = np.subtract(after, before)
        tables.append(table)
    made = pd.concat(tables, ignore_index=True)
    made.attrs |= tables[0].attrs
    return made


def most_needed(ablation: pd.DataFrame) -> str | None:
    """The gate without which the mask changes most.

    That is the one of lowest mean Dice over the classes when it is closed: the foreground as a
    whole may stay where its classes trade places.

    Returns
    -------
    str or None
        None where no gate was closed, or the masks are empty.
    """
    rows = ablation[(ablation["switch"] == "closed") & (ablation["class"] != FOREGROUND)]
    means = rows.groupby("gate", sort=False)["dice"].mean().dropna().sort_values()
    return None if means.empty else str(means.index[0])


def _checked_reference(baseline: Baseline, reference: npt.NDArray[Any]) -> npt.NDArray[Any]:
    reference, shape = np.asarray(reference), baseline.prediction.mask.shape
    if reference.shape != shape:
        raise InputError(
            f"The reference labels have the shape {reference.shape}, the mask {shape}; give labels "
            "on the grid of the volume."
        )
    return reference


def _against(prediction: Prediction, reference: npt.NDArray[Any]) -> list[float]:
    """Dice of the foreground and of each class, as the rows of `class_changes`."""
    mask = np.asarray(prediction.mask)
    values = range(1, len(prediction.classes))
    return [
        dice(mask > 0, reference > 0),
        *(dice(mask == value, reference == value) for value in values),
    ]
