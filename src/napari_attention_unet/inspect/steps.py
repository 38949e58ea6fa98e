"""Progress of work that is made of several runs."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

from napari_attention_unet.prediction import Prediction, Step

T = TypeVar("T")


def portion(
    steps: Generator[Step, None, T], index: int, count: int, label: str = ""
) -> Generator[Step, None, T]:
    """Follow one of `count` equal parts of a work.

    Parameters
    ----------
    steps : generator of Step
        Of the part.
    index : int
        Of the part, from 0.
    label : str
        What the part is, said before what it is doing.

    Yields
    ------
    Step
        ``done`` of ``total`` is that of the whole work, with a total of `count`.

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
            yield Step(index + share, count, message)
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
