"""Values of options as a person reads and types them, in the panel and on the command line."""

from __future__ import annotations

from ast import literal_eval
from typing import Any

_SWITCH = {"yes": True, "true": True, "no": False, "false": False}


def to_text(value: Any) -> str:
    """A value in words: ``yes``, ``2, 2, 1``, ``nearest``."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)[1:-1] if isinstance(value, tuple | list) else str(value)


def from_text(text: str) -> Any:
    """What a person typed: yes or no, a number, a row of numbers such as ``2, 2, 1``, or text.

    Nothing of the text is run: only Python's literals are understood, all else is text.
    """
    text = text.strip()
    if text.lower() in _SWITCH:
        return _SWITCH[text.lower()]
    try:
        return literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
