"""A report of one result as a single HTML page: nothing in it is fetched from anywhere.

Pictures are embedded. It follows the reader's choice of light or dark, and prints on A4.
"""

from __future__ import annotations

import base64
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from napari_attention_unet.graph.lower import finished
from napari_attention_unet.io.layers import GATE_COLORMAP, contrast_limits
from napari_attention_unet.prediction import GateMap, Prediction, Step
from napari_attention_unet.volume import Volume

from . import plots
from .ablation import ABLATION_COLUMNS
from .measures import GateMeasures, flag_words, gate_measures, most_telling
from .probe import Probe
from .reference import CLASS_COLUMNS, GATE_COLUMNS, ReferenceComparison
from .table import COLUMNS, Column, csv_text, measures_table
from .views import Views, telling_voxel

if TYPE_CHECKING:
    from pandas import DataFrame

#: Columns of the measures that fit a printed page; all of them are in the CSV.
_SHOWN = (
    "region", "gate", "grid", "volume", "inside", "outside", "ratio", "auc", "above_half",
    "saturation", "centroid_distance", "entropy", "flag",
)  # fmt: skip
_ABLATION = (
    "gate", "switch", "class", "dice", "change_percent", "gained", "lost", "reference_change",
)  # fmt: skip
_CAUSES = (
    "Each gate is set by itself to closed (0), open (1) or its mean, and the network is run again. "
    "The lower the Dice against the unchanged mask, the more the result depends on that gate: "
    "evidence of a cause, which a map alone is not."
)


@dataclass(frozen=True)
class Extras:
    """What a report can tell beside the result itself.

    Attributes
    ----------
    reference : ReferenceComparison or None
        From `reference.compare_with_reference`.
    ablation : DataFrame or None
        From `ablation.ablation_steps`.
    history : DataFrame or None
        As of `history.History.measures`.
    about_model : dict of str to str
        More facts for the section on where the result came from, e.g. a model's limits.
    """

    reference: ReferenceComparison | None = None
    ablation: DataFrame | None = None
    history: DataFrame | None = None
    about_model: dict[str, str] = field(default_factory=dict)


def report_steps(
    prediction: Prediction | Sequence[Prediction],
    image: Volume | None = None,
    extras: Extras | None = None,
    title: str | None = None,
) -> Generator[Step, None, str]:
    """Write the report of a result.

    Parameters
    ----------
    prediction : Prediction or sequence of Prediction
        Of a time series the first time point is shown; its measures are given over time.
    image : Volume or None
        The volume that was run, with its voxels; None draws the gates on black.
    extras : Extras, optional
        What else there is to tell.
    title : str, optional
        The volume's and the model's name if omitted.

    Yields
    ------
    Step

    Returns
    -------
    str
        A complete HTML page.
    """
    series = [prediction] if isinstance(prediction, Prediction) else list(prediction)
    first, extras = series[0], extras or Extras()
    total = 4 + len(first.gates)
    yield Step(0, total, "Measuring the gates")
    measures = gate_measures(first)
    by_class = measures_table(first)
    yield Step(1, total, "Drawing the views")
    voxel = telling_voxel(first)
    views = Views(first, image, voxel)
    shown = [_image_view(first, views, image)]
    for index, gate in enumerate(first.gates):
        shown.append(_gate_view(gate, measures[index], views))
        yield Step(2 + index, total, "Drawing the views")
    drawn = list(_plots(first, by_class, voxel))
    yield Step(total - 2, total, "Drawing the plots")
    parts = list(_parts(series, extras))
    yield Step(total - 1, total, "Writing the report")
    model = str(first.provenance.get("model", "unknown model"))
    name = first.volume.name
    low, high = _scale(first.gates)
    facts = _facts(first)
    facts += [{"term": k, "text": v} for k, v in extras.about_model.items()]
    page: str = _template().render(
        title=title or f"{name}: where {model} looks",
        subtitle=_subtitle(series),
        summary=_summary(first, measures, by_class),
        warnings=_warnings(measures, first, image),
        slices=_slices(first, voxel, views.names),
        classes=[{"name": c.name, "color": c.color} for c in first.classes[1:]],
        scale=(low, high),
        gradient=_gradient(),
        views=shown,
        measures=_sheet(by_class, COLUMNS, _SHOWN, group="region") if first.gates else None,
        measures_csv=_data_uri(csv_text(by_class).encode(), "text/csv;charset=utf-8"),
        glossary=_glossary(by_class),
        plots=drawn,
        parts=parts,
        facts=facts,
        assumptions=first.provenance.get("assumptions", []),
    )
    yield Step(total, total, "Writing the report")
    return page


