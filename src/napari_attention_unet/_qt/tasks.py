"""What jobs do on their threads: the core's work on what the panel hands over.

Each is a generator of `Step` that returns its result, as `jobs.Job` takes it. What needs torch is
imported when it runs.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_attention_unet.io.layers import contrast_limits
from napari_attention_unet.prediction import Prediction, Step
from napari_attention_unet.settings import Settings
from napari_attention_unet.volume import Volume

from .models import ModelStore
from .plot_view import Look, Picture
from .request import Request

if TYPE_CHECKING:
    from pandas import DataFrame

    from napari_attention_unet.inspect.baseline import Baseline
    from napari_attention_unet.inspect.compare import Comparison
    from napari_attention_unet.inspect.gradcam import GradCam
    from napari_attention_unet.inspect.history import History
    from napari_attention_unet.inspect.interventions import Intervention, Switch
    from napari_attention_unet.inspect.overlays import Overlay
    from napari_attention_unet.inspect.plots import Theme
    from napari_attention_unet.inspect.reference import ReferenceComparison

Labels = npt.NDArray[np.integer[Any]]


class Followed(NamedTuple):
    """A history, and how to show it.

    Attributes
    ----------
    history : History
    telling : str or None
        The gate that tells most in the last checkpoint.
    limits : dict of str to pair of float
        Display range of every gate, that of the last checkpoint.
    """

    history: History
    telling: str | None
    limits: dict[str, tuple[float, float]]


def measure(
    predictions: Sequence[Prediction], by: Literal["class", "object", "foreground"]
) -> Generator[Step, None, DataFrame]:
    """The table of measures."""
    from napari_attention_unet.inspect.table import measures_table

    yield Step(0, 1, "Measuring the gates")
    series = predictions[0] if len(predictions) == 1 else predictions
    return measures_table(series, by)


def plot_measures(
    what: Literal["histogram", "inside"],
    prediction: Prediction,
    table: DataFrame | None,
    look: Look,
) -> Generator[Step, None, Picture]:
    """Draw histograms of the gates, or their means inside and outside of regions."""
    from napari_attention_unet.inspect import plots

    yield Step(0, 1, "Plotting")
    theme = _theme(look)
    if what == "histogram" or table is None:
        figure = plots.histograms(prediction, theme)
    else:
        figure = plots.inside_outside(table, theme)
    return Picture(plots.picture(figure, "png", look.ratio), look.ratio)


def _theme(look: Look) -> Theme:
    from napari_attention_unet.inspect.plots import DARK, LIGHT

    base, palette = DARK if look.palette.dark else LIGHT, look.palette
    return replace(
        base,
        foreground=palette.text,
        dim=palette.line,
        curves=tuple(palette.curves(6)),
        width=look.width,
        points=look.points,
    )


def number_objects(mask: Labels) -> Generator[Step, None, Labels]:
    """The connected objects of a mask, numbered as in the table."""
    from napari_attention_unet.inspect.table import object_labels

    yield Step(0, 1, "Numbering the objects")
    return object_labels(mask)[0]


def compare_with_labels(
    prediction: Prediction, labels: Any, matrix: npt.NDArray[np.float64]
) -> Generator[Step, None, ReferenceComparison]:
    """A prediction against reference labels on a grid of their own; see `on_grid`."""
    from napari_attention_unet.inspect.reference import compare_with_reference

    yield Step(0, 1, "Comparing with the reference")
    return compare_with_reference(prediction, on_grid(labels, matrix, prediction.mask.shape))


def on_grid(
    labels: Any, matrix: npt.NDArray[np.float64], shape: tuple[int, ...]
) -> npt.NDArray[Any]:
    """Labels on another grid, each voxel taking the nearest one; 0 beyond them.

    Parameters
    ----------
    labels : array, shape (z, y, x)
        On their own grid.
    matrix : (4, 4) array
        From a voxel of the other grid to an index of `labels`.
    shape : tuple of int
        Of the other grid.
    """
    from scipy import ndimage

    own = np.asarray(labels)
    if own.shape == shape and np.allclose(matrix, np.eye(4), atol=1e-6):
        return own
    made: npt.NDArray[Any] = ndimage.affine_transform(
        own, matrix[:3, :3], matrix[:3, 3], output_shape=shape, order=0, mode="constant"
    )
    return made


def overlay(
    prediction: Prediction, name: str, gate: str, coefficient: float, axis: int
) -> Generator[Step, None, Overlay]:
    """An overlay by its name; see `overlay_part`."""
    from napari_attention_unet.inspect import combined, overlays

    yield Step(0, 1, "Making the overlay")
    if name == "region":
        return (yield from overlays.region_steps(prediction, gate, coefficient))
    if name == "surface":
        return overlays.isosurface(prediction, gate, coefficient)
    if name == "ignored":
        return overlays.ignored(prediction, gate)
    if name == "maximum":
        return overlays.maximum_projection(prediction, gate, axis)
    if name == "conflict":
        return (yield from combined.conflict_steps(prediction))
    return (yield from combined.combined_steps(prediction, name))  # type: ignore[arg-type]


def intervene(
    models: ModelStore,
    request: Request,
    time: int,
    baseline: Baseline | None,
    switches: Mapping[str, Switch],
) -> Generator[Step, None, tuple[Baseline, Intervention]]:
    """Run the network with some gates changed; the baseline is made where there is none yet."""
    from napari_attention_unet.inspect.interventions import intervene_steps
    from napari_attention_unet.inspect.steps import portion

    parts = 1 if baseline is not None else 2
    baseline = yield from _baseline(models, request, time, baseline, parts)
    work = intervene_steps(baseline, switches)
    return baseline, (yield from portion(work, parts - 1, parts, "With these gates"))


def ablate(
    models: ModelStore,
    request: Request,
    time: int,
    baseline: Baseline | None,
    reference: tuple[Any, npt.NDArray[np.float64]] | None,
) -> Generator[Step, None, tuple[Baseline, DataFrame]]:
    """Change each gate by itself; `reference` has labels and `on_grid`'s matrix."""
    from napari_attention_unet.inspect.ablation import ablation_steps
    from napari_attention_unet.inspect.steps import portion

    parts = 1 if baseline is not None else 2
    baseline = yield from _baseline(models, request, time, baseline, parts)
    labels = None if reference is None else on_grid(*reference, baseline.prediction.mask.shape)
    work = ablation_steps(baseline, labels)
    return baseline, (yield from portion(work, parts - 1, parts))


