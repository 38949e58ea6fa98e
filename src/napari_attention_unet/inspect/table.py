"""The table of measures: every gate against every class, connected object, or the foreground.

`COLUMNS` says what each column is, in which unit, by which formula. Everything that concerns voxels
goes by the nearest sample (`assignment`): the coefficients stay on the gate's own grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_attention_unet.errors import InputError
from napari_attention_unet.prediction import GateMap, Prediction
from napari_attention_unet.units import is_length
from napari_attention_unet.volume import Volume

from .assignment import Assignment, Floats, Ranking, Served, Slices, auc, serve, weighted_mean
from .measures import CONSTANT, DEAD, flag
from .probe import class_name

if TYPE_CHECKING:
    from pandas import DataFrame

By = Literal["class", "object", "foreground"]
#: A coefficient within this of 0 or of 1 counts as saturated: there the slope of the sigmoid,
#: alpha * (1 - alpha), is below a twenty-fifth of its largest value.
SATURATED_WITHIN = 0.01
#: Columns of a gate and a region that go to a Labels layer.
FEATURES = ("inside", "outside", "auc")


@dataclass(frozen=True)
class Column:
    """What a column of the table is.

    Attributes
    ----------
    name : str
        In the table.
    title : str
        For people.
    unit : str
        Empty for a pure number; ``{length}``, ``{volume}`` and ``{time}`` stand for those of the
        data.
    description : str
        Meaning and formula.
    """

    name: str
    title: str
    unit: str
    description: str

    def unit_of(self, table: DataFrame) -> str:
        """Unit of the column in a table, e.g. ``"mm³"``."""
        names = ("length", "volume", "time")
        return self.unit.format_map({name: str(table.attrs.get(name, "")) for name in names})

    def heading(self, table: DataFrame) -> str:
        """Title and unit, e.g. ``"Volume (mm³)"``."""
        unit = self.unit_of(table)
        return f"{self.title} ({unit})" if unit else self.title


_INSIDE = "over the region's voxels, each taking the gate's nearest sample"
COLUMNS: tuple[Column, ...] = (
    Column("time_point", "Time point", "", "Index in the series, from 0."),
    Column("time", "Time", "{time}", "Time of the time point."),
    Column("gate", "Gate", "", "The gate's module in the network."),
    Column("kind", "Kind", "", "How its coefficients are made: sigmoid, softmax over space, ..."),
    Column("grid", "Grid", "", "Resolution of its map, as a share of the network's input."),
    Column(
        "label",
        "Label",
        "",
        "Value of the region in its label map: the mask, the numbered objects (1 is the largest), "
        "or 1 for the foreground.",
    ),
    Column("region", "Region", "", "Class, object, or foreground (every class but background)."),
    Column("voxels", "Voxels", "voxels", "Number of the region's voxels."),
    Column("volume", "Volume", "{volume}", "Voxels times the volume of a voxel in the world."),
    Column("inside", "Mean inside", "", f"Mean coefficient {_INSIDE}."),
    Column("median", "Median inside", "", f"Median coefficient {_INSIDE}."),
    Column("p5", "5th percentile", "", f"5th percentile of the coefficient {_INSIDE}."),
    Column("p95", "95th percentile", "", f"95th percentile of the coefficient {_INSIDE}."),
    Column(
        "outside",
        "Mean outside",
        "",
        "Mean coefficient over all other voxels; for an object over the background's, other "
        "objects left out.",
    ),
    Column("ratio", "Inside / outside", "", "Mean inside divided by mean outside."),
    Column(
        "auc",
        "AUC",
        "",
        "How often a voxel inside has a higher coefficient than one outside, ties counting half "
        "(area under the ROC curve, Mann-Whitney): 1 ranks perfectly, 0.5 is chance, below 0.5 "
        "the gate favours what is outside.",
    ),
    Column(
        "above_half",
        "Share above 0.5",
        "",
        "Share of the region's voxels with a coefficient above 0.5. Not for softmax, whose values "
        "depend on the size of the grid.",
    ),
    Column(
        "saturation",
        "Saturation",
        "",
        f"Share of the region's voxels with a coefficient below {SATURATED_WITHIN} or above "
        f"{1 - SATURATED_WITHIN}, where a sigmoid passes hardly any gradient. Not for softmax.",
    ),
    Column("centroid_z", "Centroid z", "{length}", "See centroid x."),
    Column("centroid_y", "Centroid y", "{length}", "See centroid x."),
    Column(
        "centroid_x",
        "Centroid x",
        "{length}",
        "World position of the region's centroid, its voxels weighted by their coefficients: "
        "sum(alpha * position) / sum(alpha).",
    ),
    Column(
        "centroid_distance",
        "Shift of centroid",
        "{length}",
        "Distance from the region's own centroid to the weighted one.",
    ),
    Column("mean", "Mean of gate", "", "Mean over all samples of the gate's map."),
    Column(
        "entropy",
        "Entropy of gate",
        "",
        "How evenly the gate's coefficients are spread over its map: -sum(p log p) / log(n) with "
        "p = alpha / sum(alpha) over its n samples. 1 is even, 0 is all in one sample.",
    ),
    Column(
        "flag",
        "Remark",
        "",
        f"Of a sigmoid gate: 'dead' if its 99th percentile is below {DEAD}, 'saturated' if its 1st "
        f"is above {1 - DEAD}, 'constant' if they are less than {CONSTANT} apart (of a softmax, "
        f"less than {CONSTANT} of its mean). Such a gate selects nothing.",
    ),
)


def measures_table(prediction: Prediction | Sequence[Prediction], by: By = "class") -> DataFrame:
    """Measure every gate against parts of the mask.

    Parameters
    ----------
    prediction : Prediction or sequence of Prediction
        Several are time points of one series.
    by : {"class", "object", "foreground"}
        A row for each gate and class, or each gate and connected object (`object_labels`), or each
        gate.

    Returns
    -------
    DataFrame
        Columns as in `COLUMNS`, the time only for a series; nan where a measure has no voxels to
        go by. A class that does not occur has a row with 0 voxels. ``attrs`` has the units of
        ``length``, ``volume`` and ``time``.

    Raises
    ------
    InputError
        If `by` is none of these.
    """
    from pandas import DataFrame

    if by not in ("class", "object", "foreground"):
        raise InputError(f"Unknown way to part the mask '{by}'; known: class, object, foreground.")
    series = [prediction] if isinstance(prediction, Prediction) else list(prediction)
    rows: list[dict[str, Any]] = []
    for index, each in enumerate(series):
        when = {"time_point": index, "time": each.volume.time} if len(series) > 1 else {}
        rows += [when | row for row in _rows(each, by)]
    known = [c.name for c in COLUMNS if len(series) > 1 or not c.name.startswith("time")]
    table = DataFrame(rows, columns=known)
    table.attrs |= units_of(series[0].volume)
    return table


def units_of(volume: Volume) -> dict[str, str]:
    """Units of lengths, volumes and time, as the tables of measures have them in ``attrs``."""
    cubed = f"{volume.units}³" if is_length(volume.units) else "voxels"
    return {"length": volume.units, "volume": cubed, "time": volume.time_unit}


def object_labels(mask: npt.NDArray[np.integer[Any]]) -> tuple[npt.NDArray[np.int32], list[int]]:
    """Number the connected objects of a mask.

    Voxels of one class that share a face belong together.

    Parameters
    ----------
    mask : array, shape (z, y, x), integer
        Label map, 0 is background.

    Returns
    -------
    labels : int32 array, shape (z, y, x)
        0 for background, 1 for the largest object, and so on.
    classes : list of int
        Value of the mask in object 1, 2, ...
    """
    labels = np.zeros(mask.shape, np.int32)
    classes: list[int] = []
    for value in np.unique(mask):
        if value <= 0:
            continue
        pieces, count = ndimage.label(mask == value)
        labels += np.where(pieces > 0, pieces + len(classes), 0).astype(np.int32)
        classes += [int(value)] * count
    sizes = np.bincount(labels.ravel(), minlength=len(classes) + 1)[1:]
    order = np.argsort(-sizes, kind="stable")
    number = np.zeros(len(classes) + 1, np.int32)
    number[order + 1] = np.arange(1, len(classes) + 1)
    return number[labels], [classes[i] for i in order]


def csv_text(table: DataFrame, columns: Sequence[Column] = COLUMNS) -> str:
    """A table as CSV with units in its headings, for a file or the clipboard.

    Parameters
    ----------
    table : DataFrame
    columns : sequence of Column
        What its columns are; others are written by their names.
    """
    units = {column.name: column.unit_of(table) for column in columns}
    names = {name: f"{name} ({unit})" for name, unit in units.items() if unit}
    text: str = table.rename(columns=names).to_csv(index=False, float_format="%.6g")
    return text


def label_features(table: DataFrame) -> DataFrame:
    """The table with a row a label, as the `features` of a napari Labels layer.

    Parameters
    ----------
    table : DataFrame
        From `measures_table`, of a single time point, by class (for the layer of the mask) or by
        object (for one of `object_labels`).

    Returns
    -------
    DataFrame
        ``index`` (the label), ``region``, ``voxels``, ``volume (<unit>)``, and for each gate
        ``inside <gate>``, ``outside <gate>`` and ``auc <gate>``.
    """
    first = table.drop_duplicates("label").set_index("label")
    features = first[["region", "voxels"]].copy()
    features[f"volume ({table.attrs['volume']})"] = first["volume"]
    for gate, rows in table.groupby("gate", sort=False):
        for name in FEATURES:
            features[f"{name} {gate}"] = rows.set_index("label")[name]
    return features.rename_axis("index").reset_index()


@dataclass(frozen=True)
class _Region:
    label: int
    name: str
    box: Slices | None


def _regions(prediction: Prediction, by: By) -> tuple[npt.NDArray[Any], list[_Region]]:
    """A label map and what to measure in it."""
    mask = np.asarray(prediction.mask)
    if by == "foreground":
        labels: npt.NDArray[Any] = (mask > 0).astype(np.uint8)
        names = ["foreground"]
    elif by == "class":
        labels = mask
        highest = max(len(prediction.classes) - 1, int(mask.max(initial=0)))
        names = [class_name(prediction, label) for label in range(1, highest + 1)]
    else:
        labels, classes = object_labels(mask)
        names = [
            f"{class_name(prediction, value)} #{number}" for number, value in enumerate(classes, 1)
        ]
    boxes = ndimage.find_objects(labels, max_label=len(names))
    return labels, [_Region(i, name, boxes[i - 1]) for i, name in enumerate(names, 1)]


@dataclass(frozen=True)
class _Gate:
    """A gate, and what of it serves every region."""

    gate: GateMap
    assignment: Assignment
    everything: npt.NDArray[np.int64]
    ranking: Ranking
    whole: dict[str, Any]


class _Outside:
    """All voxels of the volume but those of some regions, by the samples of one gate."""

    def __init__(self, gate: _Gate, regions: Sequence[Served]) -> None:
        counts = gate.everything.copy()
        for region in regions:
            counts[region.samples] -= region.counts
        self._mean = weighted_mean(gate.assignment.alpha, counts)
        self._below = gate.ranking.below(counts)

    def against(self, inside: Served) -> dict[str, float]:
        """Columns that set a region against what is outside."""
        return {
            "outside": self._mean,
            "ratio": inside.mean() / self._mean if self._mean else float("nan"),
            "auc": auc(inside, self._below),
        }


def _gate(gate: GateMap, shape: tuple[int, ...]) -> _Gate:
    assignment = Assignment(gate, shape)
    alpha = assignment.alpha
    low, high = (float(v) for v in np.percentile(alpha, (1, 99)))
    mean = float(alpha.mean(dtype=np.float64))
    whole = {
        "mean": mean,
        "entropy": spatial_entropy(alpha),
        "flag": flag(gate.kind, low, high, mean),
    }
    return _Gate(gate, assignment, assignment.everything(), Ranking(alpha), whole)


def spatial_entropy(alpha: npt.NDArray[np.float32]) -> float:
    """Shannon entropy of coefficients over their samples, 0..1; nan where it has no meaning."""
    values = alpha.astype(np.float64)
    total = values.sum()
    if alpha.size < 2 or total <= 0 or values.min() < 0:
        return float("nan")
    share = values[values > 0] / total
    return float(-(share * np.log(share)).sum() / np.log(alpha.size))


def _rows(prediction: Prediction, by: By) -> Iterator[dict[str, Any]]:
    labels, regions = _regions(prediction, by)
    gates = [_gate(gate, labels.shape) for gate in prediction.gates]
    assignments = [gate.assignment for gate in gates]
    to_world = prediction.volume.index_to_world
    size = abs(float(np.linalg.det(to_world[:3, :3])))
    found = [(region, *serve(assignments, labels, region.label, region.box)) for region in regions]
    for index, gate in enumerate(gates):
        background = _Outside(gate, [served[index] for _, served, _ in found])
        for region, served, centroid in found:
            inside = served[index]
            outside = background if by == "object" else _Outside(gate, [inside])
            yield {
                "gate": gate.gate.name,
                "kind": gate.gate.kind,
                "grid": gate.gate.label,
                "label": region.label,
                "region": region.name,
                "voxels": inside.voxels,
                "volume": inside.voxels * size,
                **_coefficients(gate.gate.kind, inside),
                **outside.against(inside),
                **_place(inside.centroid, centroid, to_world),
                **gate.whole,
            }


def _coefficients(kind: str, inside: Served) -> dict[str, float]:
    median, p5, p95 = inside.percentiles((50, 5, 95))
    flat = (inside.alpha < SATURATED_WITHIN) | (inside.alpha > 1 - SATURATED_WITHIN)
    softmax = kind == "softmax"
    return {
        "inside": inside.mean(),
        "median": median,
        "p5": p5,
        "p95": p95,
        "above_half": float("nan") if softmax else inside.mean(inside.alpha > 0.5),
        "saturation": float("nan") if softmax else inside.mean(flat),
    }


def _place(weighted: Floats, centroid: Floats, to_world: Floats) -> dict[str, float]:
    z, y, x = to_world[:3, :3] @ weighted + to_world[:3, 3]
    shift = float(np.linalg.norm(to_world[:3, :3] @ (weighted - centroid)))
    return {
        "centroid_z": float(z),
        "centroid_y": float(y),
        "centroid_x": float(x),
        "centroid_distance": shift,
    }
