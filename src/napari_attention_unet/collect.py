"""Take the planes that a network gives, and make of them mask and maps on the caller's grid.

An executor hands over planes of the output and of each gate, in order along the network's first
axis. The output is resampled, activated and labelled as far as it reaches; gate maps keep their
own grid. So nothing of the volume's size is held here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_attention_unet.errors import GraphError, NotFiniteError
from napari_attention_unet.frame import Frame
from napari_attention_unet.graph.geometry import grid_of
from napari_attention_unet.graph.graph import Gate, Grid
from napari_attention_unet.model import Model
from napari_attention_unet.postprocess import activate, label
from napari_attention_unet.prediction import GateMap, Prediction, Region, Slices
from napari_attention_unet.settings import Settings
from napari_attention_unet.targets import Kind, Target
from napari_attention_unet.volume import Shape3

#: Gates whose coefficients lie between 0 and 1.
_BOUNDED = ("sigmoid", "squeeze-excitation")


def kinds_of(model: Model, frame: Frame, settings: Settings) -> list[Kind]:
    """What a run of a model keeps.

    Parameters
    ----------
    model : Model
        That runs.
    frame : Frame
        Of the volume.
    settings : Settings
        `Settings.outputs` and `Settings.gate_dtype`.
    """
    turned = frame.turned
    classes = len(model.classes)
    made = [Kind("mask", turned, np.dtype(np.uint8 if classes <= 256 else np.uint16))]
    made += [
        Kind(name, turned, np.dtype(np.float32), model.out_channels)
        for name in ("probabilities", "logits")
        if name in settings.outputs
    ]
    for gate in model.gates:
        placing = _Placing(model, frame, gate)
        dtype = np.dtype(settings.gate_dtype if gate.kind in _BOUNDED else np.float32)
        scaled = dtype.kind == "u"
        attributes: dict[str, Any] = {
            "scale": list(placing.scale),
            "translate": list(placing.translate),
            "kind": gate.kind,
        }
        if scaled:
            attributes["coefficient_of_one_step"] = 1 / np.iinfo(dtype).max
        made.append(Kind(f"gates/{gate.name}", placing.turned, dtype, None, scaled, attributes))
    return made


class _Placing:
    """Which samples of a gate's grid are kept, and where they lie for the caller."""

    def __init__(self, model: Model, frame: Frame, gate: Gate) -> None:
        grid: Grid = grid_of(model.graph, gate.node, frame.padded)
        self.size = model.graph.shape_at(gate.node, frame.padded)[2:]
        self.kept = frame.kept(self.size, grid.scale, grid.translate)
        z, y, x = (high - low for low, high in self.kept)
        self.turned = (z, y, x)
        self.scale, self.translate = frame.grid_back(self.kept, grid.scale, grid.translate)
        along_z, along_y, along_x = (grid.scale[frame.axes.index(axis)] for axis in range(3))
        self.stride = (along_z, along_y, along_x)


