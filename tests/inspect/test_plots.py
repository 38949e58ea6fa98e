"""Figures show the numbers they are given, in the theme's colours, legibly in a narrow panel."""

import io
import sys

import numpy as np
import pandas as pd
import pytest
from inspect_cases import gate_of, prediction_of
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.text import Text
from PIL import Image

from napari_attention_unet.inspect import plots
from napari_attention_unet.inspect.probe import Probe
from napari_attention_unet.inspect.table import measures_table


@pytest.fixture(scope="module")
def prediction():
    rng = np.random.default_rng(0)
    mask = np.zeros((8, 9, 10), np.uint8)
    mask[2:5, 3:6, 4:8] = 1
    mask[5:7, 1:4, 1:4] = 2
    return prediction_of(
        mask,
        gate_of(rng.random((4, 5, 5)), (2.0, 2.0, 2.0), (0.5, 0.5, 0.5), "attentionblock4.gate_1"),
        gate_of(0.2 + 0.6 * (mask > 0), name="att1"),
        units="µm",
    )


@pytest.fixture(scope="module")
def epochs(prediction):
    table = measures_table(prediction)
    return pd.concat([table.assign(epoch=e, auc=0.5 + e / 20) for e in (4, 0, 2)])


@pytest.fixture(scope="module")
def ablation():
    rows = [
        {"gate": gate, "switch": switch, "class": "foreground", "dice": dice}
        for gate, switch, dice in [("a", "closed", 0.25), ("a", "open", np.nan), ("b", "closed", 1)]
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def figures(prediction, epochs, ablation):
    def make(theme):
        line = Probe(prediction).profile((3, 4, 5))
        return {
            "histograms": plots.histograms(prediction, theme),
            "inside_outside": plots.inside_outside(measures_table(prediction), theme),
            "profile": plots.profile(line, prediction, theme, here=3.0),
            "history": plots.history(epochs, theme=theme),
            "ablation": plots.ablation(ablation, theme),
        }

    return make


@pytest.mark.parametrize("theme", [plots.LIGHT, plots.DARK])
def test_all_text_lies_within_a_panel_of_330_pixels_and_is_large_enough(figures, theme):
    for name, figure in figures(theme).items():
        FigureCanvasAgg(figure).draw()
        width, height = figure.get_size_inches()
        assert width * figure.dpi == 330
        box = figure.get_tightbbox()  # of all that is drawn, in inches
        beyond = max(-box.x0, -box.y0, box.x1 - width, box.y1 - height)
        assert beyond * figure.dpi <= 1, f"{name}: something is cut off"
        for text in figure.findobj(Text):
            if text.get_text():
                assert text.get_fontsize() >= 6.5
                assert to_hex(text.get_color()) == theme.foreground


def test_no_state_of_pyplot_is_made(figures):
    figures(plots.LIGHT)
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_a_profile_draws_the_table(prediction):
    table = Probe(prediction).profile((3, 4, 5))
    (ax,) = plots.profile(table, prediction).axes
    lines = {line.get_label(): line for line in ax.lines}
    for gate in prediction.gates:
        np.testing.assert_array_equal(lines[gate.name].get_xdata(), table["distance"])
        np.testing.assert_array_equal(lines[gate.name].get_ydata(), table[f"alpha {gate.name}"])
    assert ax.get_xlabel() == "distance (µm)"
    band = ax.patches[0]  # the class that the line passes, from half a voxel before it
    assert (band.get_x(), band.get_x() + band.get_width()) == (1.5, 4.5)
    assert to_hex(band.get_facecolor()) == prediction.classes[1].color


def test_histograms_are_shares_of_the_voxels_inside_and_outside(prediction):
    figure = plots.histograms(prediction)
    ax = figure.axes[1]  # the gate that is 0.8 inside and 0.2 outside
    for name, value in (("inside", 0.8), ("outside", 0.2)):
        (stairs,) = [p for p in ax.patches if p.get_label() == name]
        values, edges, _ = stairs.get_data()
        (full,) = np.flatnonzero(values)
        assert values[full] == pytest.approx(100)
        assert edges[full] - 1e-6 <= value <= edges[full + 1] + 1e-6


def test_history_is_in_the_order_of_epochs(epochs):
    (ax,) = plots.history(epochs, "auc").axes
    for line in ax.lines[:2]:
        np.testing.assert_array_equal(line.get_xdata(), [0, 2, 4])
        np.testing.assert_allclose(line.get_ydata(), [0.5, 0.6, 0.7])
    assert ax.get_ylabel() == "AUC"
    assert ax.get_title(loc="left") == "class 1"


def test_ablation_has_a_bar_where_there_is_a_number(ablation):
    (ax,) = plots.ablation(ablation).axes
    widths = [bar.get_width() for bar in ax.patches]
    np.testing.assert_array_equal(widths, [0.25, 1.0, np.nan, np.nan])
    assert [t.get_text() for t in ax.texts] == ["0.25", "1.00"]


def test_pictures_are_svg_or_png_of_the_right_size(figures):
    figure = figures(plots.LIGHT)["profile"]
    assert plots.picture(figure).startswith(b"<?xml")
    image = Image.open(io.BytesIO(plots.picture(figure, "png", 2)))
    assert image.width == 660
    assert image.convert("RGBA").getpixel((0, 0))[3] == 0  # transparent ground


def test_a_network_without_gates_gives_empty_figures():
    prediction = prediction_of(np.ones((2, 2, 2), np.uint8))
    assert plots.histograms(prediction).axes == []
    assert plots.inside_outside(measures_table(prediction)).axes == []