def report(
    prediction: Prediction | Sequence[Prediction],
    image: Volume | None = None,
    extras: Extras | None = None,
    title: str | None = None,
) -> str:
    """`report_steps`, run out."""
    return finished(report_steps(prediction, image, extras, title))


def save_report(page: str, path: str | Path) -> Path:
    """Write a report to a file, which is complete or not there at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part-{path.name}")
    try:
        part.write_text(page, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


# --- words --------------------------------------------------------------------------------------


def _subtitle(series: list[Prediction]) -> str:
    first = series[0]
    shape = " × ".join(map(str, first.mask.shape))
    size = " × ".join(f"{s:g}" for s in first.volume.spacing)
    said = [
        str(first.provenance.get("architecture", "")),
        f"{shape} voxels (z, y, x) of {size} {first.volume.units}",
    ]
    if len(series) > 1:
        said.append(f"the first of {len(series)} time points is shown")
    return ", ".join(filter(None, said))


def _summary(
    prediction: Prediction, measures: list[GateMeasures], by_class: DataFrame
) -> list[str]:
    unit = by_class.attrs["volume"]
    volumes = [
        f"{row['region']} {_large(row['volume'])} {unit}"
        for row in by_class.drop_duplicates("label").to_dict("records")
        if row["voxels"] > 0
    ]
    said = [f"The mask has {_and(volumes)}." if volumes else "The mask is empty."]
    name = most_telling(measures)
    if not measures:
        said.append("This network has no attention gates.")
    elif name is not None:
        best = next(m for m in measures if m.name == name)
        if np.isfinite(best.auc):
            said.append(
                f"Of its {len(measures)} gates {best.name} tells the foreground best: a voxel of "
                f"the mask has a higher coefficient than one outside in {100 * best.auc:.0f} % of "
                f"all pairs (AUC {best.auc:.2f}), with a mean of {best.inside:.2f} inside and "
                f"{best.outside:.2f} outside."
            )
    return said


def _warnings(
    measures: list[GateMeasures], prediction: Prediction, image: Volume | None
) -> list[str]:
    said = [f"{m.name} is {m.flag}. {flag_words(m)}" for m in measures if m.flag]
    forced = [gate.name for gate in prediction.gates if gate.forced]
    if forced:
        said.append(f"The coefficients of {_and(forced)} were imposed, not computed.")
    if image is None:
        said.append("The image was not at hand, so the views show the result alone.")
    return said + [str(note) for note in prediction.provenance.get("notes", [])]


def _slices(prediction: Prediction, voxel: tuple[int, int, int], names: Sequence[str]) -> str:
    world = (prediction.volume.index_to_world @ [*voxel, 1])[:3]
    place = ", ".join(f"{w:.4g}" for w in world)
    said = (
        f"Slices ({', '.join(names)}) through voxel {voxel} (z, y, x), at ({place}) "
        f"{prediction.volume.units}, where they show most of the mask. The white line is "
        "its outline."
    )
    if prediction.volume.orientation:
        said += " Letters name the sides of the body: A anterior, P posterior, S superior, "
        said += "I inferior, L left, R right."
    return said


def _facts(prediction: Prediction) -> list[dict[str, str]]:
    said, volume = prediction.provenance, prediction.volume
    versions = said.get("versions", {})
    seconds = said.get("seconds", {})
    facts = {
        "Model": said.get("model"),
        "SHA-256 of the model": said.get("sha256"),
        "Architecture": said.get("architecture"),
        "Image": volume.storage.path if volume.storage else volume.name,
        "Voxel size (z, y, x)": f"{_times(volume.spacing)} {volume.units}",
        "Network's grid": _network_grid(said),
        "Normalisation": (said.get("normalization") or {}).get("kind"),
        "Device": said.get("device_label"),
        "Precision": said.get("precision"),
        "Plan": _join(said.get("plan"), said.get("plan_reason"), ": "),
        "Time": f"{seconds['total']:.1f} s" if "total" in seconds else None,
        "Versions": ", ".join(f"{k} {v}" for k, v in versions.items()),
    }
    return [{"term": term, "text": str(text)} for term, text in facts.items() if text]


def _network_grid(said: dict[str, Any]) -> str:
    grid = said.get("network_grid")
    if not grid:
        return ""
    return f"{_times(grid['shape'])} voxels of {_times(grid['voxel_size'])} {said.get('units', '')}"


def _glossary(table: DataFrame) -> list[dict[str, str]]:
    return [
        {"term": column.heading(table), "text": column.description}
        for column in COLUMNS
        if column.name in _shown(table, _SHOWN)
    ]


# --- pictures -----------------------------------------------------------------------------------


def _image_view(prediction: Prediction, views: Views, image: Volume | None) -> dict[str, Any]:
    figure = views.image_and_mask()
    what = "Image and mask" if image is not None else "Mask"
    return _view(figure, what, "", f"{what} of {prediction.volume.name} in three slices")


def _gate_view(gate: GateMap, measured: GateMeasures, views: Views) -> dict[str, Any]:
    low, high = contrast_limits(gate.coefficients, gate.kind)
    caption = (
        f"grid {gate.label} ({_times(gate.coefficients.shape)}), coefficients "
        f"{measured.minimum:.3g} to {measured.maximum:.3g}, colours from {low:.3g} to {high:.3g}."
    )
    return _view(views.gate(gate), gate.name, caption, f"Coefficients of {gate.name}")


def _view(figure: Figure, name: str, caption: str, alt: str) -> dict[str, Any]:
    width, height = figure.get_size_inches() * figure.dpi
    return {
        "picture": _data_uri(plots.picture(figure, "png", 1.5), "image/png"),
        "name": name,
        "caption": caption,
        "alt": alt,
        "width": round(width),
        "height": round(height),
    }


def _plots(
    prediction: Prediction, table: DataFrame, voxel: tuple[int, int, int]
) -> Iterable[dict[str, str]]:
    if not prediction.gates:
        return
    yield _plot(
        "Mean coefficient in each class (dot), with its 5th to 95th percentile (bar), and outside "
        "the class (diamond).",
        *(plots.inside_outside(table, theme) for theme in (plots.LIGHT, plots.DARK)),
    )
    yield _plot(
        "Coefficients of all voxels in the mask and outside.",
        *(plots.histograms(prediction, theme) for theme in (plots.LIGHT, plots.DARK)),
    )
    line = Probe(prediction, "linear").profile(voxel)
    here = float(line["distance"].iloc[voxel[0]])
    yield _plot(
        f"Along z through the point of the slices (dotted), linear between samples. The ground is "
        f"coloured by class. From voxel (0, {voxel[1]}, {voxel[2]}).",
        *(plots.profile(line, prediction, t, here) for t in (plots.LIGHT, plots.DARK)),
    )


def _plot(caption: str, light: Figure, dark: Figure) -> dict[str, str]:
    return {
        "light": _data_uri(plots.picture(light), "image/svg+xml"),
        "dark": _data_uri(plots.picture(dark), "image/svg+xml"),
        "caption": caption,
        "alt": caption,
    }


def _parts(series: list[Prediction], extras: Extras) -> Iterable[dict[str, Any]]:
    themes = (plots.LIGHT, plots.DARK)
    if extras.reference is not None:
        found = extras.reference
        yield {
            "title": "Against the reference",
            "text": [f"{c.title}: {c.description}" for c in CLASS_COLUMNS[4:]],
            "plots": [],
            "tables": [
                _sheet(found.classes, CLASS_COLUMNS, [c.name for c in CLASS_COLUMNS[1:]]),
                _sheet(
                    found.gates,
                    GATE_COLUMNS,
                    ("region", "gate", "tp_mean", "fp_mean", "fn_mean", "tn_mean"),
                    group="region",
                    title="Coefficients over true and false positives and negatives",
                ),
            ],
        }
    if extras.ablation is not None:
        yield {
            "title": "Does it matter? Gates changed one by one",
            "text": [_CAUSES],
            "plots": [
                _plot(
                    f"Dice of {region}.",
                    *(plots.ablation(extras.ablation, theme, region) for theme in themes),
                )
                for region in dict.fromkeys(extras.ablation["class"])
            ],
            "tables": [_sheet(extras.ablation, ABLATION_COLUMNS, _ABLATION, group="gate")],
        }
    if extras.history is not None:
        yield _curves("Over the training", extras.history, "epoch")
    if len(series) > 1 and series[0].gates:
        table = measures_table(series)
        yield _curves("Over time", table.assign(epoch=table["time_point"]), "time point")


def _curves(title: str, table: DataFrame, word: str) -> dict[str, Any]:
    regions = list(dict.fromkeys(table["region"]))
    return {
        "title": title,
        "text": [],
        "plots": [
            _plot(
                f"AUC of each gate for {region}.",
                *(plots.history(table, "auc", region, t, word) for t in (plots.LIGHT, plots.DARK)),
            )
            for region in regions
        ],
        "tables": [],
    }


# --- tables -------------------------------------------------------------------------------------


def _sheet(
    table: DataFrame,
    columns: Sequence[Column],
    shown: Sequence[str],
    group: str | None = None,
    title: str = "",
) -> dict[str, Any]:
    """A table for the page; a line is drawn where the column `group` changes."""
    known = {column.name: column for column in columns}
    names = _shown(table, shown)
    numbers = [table[name].dtype.kind in "iuf" for name in names]
    if group is not None:
        order = {value: index for index, value in enumerate(dict.fromkeys(table[group]))}
        table = table.sort_values(group, key=lambda values: values.map(order), kind="stable")
    rows, last = [], None
    for record in table.to_dict("records"):
        now = None if group is None else record[group]
        cells = [
            {"text": "" if n == group and now == last else _cell(n, record[n]), "number": number}
            for n, number in zip(names, numbers, strict=True)
        ]
        rows.append({"first": group is not None and now != last, "cells": cells})
        last = now
    headings = [
        {"text": known[n].heading(table), "help": known[n].description, "number": number}
        for n, number in zip(names, numbers, strict=True)
    ]
    return {"headings": headings, "rows": rows, "title": title}


def _shown(table: DataFrame, wanted: Sequence[str]) -> list[str]:
    """Those columns that the table has, without remarks where there are none."""
    return [n for n in wanted if n in table.columns and (n != "flag" or any(table[n]))]


def _cell(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | np.integer):
        return f"{value:,}".replace(",", "\u202f")
    number = float(value)
    if np.isnan(number):
        return "–"
    if np.isinf(number):
        return "∞"
    if name == "volume" or abs(number) >= 1000:
        return _large(number)
    return f"{number:.1f}" if name.endswith("percent") else f"{number:.3f}"


def _large(number: float) -> str:
    return f"{number:,.0f}".replace(",", "\u202f") if abs(number) >= 1000 else f"{number:.4g}"


def _scale(gates: Sequence[GateMap]) -> tuple[str, str]:
    """What the ends of the colour scale mean, for all gates together."""
    limits = {contrast_limits(gate.coefficients, gate.kind) for gate in gates}
    if len(limits) == 1:
        low, high = limits.pop()
        return f"{low:g}", f"{high:g}"
    return "lowest", "highest (range beneath each gate)"


def _gradient() -> str:
    colours = np.asarray(GATE_COLORMAP["colors"])[::9]
    return ", ".join(
        f"rgba({255 * r:.0f}, {255 * g:.0f}, {255 * b:.0f}, {a:.2f})" for r, g, b, a in colours
    )


def _and(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _times(values: Iterable[float]) -> str:
    return " × ".join(f"{value:g}" for value in values)


def _join(first: Any, second: Any, between: str) -> str:
    return between.join(str(text) for text in (first, second) if text)


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    text = files(__package__).joinpath("report.html.jinja").read_text(encoding="utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined).from_string(text)