def gradcam(
    models: ModelStore,
    request: Request,
    time: int,
    prediction: Prediction,
    target: str,
    region: tuple[Any, npt.NDArray[np.float64]] | None,
) -> Generator[Step, None, GradCam]:
    """Seg-Grad-CAM of a class; `region` has labels and `on_grid`'s matrix."""
    from napari_attention_unet.inspect.gradcam import gradcam_steps

    yield Step(0, 0, "Reading the model")
    model = models.get(request.model)
    where = None if region is None else on_grid(*region, prediction.mask.shape)
    work = gradcam_steps(
        model,
        request.volumes[time],
        request.settings,
        target=target,
        region=where,
        prediction=prediction,
    )
    return (yield from work)


def sanity(
    models: ModelStore, request: Request, time: int, prediction: Prediction
) -> Generator[Step, None, DataFrame]:
    """The sanity check with a network of shuffled weights."""
    from napari_attention_unet.inspect.sanity import sanity_steps

    yield Step(0, 0, "Reading the model")
    model = models.get(request.model)
    volume = request.volumes[time]
    modes = ("cascading",)
    work = sanity_steps(model, volume, request.settings, modes=modes, base=prediction)
    return (yield from work)


def follow_training(
    folder: str, volume: Volume, settings: Settings, cache: Path
) -> Generator[Step, None, Followed]:
    """Run every checkpoint of a folder on a volume."""
    from napari_attention_unet.inspect.history import history_steps
    from napari_attention_unet.inspect.measures import gate_measures, most_telling

    history = yield from history_steps(folder, volume, settings, cache=cache)
    last = history.predictions[-1]
    limits = {gate.name: contrast_limits(gate.coefficients, gate.kind) for gate in last.gates}
    return Followed(history, most_telling(gate_measures(last)), limits)


def compare_runs(first: Prediction, second: Prediction) -> Generator[Step, None, Comparison]:
    """Two predictions of one volume."""
    from napari_attention_unet.inspect.compare import compare

    yield Step(0, 0, "Comparing")
    return compare(first, second)


def report(
    predictions: Sequence[Prediction], image: Volume | None, extras: Mapping[str, Any], path: Path
) -> Generator[Step, None, Path]:
    """Write the report of a run; `extras` as of `inspect.report.Extras`."""
    from napari_attention_unet.inspect.report import Extras, report_steps, save_report

    html = yield from report_steps(predictions, image, Extras(**extras))
    return save_report(html, path)


def _baseline(
    models: ModelStore, request: Request, time: int, baseline: Baseline | None, parts: int
) -> Generator[Step, None, Baseline]:
    from napari_attention_unet.inspect.baseline import baseline_steps
    from napari_attention_unet.inspect.steps import portion

    if baseline is not None:
        return baseline
    yield Step(0, parts, "Reading the model")
    model = models.get(request.model)
    work = baseline_steps(model, request.volumes[time], request.settings)
    return (yield from portion(work, 0, parts, "As computed"))
