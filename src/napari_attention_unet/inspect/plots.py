"""Figures of measures, made for a narrow panel: readable at 330 pixels of width.

Each function returns a matplotlib `Figure` of its own and touches no global state of matplotlib.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.figure import Figure

from napari_attention_unet.prediction import GateMap, Prediction

from .assignment import Assignment, serve
from .table import COLUMNS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

_TITLES = {column.name: column.title for column in COLUMNS}
_BINS = 40


@dataclass(frozen=True)
class Theme:
    """Colours and size of a figure.

    Attributes
    ----------
    foreground, dim, background : str
        ``"#rrggbb"``: of text, of lines that step back, and of the ground; an empty background is
        transparent.
    curves : tuple of str
        Colours that tell gates apart, taken round and round.
    inside, outside : str
        Colours of what is in a region and what is not.
    width : float
        In pixels, at 100 to the inch.
    points : float
        Size of text.
    """

    foreground: str = "#1b1b1f"
    dim: str = "#b9b9c2"
    background: str = ""
    curves: tuple[str, ...] = ("#0072b2", "#b35900", "#00734f", "#a8457f", "#6d6200", "#b3200e")
    inside: str = "#0072b2"
    outside: str = "#8a8a94"
    width: float = 330
    points: float = 8

    def curve(self, index: int) -> str:
        """Colour of the gate with that index."""
        return self.curves[index % len(self.curves)]


LIGHT = Theme()
DARK = Theme(
    foreground="#e8e8ee",
    dim="#55555f",
    curves=("#56b4e9", "#e69f00", "#2fc59a", "#e08bbd", "#f0e442", "#f07a3c"),
    inside="#56b4e9",
    outside="#9a9aa6",
)


def histograms(prediction: Prediction, theme: Theme = LIGHT, label: int | None = None) -> Figure:
    """Distribution of each gate's coefficients over voxels inside and outside a region.

    Parameters
    ----------
    prediction : Prediction
    theme : Theme
    label : int, optional
        A class of the mask; the foreground if omitted.
    """
    gates = prediction.gates
    mask = np.asarray(prediction.mask)
    region = mask > 0 if label is None else mask == label
    assignments = [Assignment(gate, mask.shape) for gate in gates]
    served, _ = serve(assignments, region, True, tuple(slice(0, n) for n in region.shape))
    limits = [_limits(gate) for gate in gates]
    figure, axes = _figure(theme, len(gates), 72, share_x=len(set(limits)) == 1)
    for index, (ax, gate, assignment) in enumerate(zip(axes, gates, assignments, strict=True)):
        inside = served[index]
        edges = np.linspace(*limits[index], _BINS + 1)
        outside = assignment.everything()
        outside[inside.samples] -= inside.counts
        for values, counts, colour, name in (
            (assignment.alpha, outside, theme.outside, "outside"),
            (inside.alpha, inside.counts, theme.inside, "inside"),
        ):
            shares = np.histogram(values, edges, weights=counts)[0] / max(1, counts.sum())
            ax.stairs(100 * shares, edges, color=colour, fill=True, alpha=0.35)
            ax.stairs(100 * shares, edges, color=colour, linewidth=1.2, label=name)
        ax.set_title(gate.name, fontsize=theme.points, color=theme.foreground, loc="left", pad=3)
        ax.set_xlim(edges[0], edges[-1])
    if axes:
        axes[-1].set_xlabel("coefficient")
        figure.supylabel("% of voxels", fontsize=theme.points, color=theme.foreground)
        _legend(figure, axes[0], theme)
    return figure


def inside_outside(table: DataFrame, theme: Theme = LIGHT) -> Figure:
    """Mean coefficient of each gate inside and outside each region, with its spread inside.

    Parameters
    ----------
    table : DataFrame
        From `table.measures_table`, by class or foreground, of a single time point.
    theme : Theme
    """
    regions = list(dict.fromkeys(table["region"]))
    gates = list(dict.fromkeys(table["gate"]))
    figure, axes = _figure(theme, len(regions), 34 + 22 * len(gates))
    rows = np.arange(len(gates))
    for ax, region in zip(axes, regions, strict=True):
        part = table[table["region"] == region].set_index("gate").loc[gates]
        spread: dict[str, Any] = {"color": theme.inside, "alpha": 0.35, "linewidth": 5}
        ax.hlines(rows, part["p5"], part["p95"], label="5th to 95th percentile", **spread)
        ax.plot(part["inside"], rows, "o", color=theme.inside, markersize=5.5, label="inside")
        ax.plot(
            part["outside"], rows, "D", color=theme.outside, markersize=4.5, label="outside",
            fillstyle="none", markeredgewidth=1.4,
        )  # fmt: skip
        ax.set_yticks(rows, gates)
        ax.set_ylim(len(gates) - 0.5, -0.5)
        ax.set_title(region, fontsize=theme.points, color=theme.foreground, loc="left", pad=3)
    if axes:
        highest = np.nanmax([1.0, *table["p95"], *table["outside"]])
        softmax = bool((table["kind"] == "softmax").all())
        axes[-1].set_xlim(0, None if softmax else highest)
        axes[-1].set_xlabel("coefficient")
        _legend(figure, axes[0], theme)
    return figure


def profile(
    table: DataFrame, prediction: Prediction, theme: Theme = LIGHT, here: float | None = None
) -> Figure:
    """Coefficients of all gates along a line, over the classes that it passes.

    Parameters
    ----------
    table : DataFrame
        From `Probe.profile` or `Probe.along`.
    prediction : Prediction
        Of which it was read.
    theme : Theme
    here : float, optional
        Distance to mark.
    """
    figure, (ax,) = _figure(theme, 1, 190)
    distance = table["distance"].to_numpy()
    for index, (name, column) in enumerate(table.attrs["gates"].items()):
        ax.plot(distance, table[column], color=theme.curve(index), linewidth=1.3, label=name)
    _class_bands(ax, distance, table["label"].to_numpy(), prediction)
    if here is not None:
        ax.axvline(here, color=theme.foreground, linewidth=0.8, linestyle=":")
    if len(distance) > 1:
        ax.set_xlim(distance[0], distance[-1])
    ax.set_xlabel(f"distance ({table.attrs['units']})")
    ax.set_ylabel("coefficient")
    _legend(figure, ax, theme)
    return figure


def history(
    table: DataFrame,
    measure: str = "auc",
    region: str | None = None,
    theme: Theme = LIGHT,
    word: str = "epoch",
) -> Figure:
    """A measure of every gate over the epochs of a training.

    Parameters
    ----------
    table : DataFrame
        As of `history.History.measures`: a table of measures with the column ``epoch``.
    measure : str
        A column of `table.COLUMNS`.
    region : str, optional
        Class to show; the first if omitted.
    theme : Theme
    word : str
        What the epochs are called.
    """
    shown = region if region is not None else table["region"].iloc[0]
    part = table[table["region"] == shown]
    figure, (ax,) = _figure(theme, 1, 190)
    for index, (name, rows) in enumerate(part.groupby("gate", sort=False)):
        rows = rows.sort_values("epoch")
        ax.plot(
            rows["epoch"], rows[measure], "o-", color=theme.curve(index), label=name,
            linewidth=1.3, markersize=3,
        )  # fmt: skip
    if measure == "auc":
        ax.axhline(0.5, color=theme.dim, linewidth=0.8, linestyle=":")
    ax.set_xlabel(word)
    ax.set_ylabel(_TITLES.get(measure, measure))
    ax.set_title(str(shown), fontsize=theme.points, color=theme.foreground, loc="left", pad=3)
    _legend(figure, ax, theme)
    return figure


def ablation(table: DataFrame, theme: Theme = LIGHT, region: str = "foreground") -> Figure:
    """Dice against the unchanged mask of each gate and switch.

    Parameters
    ----------
    table : DataFrame
        From `ablation.ablation_steps`: columns ``gate``, ``switch``, ``class`` and ``dice``.
    theme : Theme
    region : str
        The class to show.
    """
    part = table[table["class"] == region]
    gates = list(dict.fromkeys(part["gate"]))
    switches = list(dict.fromkeys(part["switch"]))
    figure, (ax,) = _figure(theme, 1, 60 + 14 * len(gates) * max(1, len(switches)))
    height = 0.8 / max(1, len(switches))
    for index, switch in enumerate(switches):
        rows = part[part["switch"] == switch].set_index("gate").reindex(gates)
        at = np.arange(len(gates)) + (index - (len(switches) - 1) / 2) * height
        ax.barh(at, rows["dice"], height * 0.85, color=theme.curve(index), label=switch)
        for y, value in zip(at, rows["dice"], strict=True):
            if np.isfinite(value):
                ax.text(
                    value + 0.01, y, f"{value:.2f}", va="center",
                    fontsize=theme.points - 1.5, color=theme.foreground,
                )  # fmt: skip
    ax.set_yticks(np.arange(len(gates)), gates)
    ax.set_ylim(len(gates) - 0.5, -0.5)
    ax.set_xlim(0, 1.12)
    ax.set_xticks(np.linspace(0, 1, 6))
    ax.set_xlabel("Dice against the unchanged mask")
    ax.set_title(region, fontsize=theme.points, color=theme.foreground, loc="left", pad=3)
    _legend(figure, ax, theme)
    return figure


def picture(figure: Figure, kind: Literal["svg", "png"] = "svg", scale: float = 1.0) -> bytes:
    """A figure as SVG, or as PNG with `scale` times as many pixels."""
    stream = io.BytesIO()
    metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {}
    figure.savefig(
        stream, format=kind, dpi=100 * scale, metadata=metadata, facecolor=figure.get_facecolor()
    )
    return stream.getvalue()


def _figure(
    theme: Theme, rows: int, height: float, share_x: bool = True
) -> tuple[Figure, list[Axes]]:
    """A figure of `rows` plots, each about `height` pixels high."""
    size = theme.width / 100, (height * max(1, rows) + 44) / 100
    figure = Figure(size, dpi=100, layout="constrained")
    figure.set_facecolor(theme.background or "none")
    axes: list[Axes] = []
    if rows:
        axes = list(figure.subplots(rows, 1, sharex=share_x, squeeze=False)[:, 0])
    for ax in axes:
        ax.set_facecolor("none")
        ax.tick_params(colors=theme.foreground, labelsize=theme.points, length=2.5, pad=2)
        for name, spine in ax.spines.items():
            spine.set_visible(name in ("left", "bottom"))
            spine.set_color(theme.dim)
        for label in (ax.xaxis.label, ax.yaxis.label):
            label.set_color(theme.foreground)
            label.set_fontsize(theme.points)
    return figure, axes


def _legend(figure: Figure, ax: Axes, theme: Theme) -> None:
    """The legend of one plot, above all of them."""
    handles, labels = ax.get_legend_handles_labels()
    if not handles:
        return
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=min(4, len(labels)),
        frameon=False,
        fontsize=theme.points,
        labelcolor=theme.foreground,
        handlelength=1.2,
        columnspacing=1.0,
        borderpad=0.1,
    )


def _limits(gate: GateMap) -> tuple[float, float]:
    """Range of the coefficients that a gate can have, or of those it has."""
    low, high = float(np.min(gate.coefficients)), float(np.max(gate.coefficients))
    if gate.kind != "softmax" and low >= 0 and high <= 1:
        return 0.0, 1.0
    return (low, high) if high > low else (low, low + max(abs(low), 1.0) * 1e-3)


def _class_bands(ax: Axes, distance: Any, labels: Any, prediction: Prediction) -> None:
    """Colour the ground beneath a profile by class."""
    if len(distance) < 2:
        return
    half = np.diff(distance) / 2
    edges = np.concatenate([distance[:1], distance[:-1] + half, distance[-1:]])
    starts = np.flatnonzero(np.r_[True, labels[1:] != labels[:-1]])
    for start, stop in zip(starts, [*starts[1:], len(labels)], strict=True):
        value = int(labels[start])
        if 0 < value < len(prediction.classes):
            info = prediction.classes[value]
            ax.axvspan(edges[start], edges[stop], color=info.color, alpha=0.22, linewidth=0)
