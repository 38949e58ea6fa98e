"""Text files that come with weights, read only if they are of a reasonable size and depth."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path

_LARGEST = 4 * 2**20
_DEEPEST = 64
_STEPS = {"[": 1, "{": 1, "]": -1, "}": -1}


def read_text(path: Path) -> str:
    """Content of a configuration.

    Raises
    ------
    ValueError
        If it is larger than any configuration, nested so deeply that reading it would take
        forever, or no text.
    OSError
        If it cannot be read.
    """
    if path.stat().st_size > _LARGEST:
        raise ValueError("larger than any configuration")
    text = path.read_text("utf-8")
    if max(accumulate(_STEPS[c] for c in text if c in _STEPS), default=0) > _DEEPEST:
        raise ValueError("its lists lie within each other without end")
    return text
