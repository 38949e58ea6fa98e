from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from napari.layers import Image

from napari_attention_unet._qt.gate_row import GateRow, ShownGate
from napari_attention_unet._qt.legend import ColourBar
from napari_attention_unet.inspect.measures import GateMeasures, flag_words

MEASURES = GateMeasures(
    "att2", "sigmoid", 0.1, 0.9, 0.4, low=0.2, high=0.8, inside=0.6, outside=0.3, auc=0.87, flag=""
)


def shown(*measures: GateMeasures) -> ShownGate:
    layer = Image(np.linspace(0, 1, 64).reshape(4, 4, 4), contrast_limits=(0, 1), visible=False)
    return ShownGate(layer, "1/2", measures or (MEASURES,))


def test_display_range_of_each_kind():
    assert shown().limits("full") == (0.0, 1.0)
    assert shown().limits("percentile") == (0.2, 0.8)
    softmax = replace(MEASURES, kind="softmax", minimum=1e-6, maximum=3e-4)
    assert shown(softmax).limits("full") == (0.0, 3e-4)
    candidate = replace(MEASURES, kind="candidate", minimum=-1.0, maximum=2.0)
    assert shown(candidate).limits("full") == (-1.0, 2.0)


def test_display_range_spans_all_time_points_and_is_never_empty():
    later = replace(MEASURES, low=0.1, high=0.5)
    assert shown(MEASURES, later).limits("percentile") == (0.1, 0.8)
    low, high = shown(replace(MEASURES, low=0.3, high=0.3)).limits("percentile")
    assert low == 0.3 < high


@pytest.mark.parametrize("flag", ["dead", "saturated", "constant"])
def test_a_flag_is_put_in_words(flag, qtbot):
    measures = replace(MEASURES, flag=flag)
    row = GateRow(shown(measures))
    qtbot.addWidget(row)
    assert flag_words(measures)
    assert row.flag.text() == flag_words(measures)
    assert not row.flag.isHidden()


def test_a_row_shows_its_numbers_and_follows_its_layer(qtbot):
    gate = shown(MEASURES, replace(MEASURES, inside=0.5, auc=float("nan")))
    row = GateRow(gate)
    qtbot.addWidget(row)
    assert row.flag.isHidden()
    assert row.numbers.text() == "▲ inside 0.60   △ outside 0.30   AUC 0.87"
    assert row.extent.text() == "0.10–0.90"
    assert row.bar.texts == ("0.00", "1.00")
    row.show_time(1)
    assert "inside 0.50" in row.numbers.text()
    assert "AUC –" in row.numbers.text()

    assert not row.eye.isChecked()
    gate.layer.visible = True
    assert row.eye.isChecked()
    row.eye.click()
    assert not gate.layer.visible
    gate.layer.contrast_limits = (0.2, 0.8)
    assert row.bar.texts == ("0.20", "0.80")

    row.detach()
    gate.layer.visible = True
    assert not row.eye.isChecked()


def test_the_colour_bar_paints_its_colours_in_order(qtbot):
    bar = ColourBar()
    qtbot.addWidget(bar)
    bar.resize(240, bar.sizeHint().height())
    ramp = np.zeros((64, 4))
    ramp[:, 0] = np.linspace(0, 1, 64)  # from black to red
    ramp[:, 3] = 1
    bar.set_colours(ramp)
    bar.set_marks(0.75, 0.25)
    bar.set_ink("#00ff00", "#ffffff")
    picture = bar.grab().toImage()
    reds = [picture.pixelColor(x, 6).red() for x in range(60, 180, 20)]
    assert reds == sorted(reds)
    assert reds[-1] - reds[0] > 100
    green = [
        x
        for x in range(50, 190)
        if any(picture.pixelColor(x, y).green() > 150 for y in range(12, 17))
    ]
    middle = 120
    assert min(green) < middle < max(green), "a mark on either side of the middle"
