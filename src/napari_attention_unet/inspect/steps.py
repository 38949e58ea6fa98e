"""Progress of work that is made of several runs."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

from napari_attention_unet.prediction import Prediction, Step

T = TypeVar("T")


def portion(
    steps: Generator[Step, None, T],
    start: float,
    total: float,
    label: str = "",
    length: float = 1.0,
) -> Generator[Step, None, T]:
    """Follow a part of a work.

    Parameters
    ----------
    steps : generator of Step
        Of the part.
    start, total : float
        Where the part begins in the whole work, and how long that is.
    label : str
        What the part is, said before what it is doing.
    length : float
        Of the part.

    Yields
    ------
    Step
        Of the whole work.

    Returns
    -------
    object
        What the part returns.
    """
    try:
        while True:
            step = next(steps)
            share = min(step.done / step.total, 1.0) if step.total else 0.0
            message = f"{label}: {step.message}" if label else step.message
            yield Step(start + length * share, total, message)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        steps.close()


def predicted(steps: Generator[Step, None, None]) -> Generator[Step, None, Prediction]:
    """Follow a run of `predict_steps`, and return its prediction."""
    prediction = None
    try:
        for step in steps:
            prediction = step.prediction
            yield Step(step.done, step.total, step.message)
    finally:
        steps.close()
    assert prediction is not None
    return prediction
