"""Values of options as a person reads and types them, in the panel and on the command line."""

from __future__ import annotations

import ast
from ast import literal_eval
from typing import Any

from napari_attention_unet.errors import InputError

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


def arguments_of(text: str) -> dict[str, Any]:
    """Keyword arguments as they are written in a call: ``"in_channels=1, widths=(8, 16)"``.

    Raises
    ------
    InputError
        If it is anything but names and literals.
    """
    try:
        call = ast.parse(f"call({text})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(k.arg is None for k in call.keywords):
            raise ValueError
        return {str(each.arg): literal_eval(each.value) for each in call.keywords}
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise InputError(
            f"The arguments '{text}' are not understood; write them as in_channels=1, "
            "widths=(8, 16), norm='batch'."
        ) from error
