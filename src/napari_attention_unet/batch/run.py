"""A batch in this process: one volume after the other, whatever becomes of each."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .items import Item
from .table import write_results
from .work import Order, Outcome, item_steps, load

if TYPE_CHECKING:
    from napari_attention_unet.model import Model


@dataclass(frozen=True)
class BatchStep:
    """Progress of a batch.

    Attributes
    ----------
    index, count : int
        Of the volume at hand, from 0, and of all.
    name : str
        The volume's.
    share : float
        Of this volume that is done, 0..1.
    message : str
        What is going on with it.
    outcome : Outcome or None
        Of the volume, on its last step.
    """

    index: int
    count: int
    name: str
    share: float
    message: str = ""
    outcome: Outcome | None = None


def batch_steps(
    order: Order, items: Sequence[Item], model: Model | None = None
) -> Generator[BatchStep, None, tuple[Outcome, ...]]:
    """Run volumes one after the other.

    A volume that cannot be run does not stop the others. Each result folder appears complete or
    counts as unfinished, so a batch that was killed goes on with `Order.resume`.

    Parameters
    ----------
    order : Order
        What is wanted.
    items : sequence of Item
        The volumes.
    model : Model, optional
        That of the order, where it is loaded already.

    Yields
    ------
    BatchStep
        Small steps; closing the generator stops the batch, finished volumes stay.

    Returns
    -------
    tuple of Outcome
        One a volume. The measures of all finished ones are in ``results.csv`` and
        ``results.parquet`` of the output folder.

    Raises
    ------
    CheckpointError
        If the model cannot be loaded.
    """
    model = load(order) if model is None else model
    outcomes: list[Outcome] = []
    for index, item in enumerate(items):
        outcome = yield from _followed(model, order, item, index, len(items))
        outcomes.append(outcome)
        yield BatchStep(index, len(items), item.name, 1.0, outcome.message, outcome)
    write_results(Path(order.output), [Path(o.folder) for o in outcomes if o.status != "failed"])
    return tuple(outcomes)


def _followed(
    model: Model, order: Order, item: Item, index: int, count: int
) -> Generator[BatchStep, None, Outcome]:
    steps = item_steps(model, order, item)
    try:
        while True:
            step = next(steps)
            yield BatchStep(index, count, item.name, step.done / step.total, step.message)
    except StopIteration as end:
        outcome: Outcome = end.value
        return outcome
    finally:
        steps.close()
