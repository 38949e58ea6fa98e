"""Where a class gets its evidence from by the gradient: Seg-Grad-CAM on the gates' grids.

Grad-CAM (Selvaraju et al. 2017) for segmentation (Vinogradova, Dibrov & Myers 2020): the logits of
a class are summed over a region, and the features A of a layer are weighted by the mean gradient of
that sum::

    weight_k = mean over space of d(sum of logits over the region) / dA_k
    map      = relu(sum over k of weight_k * A_k)

The layer is the tensor that a gate multiplies, before it is multiplied: the map lies on the gate's
own grid (or one that its cells divide), and says what of these features the class wants, while the
gate's coefficients say what it lets through. After the product the map would contain the
coefficients as a factor, and would agree with them for that reason alone.

Captum's and pytorch-grad-cam's Grad-CAM hook a module of a live network. A model here is a graph,
which may come of a file without modules, and the gated tensor is often no module's output; the
gradient is taken through the graph itself.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from napari_attention_unet.engine.device import GIB
from napari_attention_unet.engine.plan import memory_budget
from napari_attention_unet.errors import GraphError, InputError, MemoryBudgetError
from napari_attention_unet.frame import Frame
from napari_attention_unet.graph.geometry import grid_of
from napari_attention_unet.graph.gradient import Gradients, gradient_steps, memory_of
from napari_attention_unet.graph.graph import Gate, Graph, Ref
from napari_attention_unet.job import Job, job_for
from napari_attention_unet.model import Model
from napari_attention_unet.predict import predict_steps
from napari_attention_unet.prediction import GateMap, Prediction, Step
from napari_attention_unet.preprocess import prepare
from napari_attention_unet.settings import Settings

from .similarity import TOP, rank_correlation, top_overlap
from .steps import portion, predicted
from .table import Column

Box = tuple[slice, slice, slice]
#: What the columns of the table are.
GRADCAM_COLUMNS: tuple[Column, ...] = (
    Column("class", "Class", "", "The class whose logits were summed over the region."),
    Column("gate", "Gate", "", "The gate whose coefficients are compared with the map."),
    Column(
        "rank_correlation",
        "Rank correlation",
        "",
        "Spearman's, -1..1, of the coefficients with the gradient map over the gate's samples.",
    ),
    Column(
        "top_overlap",
        "Overlap of the top",
        "",
        f"Dice of the {TOP:.0%} of samples where each of the two is highest; {TOP:g} by chance.",
    ),
)
#: Operators between a gate's coefficients and the product.
_PASSING = {
    "upsample_trilinear3d",
    "upsample_nearest3d",
    "_upsample_nearest_exact3d",
    "expand",
    "reshape",
    "_to_copy",
}


@dataclass(frozen=True, eq=False)
class GradCam:
    """Seg-Grad-CAM maps of one class.

    Attributes
    ----------
    target : str
        Name of the class.
    region : array, shape (z, y, x), bool
        Voxels whose logits were summed.
    maps : tuple of GateMap
        One a gate, of kind ``"gradcam"``: divided by its largest value (0..1), NaN outside the box
        that was computed.
    peaks : dict of str to float
        The largest value of each, by which it was divided; 0 where the map is 0 everywhere.
    table : DataFrame
        A row a gate: ``class``, ``gate``, ``rank_correlation`` (Spearman's, -1..1, of the
        coefficients with the map over the samples of the gate) and ``top_overlap`` (Dice of the
        tenth of samples where each is highest; 0.1 by chance).
    prediction : Prediction
        Whose gates were compared.
    note : str
        What part of the volume was computed, and why.
    """

    target: str
    region: npt.NDArray[np.bool_] = field(repr=False)
    maps: tuple[GateMap, ...]
    peaks: dict[str, float]
    table: pd.DataFrame = field(repr=False)
    prediction: Prediction = field(repr=False)
    note: str = ""


def gradcam_steps(
    model: Model,
    volume: Any,
    settings: Settings | None = None,
    *,
    target: int | str | None = None,
    region: npt.NDArray[Any] | None = None,
    prediction: Prediction | None = None,
    **options: Any,
) -> Generator[Step, None, GradCam]:
    """Seg-Grad-CAM of one class over a region, for every gate.

    Where the values of the whole volume do not fit the memory, a box around the region is computed
    alone; `GradCam.note` says so.

    Parameters
    ----------
    model, volume, settings, **options
        As of `predict`; it runs in float32.
    target : int or str, optional
        Class by value or name; the one with most voxels in the mask where not given.
    region : array, shape (z, y, x), optional
        Where it is not 0; the voxels that the mask gives the class where not given.
    prediction : Prediction, optional
        Of the model on this volume, if it was run already.

    Yields
    ------
    Step

    Returns
    -------
    GradCam

    Raises
    ------
    InputError
        If there is no such class, the region is empty or of another shape, or there are no gates.
    MemoryBudgetError
        If not even a box around the region fits.
    """
    chosen = replace(
        replace(settings or Settings(), **options), out=None, gates={}, precision="float32"
    )
    job = job_for(model, volume, chosen)
    if not model.gates:
        raise InputError(f"The network of '{model.name}' has no attention gates to compare with.")
    total = 2.0 if prediction is None else 1.0
    if prediction is None:
        run = predicted(predict_steps(model, volume, chosen))
        prediction = yield from portion(run, 0.0, total, "Predicting")
    value = _class(model, prediction, target)
    chosen_region = _region(prediction, value, region)
    features = {gate.name: gated_features(model.graph, gate) for gate in model.gates}
    seed = _seed(chosen_region, job.frame)
    box, note = _box(job, seed, set(features.values()))
    yield Step(total - 1, total, "Reading the volume")
    read = prepare(job.volume, job.frame, job.normalization, model.card.padding_value)
    x = yield from _told(read, total - 1, 0.05, total, "Reading the volume")
    inside = (slice(None), slice(None), *box)
    weights = torch.zeros(1, model.out_channels, *seed[box].shape)
    weights[0, value if model.out_channels == len(model.classes) else value - 1] = seed[box]
    piece = x[inside].to(job.device)
    del x
    work = gradient_steps(model.graph, piece, weights, set(features.values()))
    found = yield from _told(work, total - 0.95, 0.95, total, "Following the gradient")
    maps, peaks = [], {}
    for gate in model.gates:
        made, peak = _map(job, gate, features[gate.name], found, box)
        maps.append(made)
        peaks[gate.name] = peak
    name = model.classes[value].name
    table = pd.DataFrame([_row(name, prediction, made) for made in maps])
    return GradCam(name, chosen_region, tuple(maps), peaks, table, prediction, note)


def as_prediction(found: GradCam) -> Prediction:
    """The maps in the place of the gates and the region in that of the mask, to be saved."""
    value = [info.name for info in found.prediction.classes].index(found.target)
    provenance = {**found.prediction.provenance, "maps": f"Seg-Grad-CAM of '{found.target}'"}
    return replace(
        found.prediction,
        mask=np.where(found.region, value, 0).astype(found.prediction.mask.dtype),
        gates=found.maps,
        probabilities=None,
        logits=None,
        provenance=provenance,
    )


def gated_features(graph: Graph, gate: Gate) -> str:
    """The node whose values a gate multiplies.

    Raises
    ------
    GraphError
        If the gate's coefficients are not seen to be multiplied into anything.
    """
    users = graph.users()
    waiting = [gate.node]
    while waiting:
        name = waiting.pop(0)
        for node in users[name]:
            factors = {"mul": node.args[:2], "addcmul": node.args[1:3]}.get(node.op, ())
            others = [f.name for f in factors if isinstance(f, Ref) and f.name != name]
            if others and others[0] in graph.nodes:
                return others[0]
            if node.op in _PASSING:
                waiting.append(node.name)
    raise GraphError(f"What the gate '{gate.name}' multiplies was not found in the network.")


def _class(model: Model, prediction: Prediction, target: int | str | None) -> int:
    names = [info.name for info in model.classes]
    if target is None:
        counts = np.bincount(np.asarray(prediction.mask).ravel(), minlength=len(names))
        counts[0] = 0
        if not counts.any():
            raise InputError("The mask is empty; choose a class and a region.")
        return int(counts.argmax())
    if isinstance(target, str) and target in names:
        value = names.index(target)
    elif isinstance(target, int) and 0 <= target < len(names):
        value = target
    else:
        raise InputError(f"There is no class '{target}'; the classes are: {', '.join(names)}.")
    if value == 0 and model.out_channels < len(names):
        raise InputError("The background has no channel of its own; choose another class.")
    return value


def _region(
    prediction: Prediction, value: int, region: npt.NDArray[Any] | None
) -> npt.NDArray[np.bool_]:
    mask = np.asarray(prediction.mask)
    name = prediction.classes[value].name
    if region is None:
        made: npt.NDArray[np.bool_] = mask == value
        if not made.any():
            raise InputError(f"The mask has nothing of the class '{name}'; choose a region.")
        return made
    region = np.asarray(region)
    if region.shape != mask.shape:
        raise InputError(
            f"The region has the shape {region.shape}, the mask {mask.shape}; give one on the grid "
            "of the volume."
        )
    made = region != 0
    if not made.any():
        raise InputError("The region is empty; paint where the class is to be explained.")
    return made


def _seed(region: npt.NDArray[np.bool_], frame: Frame) -> Tensor:
    """Gradient of the sum over the region with respect to the output, on the padded grid.

    The output is resampled linearly to the caller's grid before it is summed.
    """
    turned = torch.from_numpy(frame.turn(region[None]).astype(np.float32))
    with torch.enable_grad():
        output = torch.zeros(1, *frame.size, requires_grad=True)
        back = frame.to_caller().run(output, 0, frame.turned[0])
        (seed,) = torch.autograd.grad((back * turned).sum(), output)
    padding = [n for k in (2, 1, 0) for n in (0, frame.padded[k] - frame.size[k])]
    return F.pad(seed[0], padding)


def _box(job: Job, seed: Tensor, nodes: set[str]) -> tuple[Box, str]:
    """The part of the network's grid that is computed: all of it where that fits."""
    graph, padded = job.model.graph, job.frame.padded
    budget = memory_budget(job.device, job.settings.memory)
    needs = memory_of(graph, nodes, padded)
    if needs <= budget:
        return (slice(0, padded[0]), slice(0, padded[1]), slice(0, padded[2])), ""
    cells = [n // s for n, s in zip(padded, graph.stride, strict=True)]
    lows, highs = [], []
    for axis, step in enumerate(graph.stride):
        others = tuple(k for k in range(3) if k != axis)
        used = seed.abs().amax(others).nonzero()
        lows.append(int(used[0]) // step)
        highs.append(-(-(int(used[-1]) + 1) // step))

    def boxed(margin: int) -> Box:
        z, y, x = (
            slice(max(0, low - margin) * step, min(count, high + margin) * step)
            for low, high, count, step in zip(lows, highs, cells, graph.stride, strict=True)
        )
        return z, y, x

    def fits(margin: int) -> bool:
        z, y, x = (s.stop - s.start for s in boxed(margin))
        return memory_of(graph, nodes, (z, y, x)) <= budget

    if not fits(0):
        z, y, x = (s.stop - s.start for s in boxed(0))
        least = _gib(memory_of(graph, nodes, (z, y, x)))
        raise MemoryBudgetError(
            f"The gradient of the {z}×{y}×{x} voxels around the region needs {least}, and "
            f"{_gib(budget)} may be used. Choose a smaller region."
        )
    margin = 0
    while margin < max(cells) and fits(margin + 1):
        margin += 1
    box = boxed(margin)
    size = "×".join(str(s.stop - s.start) for s in box)
    return box, (
        f"The whole volume needs {_gib(needs)}, {_gib(budget)} may be used: a box of {size} voxels "
        "around the region was computed by itself."
    )


def _map(job: Job, gate: Gate, node: str, found: Gradients, box: Box) -> tuple[GateMap, float]:
    """The map of a gate, on its grid, and its largest value."""
    graph, padded = job.model.graph, job.frame.padded
    weights = found.gradients[node].mean((2, 3, 4), keepdim=True)
    cam = (weights * found.values[node]).sum(1, keepdim=True).relu()
    z, y, x = (s.stop - s.start for s in box)
    size = graph.shape_at(gate.node, (z, y, x))[2:]
    if tuple(cam.shape[2:]) != tuple(size):  # one sample of the gate for several of the features
        cam = F.adaptive_avg_pool3d(cam, (size[0], size[1], size[2]))
    whole = graph.shape_at(gate.node, padded)[2:]
    values = torch.full(whole, float("nan"))
    start = [s.start * n // p for s, n, p in zip(box, whole, padded, strict=True)]
    values[tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = cam[0, 0].cpu()
    grid = grid_of(graph, gate.node, padded)
    placed, scale, translate = job.frame.place(values.numpy(), grid.scale, grid.translate)
    peak = float(np.nanmax(placed))
    z, y, x = (grid.scale[job.frame.axes.index(axis)] for axis in range(3))
    if peak > 0:
        placed = placed / np.float32(peak)
    return GateMap(gate.name, placed, scale, translate, "gradcam", (z, y, x)), peak


def _row(name: str, prediction: Prediction, made: GateMap) -> dict[str, Any]:
    alpha = np.asarray(prediction.gate(made.name).coefficients)
    return {
        "class": name,
        "gate": made.name,
        "rank_correlation": rank_correlation(alpha, made.coefficients),
        "top_overlap": top_overlap(alpha, made.coefficients),
    }


def _told(
    work: Generator[float, None, Any], start: float, length: float, total: float, message: str
) -> Generator[Step, None, Any]:
    """Follow a work that tells its share."""
    try:
        while True:
            yield Step(start + length * next(work), total, message)
    except StopIteration as end:
        return end.value
    finally:
        work.close()


def _gib(count: int) -> str:
    return f"{count / GIB:.2g} GiB"
