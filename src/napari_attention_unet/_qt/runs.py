"""Runs whose results are in the viewer: what there is to inspect."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import uuid4

from qtpy.QtCore import QObject, Signal

from napari_attention_unet.inspect.measures import GateMeasures
from napari_attention_unet.io.layers import RESULT_KEY
from napari_attention_unet.prediction import Prediction

from .place import Place, place_of
from .request import Request

#: Why there is nothing to inspect yet.
NO_RUN = "Press Run first: this works on the result of a run."
#: Roles of the layers that a run itself adds, as opposed to what is made of it afterwards.
OWN = ("mask", "probabilities", "gate")


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A run that came to its end, and what is needed to go on from it.

    Attributes
    ----------
    request : Request
        What was run.
    predictions : tuple of Prediction
        One a time point.
    measures : tuple of tuples of GateMeasures
        Every gate's statistics, one tuple a time point.
    title : str
        What it is called on the screen.
    source_id : str
        Unique id of the layer that was run.
    leading : str
        As in `volume_from_layers`.
    closed : str
        Why the network cannot be run again as it was; empty if it can.
    has_image : bool
        Whether the volumes of the request have their voxels.
    key : str
        Under which its layers are found: ``metadata["attention_unet"]["run"]``.
    """

    request: Request
    predictions: tuple[Prediction, ...]
    measures: tuple[tuple[GateMeasures, ...], ...]
    title: str
    source_id: str
    leading: Literal["time", "channel"]
    closed: str = ""
    has_image: bool = True
    key: str = field(default_factory=lambda: uuid4().hex)

    @property
    def gates(self) -> tuple[str, ...]:
        """Names of its gates, in the order in which the network runs them."""
        return tuple(gate.name for gate in self.predictions[0].gates)


class Runs(QObject):
    """Finished runs, the latest last; one is kept for as long as a layer of it is.

    What a run computed is held by its layers anyway, so it costs no memory of its own, and goes
    with them.
    """

    changed = Signal()  #: another run is the latest, or one is gone

    def __init__(self, viewer: Any, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._runs: list[FinishedRun] = []

    @property
    def all(self) -> tuple[FinishedRun, ...]:
        """The latest last."""
        return tuple(self._runs)

    @property
    def latest(self) -> FinishedRun | None:
        """The run that the tabs are about."""
        return self._runs[-1] if self._runs else None

    def add(self, run: FinishedRun, layers: list[Any]) -> None:
        """Keep a run whose layers were just added to the viewer."""
        for layer in layers:
            layer.metadata[RESULT_KEY]["run"] = run.key
        self._runs.append(run)
        self.changed.emit()

    def forget_without_layers(self) -> None:
        """Let go of the runs whose layers were all removed."""
        kept = [run for run in self._runs if self.layers(run)]
        if len(kept) < len(self._runs):
            self._runs = kept
            self.changed.emit()

    def clear(self) -> None:
        """Let go of all runs."""
        self._runs.clear()

    def layers(self, run: FinishedRun, role: str | None = None) -> list[Any]:
        """The layers in the viewer that a run added, by their metadata."""
        found = []
        for layer in self._viewer.layers:
            about = layer.metadata.get(RESULT_KEY, {})
            wanted = about.get("role") in OWN if role is None else about.get("role") == role
            if wanted and about.get("run") == run.key:
                found.append(layer)
        return found

    def place(self, run: FinishedRun) -> Place | None:
        """Where a run lies in the viewer now; None once its layers are gone."""
        layers = self.layers(run)
        return place_of(layers[0], run.leading, self._viewer.dims.units) if layers else None