class Collector:
    """Receives the planes of a run.

    Parameters
    ----------
    model : Model
        That runs.
    frame : Frame
        Of the volume.
    settings : Settings
        `Settings.threshold`.
    activation : str
        See `activate`.
    targets : dict of str to Target
        Of `kinds_of`, by name; planes that they have already are left out.

    Attributes
    ----------
    taken : dict of str to int
        By the node of the output and of each gate: the plane of its grid that is awaited.
    """

    def __init__(
        self,
        model: Model,
        frame: Frame,
        settings: Settings,
        activation: str,
        targets: Mapping[str, Target],
    ) -> None:
        self._model, self._frame = model, frame
        self._activation, self._threshold = activation, settings.threshold
        self._targets = dict(targets)
        self._voxels = [t for name, t in self._targets.items() if not name.startswith("gates/")]
        self._gates = {g.node: (g, _Placing(model, frame, g)) for g in model.gates}
        self._back = frame.to_caller()
        ranges = [self._back.reads(z, z + 1) for z in range(frame.turned[0])]
        # the first plane of the network that is needed from each plane on, the last one up to it
        self._from = np.minimum.accumulate([low for low, _ in ranges][::-1])[::-1]
        self._upto = np.maximum.accumulate([high for _, high in ranges])
        self._labelled = min(target.done for target in self._voxels)
        output = model.graph.output
        whole = self._labelled == frame.turned[0]
        self._held: Tensor | None = None
        self._held_from = 0 if whole else int(self._from[self._labelled])
        self.taken = {output: frame.padded[0] if whole else self._held_from}
        for node, (gate, placing) in self._gates.items():
            done = self._targets[f"gates/{gate.name}"].done
            low = placing.kept[0][0] if done else 0
            self.taken[node] = placing.size[0] if done == placing.turned[0] else low + done
        self._shown = {name: target.done for name, target in self._targets.items()}

    def __call__(self, name: str, begin: Shape3, values: Tensor) -> None:
        """Take planes of the output or of a gate; those that were taken before are left out.

        Parameters
        ----------
        name : str
            Node of the output or of a gate.
        begin : tuple of int
            Index of the first sample: first of the planes, 0, 0.
        values : Tensor, shape (1, channel, n, y, x), float32
            On the CPU, on the network's padded grid; not kept after the call.

        Raises
        ------
        NotFiniteError
            If there are NaN or infinite values; nothing of these planes is taken.
        """
        start, taken = begin[0], self.taken[name]
        if start > taken:
            raise GraphError(f"planes {taken} to {start - 1} of '{name}' were not computed")
        stop = start + values.shape[2]
        if stop <= taken:
            return
        values = values[0, :, taken - start :]
        if name == self._model.graph.output:
            self._label(taken, values)
        else:
            self._place(name, taken, values)
        self.taken[name] = stop

    @property
    def share(self) -> float:
        """How much of the volume is labelled, 0..1."""
        return self._labelled / self._frame.turned[0]

    def gate_maps(self, forced: Mapping[str, object]) -> tuple[GateMap, ...]:
        """The gates' maps, as far as they are; `forced` by node."""
        return tuple(
            GateMap(
                name=gate.name,
                coefficients=self._targets[f"gates/{gate.name}"].array,
                scale=placing.scale,
                translate=placing.translate,
                kind=gate.kind,
                stride=placing.stride,
                forced=node in forced,
            )
            for node, (gate, placing) in self._gates.items()
        )

    def region(self, partial: Prediction) -> Region | None:
        """What of a prediction was finished since the last call; None if nothing was."""
        before = self._shown
        self._shown = {name: target.done for name, target in self._targets.items()}

        def fresh(name: str) -> Slices | None:
            low, high = before[name], self._shown[name]
            turned = self._targets[name].kind.turned
            return self._frame.planes_back(turned, low, high) if high > low else None

        mask = fresh("mask")
        gates = {gate.name: fresh(f"gates/{gate.name}") for gate, _ in self._gates.values()}
        found = {name: box for name, box in gates.items() if box is not None}
        return Region(partial, mask, found) if mask is not None or found else None

    def _label(self, start: int, values: Tensor) -> None:
        depth, y, x = self._frame.size
        image = values[:, : max(0, depth - start), :y, :x]
        if not image.isfinite().all():
            raise NotFiniteError(self._model.graph.output)
        held = image if self._held is None else torch.cat((self._held, image), 1)
        last = int(np.searchsorted(self._upto, self._held_from + held.shape[1], side="right"))
        # plane by plane: values then do not depend, in their last bit, on how planes came
        for plane in range(self._labelled, last):
            self._write(held, plane)
        self._labelled = max(self._labelled, last)
        ended = self._labelled == self._frame.turned[0]
        awaited = self._held_from + held.shape[1] if ended else int(self._from[self._labelled])
        # a copy: the executor may write over its planes
        self._held = held[:, awaited - self._held_from :].clone()
        self._held_from = awaited

    def _write(self, held: Tensor, plane: int) -> None:
        low, high = self._back.reads(plane, plane + 1)
        source = held[:, low - self._held_from : high - self._held_from].contiguous()
        piece = self._back.run(source, plane, plane + 1)
        for target in self._voxels:
            name = target.kind.name
            if name == "mask":
                classes = len(self._model.classes)
                made = label(piece, self._activation, self._threshold, classes)[None]
            else:
                made = piece if name == "logits" else activate(piece, self._activation)
            target.write(plane, made.numpy())

    def _place(self, node: str, start: int, values: Tensor) -> None:
        if values.isnan().any():
            raise NotFiniteError(node)
        gate, placing = self._gates[node]
        z, y, x = (slice(*pair) for pair in placing.kept)
        low = max(start, z.start)
        inside = values[:, low - start : max(0, z.stop - start), y, x]
        if inside.shape[1]:
            self._targets[f"gates/{gate.name}"].write(low - z.start, inside.numpy())
