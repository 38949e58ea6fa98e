"""Names and sizes of the units in which files and viewers state lengths and times."""

from __future__ import annotations

from napari_attention_unet.errors import InputError

_LENGTHS = {
    "pm": 1e-12,
    "Å": 1e-10,
    "nm": 1e-9,
    "µm": 1e-6,
    "mm": 1e-3,
    "cm": 1e-2,
    "inch": 0.0254,
    "m": 1.0,
    "km": 1e3,
}
_TIMES = {"ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {**_LENGTHS, **_TIMES}
_PREFIXES = {"pico": "p", "nano": "n", "micro": "µ", "milli": "m", "centi": "c", "kilo": "k"}
_OTHER_NAMES = {
    "u": "µm",
    "micron": "µm",
    "microns": "µm",
    "mc": "µm",
    "angstrom": "Å",
    "ångström": "Å",
    "in": "inch",
    "inches": "inch",
    '"': "inch",
    "meter": "m",
    "metre": "m",
    "second": "s",
    "sec": "s",
    "msec": "ms",
    "usec": "µs",
    "minute": "min",
    "hour": "h",
    "hr": "h",
    "day": "d",
}
#: What `unit_symbol` gives where the text names no unit.
NO_UNIT = "pixel"


def unit_symbol(text: object) -> str:
    r"""The short symbol of a unit of length or time.

    Parameters
    ----------
    text : object
        However a file or viewer wrote it: ``"micron"``, ``"um"``, ``"\\u00B5m"`` (ImageJ's way),
        ``"millimeter"``, a pint unit, ...

    Returns
    -------
    str
        ``"µm"`` (with U+00B5), ``"mm"``, ``"s"``, ...; ``"pixel"`` where no known unit is named.
    """
    word = str(text).strip().strip("\x00")
    word = word.replace("\\u00B5", "µ").replace("\\u00b5", "µ").replace("μ", "µ")
    for name in (word, word.lower()):
        for form in (name, name.removesuffix("s") if len(name) > 3 else name):
            if form in _SIZES:
                return form
            if form in _OTHER_NAMES:
                return _OTHER_NAMES[form]
            if form.startswith("u") and "µ" + form[1:] in _SIZES:
                return "µ" + form[1:]
            for prefix, letter in _PREFIXES.items():
                base = _OTHER_NAMES.get(form.removeprefix(prefix))
                if base and form.startswith(prefix) and letter + base in _SIZES:
                    return letter + base
    return NO_UNIT


def unit_ratio(unit: str, target: str) -> float:
    """How many `target` one `unit` is, e.g. 1000 for ``("mm", "µm")``.

    Raises
    ------
    InputError
        If the two do not measure the same.
    """
    unit, target = unit_symbol(unit), unit_symbol(target)
    if unit == target:
        return 1.0
    for table in (_LENGTHS, _TIMES):
        if unit in table and target in table:
            return table[unit] / table[target]
    raise InputError(f"'{unit}' cannot be turned into '{target}'; give the voxel size in {target}.")


def is_length(unit: str) -> bool:
    """Whether the unit measures lengths."""
    return unit_symbol(unit) in _LENGTHS


def long_name(unit: str) -> str:
    """The unit in full, as OME-NGFF and pint write it, e.g. ``"micrometer"``; empty if unknown."""
    symbol = unit_symbol(unit)
    full = {"Å": "angstrom", "inch": "inch", "min": "minute", "h": "hour", "d": "day"}
    if symbol in full:
        return full[symbol]
    prefixes = {letter: prefix for prefix, letter in _PREFIXES.items()}
    base = {"m": "meter", "s": "second"}.get(symbol[-1:], "")
    if symbol not in _SIZES:
        return ""
    return prefixes.get(symbol[:-1], "") + base
