"""Whether a map depends on what the network learned.

The sanity check of Adebayo et al. (2018, "Sanity checks for saliency maps", NeurIPS): the weights
are randomised layer by layer, and the maps are compared with those of the trained network. A map
that stays alike when all that leads to it is random says nothing of what was learned: it follows
the image, or nothing.

Adebayo et al. initialise the layers anew. Here the values of each tensor are shuffled instead:
their distribution, and with it the scale of all that follows, stays that of the trained network, so
that a map does not change merely because a layer fell silent.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from napari_attention_unet.errors import InputError
from napari_attention_unet.graph.graph import Graph
from napari_attention_unet.model import Model
from napari_attention_unet.predict import predict_steps
from napari_attention_unet.prediction import Prediction, Step
from napari_attention_unet.settings import Settings

from .similarity import rank_correlation, structural_similarity
from .steps import portion, predicted
from .table import Column

#: ``"cascading"`` randomises from the output towards the input and keeps what was randomised;
#: ``"independent"`` one layer at a time.
MODES = ("cascading", "independent")
#: A map that is this similar to the trained network's after everything that leads to it was
#: randomised ignores the weights.
ALIKE = 0.8
#: What the columns of the table are.
SANITY_COLUMNS: tuple[Column, ...] = (
    Column("mode", "Mode", "", "One layer at a time, or all from the output down to this one."),
    Column("layer", "Layer", "", "The module whose weights were shuffled last."),
    Column("randomised", "Layers", "", "Number of layers that were shuffled."),
    Column("complete", "Complete", "", "Whether all layers that lead to the gate were shuffled."),
    Column("gate", "Gate", "", "The gate whose map is compared with the trained network's."),
    Column("ssim", "SSIM", "", "Structural similarity of the two maps, 1 for equal ones."),
    Column("rank_correlation", "Rank correlation", "", "Spearman's, of the two maps, -1..1."),
)


@dataclass(frozen=True)
class Layer:
    """Weights that are randomised together.

    Attributes
    ----------
    name : str
        The module that holds them, e.g. ``"att4.W_g"``: a convolution and its normalisation.
    constants : tuple of str
        Names of the tensors.
    gates : tuple of str
        Gates that depend on them.
    """

    name: str
    constants: tuple[str, ...]
    gates: tuple[str, ...]


def layers(graph: Graph) -> tuple[Layer, ...]:
    """The layers of a network from its output to its input; those that no gate depends on too."""
    last: dict[str, int] = {}
    for index, node in enumerate(graph.nodes.values()):
        for name in node.inputs:
            if name in graph.constants:
                last[name] = index
    holders: dict[str, list[str]] = {}
    for name in last:
        tensor = graph.constants[name]
        if tensor.is_floating_point() and tensor.numel() > 1:
            holders.setdefault(_holder(name), []).append(name)
    causes = {gate.name: _causes(graph, gate.node) for gate in graph.gates}
    made = [
        Layer(
            holder,
            tuple(sorted(names)),
            tuple(gate for gate, known in causes.items() if known.intersection(names)),
        )
        for holder, names in holders.items()
    ]
    return tuple(sorted(made, key=lambda x: max(last[n] for n in x.constants), reverse=True))


def _holder(name: str) -> str:
    """Module that holds the module of a tensor, or that module where nothing holds it."""
    module = name.rpartition(".")[0]
    return module.rpartition(".")[0] or module or name


def _causes(graph: Graph, name: str) -> set[str]:
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            if name in graph.nodes:
                waiting += graph.nodes[name].inputs
    return seen


def randomised(model: Model, names: Sequence[str], seed: int = 0) -> Model:
    """A model with the values of some tensors shuffled.

    Parameters
    ----------
    model : Model
    names : sequence of str
        Tensors by their names in the state_dict. Those of a single value stay as they are.
    seed : int
        Each tensor is shuffled in its own way, which depends on its name and this alone.
    """
    constants = dict(model.graph.constants)
    for name in names:
        constants[name] = _shuffled(constants[name], f"{seed} {name}")
    graph = replace(model.graph, constants=constants)
    return replace(model, graph=graph, _lowered={})


def _shuffled(tensor: Tensor, seed: str) -> Tensor:
    order = np.random.default_rng([*seed.encode()]).permutation(tensor.numel())
    flat = tensor.detach().reshape(-1)
    return flat[torch.from_numpy(order).to(flat.device)].reshape(tensor.shape)


def sanity_steps(
    model: Model,
    volume: Any,
    settings: Settings | None = None,
    *,
    modes: Sequence[str] = MODES,
    seed: int = 0,
    base: Prediction | None = None,
) -> Generator[Step, None, pd.DataFrame]:
    """Randomise a model layer by layer, and compare its gates' maps with the trained ones.

    Parameters
    ----------
    model, volume, settings
        As of `predict`.
    modes : sequence of str
        Of `MODES`.
    seed : int
        Of the shuffling.
    base : Prediction, optional
        Of the trained model on this volume, if it was run already.

    Yields
    ------
    Step

    Returns
    -------
    DataFrame
        A row for each mode, layer and gate that depends on anything randomised so far, or on no
        weights at all: ``mode``, ``layer``, ``randomised`` (number of layers that are random),
        ``complete`` (whether all layers that lead to the gate are), ``gate``, ``ssim`` (-1..1) and
        ``rank_correlation`` (Spearman's, -1..1, nan where a map is constant).

    Raises
    ------
    InputError
        If the network has no gates, or a mode is not known.
    """
    if unknown := set(modes) - set(MODES):
        raise InputError(
            f"There is no mode {', '.join(map(repr, sorted(unknown)))}; use "
            f"{', '.join(map(repr, MODES))}."
        )
    if not model.gates:
        raise InputError(f"The network of '{model.name}' has no attention gates to check.")
    chosen = replace(settings or Settings(), gates={}, out=None, outputs=("mask",))
    known = layers(model.graph)
    leading = [layer for layer in known if layer.gates] or list(known)
    total = len(leading) * len(modes) + (base is None)
    done = 0
    if base is None:
        run = predicted(predict_steps(model, volume, chosen))
        base = yield from portion(run, 0, total, "as trained")
        done = 1
    rows: list[dict[str, Any]] = []
    for mode in modes:
        random: list[Layer] = []
        for layer in leading:
            random = [*random, layer] if mode == "cascading" else [layer]
            changed = randomised(model, [n for each in random for n in each.constants], seed)
            run = predicted(predict_steps(changed, volume, chosen))
            prediction = yield from portion(run, done, total, f"{mode}, {layer.name}")
            rows += _rows(base, prediction, mode, random, leading)
            done += 1
    return pd.DataFrame(rows)


def _rows(
    base: Prediction,
    prediction: Prediction,
    mode: str,
    random: Sequence[Layer],
    leading: Sequence[Layer],
) -> list[dict[str, Any]]:
    made = []
    for gate in prediction.gates:
        needed = {layer.name for layer in leading if gate.name in layer.gates}
        reached = needed.intersection(layer.name for layer in random)
        if needed and not reached:
            continue
        one = np.asarray(base.gate(gate.name).coefficients)
        other = np.asarray(gate.coefficients)
        made.append(
            {
                "mode": mode,
                "layer": random[-1].name,
                "randomised": len(random),
                "complete": reached == needed,
                "gate": gate.name,
                "ssim": structural_similarity(one, other),
                "rank_correlation": rank_correlation(one, other),
            }
        )
    return made


def ignores_weights(table: pd.DataFrame) -> dict[str, bool]:
    """For each gate, whether its map stayed alike when all that leads to it was randomised.

    That is where the rank correlation is at least `ALIKE` in size, or, of a constant map, SSIM is.
    """
    ends = table[table["complete"]].groupby("gate", sort=False).last()
    strength = ends["rank_correlation"].abs().fillna(ends["ssim"])
    return {str(gate): bool(value >= ALIKE) for gate, value in strength.items()}
