"""What the tabs share: the viewer, the runs in it, and the one long job at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari.layers import Layer
from qtpy.QtCore import QObject, Signal

from napari_attention_unet.errors import InputError
from napari_attention_unet.io.layers import RESULT_KEY

from .jobs import Ended, Job, Work
from .models import ModelStore
from .outcome import Said
from .request import Progress, duration
from .run_part import RunPart
from .runs import FinishedRun, Runs
from .worker import explain

GONE = Said("The results that this belonged to were removed meanwhile.", "warning")
RUNNING = "A run is under way: wait for its end, or cancel it."


class Inspection(QObject):
    """Serves the tabs that look into the latest run.

    Long jobs take turns with each other and with runs: they share the foot of the panel with its
    progress and *Cancel*.

    Parameters
    ----------
    viewer : napari viewer
        Where layers go.
    models : ModelStore
        For jobs that need the network.
    foot : RunPart
        Where progress is shown.
    """

    changed = Signal()  #: another run is the latest, or a job or run began or ended
    layers_changed = Signal()  #: added, removed, moved or renamed
    said = Signal(str, str, str)  #: a sentence, its role and details

    def __init__(
        self, viewer: Any, models: ModelStore, foot: RunPart, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self.viewer = viewer
        self.models = models
        self.runs = Runs(viewer, self)
        self.job = Job(self)
        self._foot = foot
        self._running = False
        self._what = ""
        self._done: Callable[[Any], Said] | None = None
        self.runs.changed.connect(self.changed)
        self.job.progressed.connect(self._on_progress)
        self.job.ended.connect(self._on_ended)

    @property
    def busy(self) -> str:
        """Why no other long work can start now; empty if it can."""
        if self._running:
            return RUNNING
        return f"{self._what} is under way: wait for its end, or cancel it." if self._what else ""

    def set_running(self, running: bool) -> None:
        """A run of the panel began or ended."""
        self._running = running
        self.changed.emit()

    def start(self, what: str, done: Callable[[Any], Said], work: Work, *args: Any) -> None:
        """Start a long job.

        Parameters
        ----------
        what : str
            What it is called, at the start of a sentence, such as ``"The ablation"``.
        done : callable
            Called with the result when it came to its end, on the thread of the panel; gives what
            is to be said.
        work, *args
            As in `Job.start`.
        """
        if self.busy:
            return
        self._what, self._done = what, done
        self._foot.begin("Working …")
        self.job.start(what[0].lower() + what[1:], work, *args)
        self.changed.emit()

    def cancel(self) -> None:
        """Stop the job."""
        if self.job.busy and not self.job.cancelling:
            self._foot.stopping()
            self.job.cancel()

    def close(self) -> None:
        """Stop everything and let go of the runs."""
        self.blockSignals(True)
        self.job.abandon()
        self._done = None
        self.runs.clear()

    def add_layer(
        self, run: FinishedRun, role: str, data: Any, kind: str, arguments: dict[str, Any]
    ) -> Any:
        """Add a layer made of a run, and choose it.

        It goes when a later run on the same image replaces the results, as they do, unless its
        metadata says `results.KEPT`.

        Parameters
        ----------
        run : FinishedRun
            That it was made of.
        role : str
            What it shows, in its metadata.
        data, kind, arguments
            As in `napari.layers.Layer.create`; `arguments` may have metadata of its own.
        """
        own = arguments.pop("metadata", {})
        about = {**run.predictions[0].provenance, **own, "role": role, "run": run.key}
        layer = Layer.create(data, {**arguments, "metadata": {RESULT_KEY: about}}, kind)
        layer.metadata[RESULT_KEY]["source_id"] = run.source_id
        added = self.viewer.add_layer(layer)
        self.viewer.layers.selection.active = added
        return added

    def time_on_display(self, run: FinishedRun) -> int:
        """Which of the time points that were run the viewer shows; the nearest one."""
        place = self.runs.place(run)
        found = None if place is None else place.voxel(self.viewer.dims.point)
        return 0 if found is None else min(found[0], len(run.predictions) - 1)

    def labels_for(self, run: FinishedRun, layer: Any, time: int) -> tuple[Any, Any]:
        """Labels of a layer and how a run's voxels lie in them; see `Place.indices_in`.

        Raises
        ------
        InputError
            If the layer is no volume, or the run's layers are gone.
        """
        place = self.runs.place(run)
        if place is None:
            raise InputError("The results were removed: run again.")
        return place.indices_in(layer, self.viewer.dims.units, time)

    def _on_progress(self, progress: Progress) -> None:
        if not self.job.cancelling:
            self._foot.show_progress(progress)

    def _on_ended(self, ended: Ended) -> None:
        what, done = self._what, self._done
        self._end()
        if ended.cancelled:
            said = Said(f"{what} was cancelled after {duration(ended.seconds)}.")
        elif ended.error:
            said = Said(ended.error, "error", ended.details)
        else:
            said = self._deliver(ended, done)
        self.said.emit(*said)

    def _deliver(self, ended: Ended, done: Callable[[Any], Said] | None) -> Said:
        assert done is not None
        try:
            said = done(ended.result)
            return said._replace(text=f"{said.text} · {duration(ended.seconds)}")
        except Exception as error:  # napari may refuse a layer; the panel goes on
            return Said(explain(error)[0], "error")

    def _end(self) -> None:
        self._what, self._done = "", None
        self._foot.end()
        self.changed.emit()
