from __future__ import annotations

import pint
import pytest

from napari_attention_unet import InputError
from napari_attention_unet.units import is_length, long_name, unit_ratio, unit_symbol


@pytest.mark.parametrize(
    ("written", "symbol"),
    [
        *((word, "µm") for word in ("um", "µm", "\u03bcm", "\\u00B5m", "micron", "Microns")),
        *((word, "mm") for word in ("mm", "MM", "millimeter", "millimetres", " mm\x00")),
        *((word, "s") for word in ("s", "sec", "Seconds")),
        *((word, "ms") for word in ("ms", "msec", "millisecond")),
        *((word, "pixel") for word in ("", "pixel", "voxel", None)),
        *((word, "pixel") for word in ("furlong", "millipede", "reference frame")),
        ("inches", "inch"),
        ("angstrom", "Å"),
        ("usec", "µs"),
        ("nanometre", "nm"),
        ("minutes", "min"),
    ],
)
def test_however_a_unit_is_written_its_symbol_is_known(written, symbol):
    assert unit_symbol(written) == symbol


ALL = ["pm", "Å", "nm", "µm", "mm", "cm", "inch", "m", "km", "ns", "µs", "ms", "s", "min", "h", "d"]


@pytest.mark.parametrize("symbol", ALL)
def test_symbols_and_long_names_mean_the_same_to_pint(symbol):
    registry = pint.get_application_registry()
    name = long_name(symbol)
    assert registry.Unit(name) == registry.Unit({"d": "day", "h": "hour"}.get(symbol, symbol))
    assert unit_symbol(name) == symbol
    assert unit_symbol(registry.Unit(name)) == symbol
    assert unit_symbol(f"{registry.Unit(name):~}") == symbol
    base = "s" if symbol in ALL[9:] else "m"
    assert unit_ratio(symbol, base) == pytest.approx(registry.Quantity(1, name).m_as(base))
    assert is_length(symbol) == (base == "m")


def test_ratios():
    assert unit_ratio("mm", "µm") == pytest.approx(1000)
    assert unit_ratio("pixel", "voxel") == 1


@pytest.mark.parametrize(("unit", "target"), [("mm", "s"), ("pixel", "mm")])
def test_what_measures_something_else_is_refused(unit, target):
    with pytest.raises(InputError, match=f"'{unit}' cannot be turned into '{target}'"):
        unit_ratio(unit, target)


def test_no_unit_has_no_long_name():
    assert long_name("pixel") == ""
