"""What happens: choices become a request, progress and answers come back, layers change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import QObject
from qtpy.QtWidgets import QApplication

from napari_attention_unet.errors import InputError
from napari_attention_unet.inspect.measures import most_telling
from napari_attention_unet.prediction import Prediction
from napari_attention_unet.settings import Settings
from napari_attention_unet.volume import Volume

from .checks_control import ChecksControl
from .choices import Choices, save
from .compare_control import CompareControl
from .files import Drops
from .gate_row import ShownGate
from .gates_part import EMPTY, NONE_FOUND, NOT_SHOWN
from .history_control import HistoryControl
from .inspection import Inspection
from .intervene_control import InterveneControl
from .measure_control import MeasureControl
from .model_control import ModelControl
from .models import ModelFacts, ModelStore
from .oblique import is_oblique, is_shown_oblique, show_oblique
from .outcome import KEPT, READY, RESET, Said, cancelled, done, not_ready, outdated, removed
from .overlay_control import OverlayControl
from .prefetch import Prefetch
from .probe_control import ProbeControl
from .report_control import ReportControl
from .request import Answer, Progress, Request, parse_spacing
from .results import Results
from .runs import FinishedRun
from .saved_result import SavedResult
from .script import script_of
from .style import palette
from .viewer_link import ViewerLink
from .worker import Runner, explain


@dataclass(frozen=True)
class _Run:
    """What has to be known of a run when its answer comes."""

    sources: tuple[Any, ...]
    leading: str
    outputs: tuple[str, ...]
    replace: bool
    model: str
    request: Request

    @property
    def place(self) -> dict[str, Any]:
        """Where the layers go."""
        return {"replace": self.replace, "leading": self.leading}

    @property
    def grows(self) -> bool:
        """Whether layers show what is finished; those of a time series come at the end.

        Drawing layers that were just exchanged for those of the next time point crashed OpenGL.
        """
        return len(self.request.volumes) == 1


class Controller(QObject):
    """Connects the parts of the panel with the viewer and the worker threads.

    Parameters
    ----------
    panel : AttentionUNetPanel
        Whose parts are connected.
    viewer : napari viewer
        Whose layers are run.
    """

    def __init__(self, panel: Any, viewer: Any) -> None:
        super().__init__(panel)
        self._viewer = viewer
        self._image, self._model, self._advanced = panel.image, panel.model, panel.advanced
        self._view, self._gates, self._foot = panel.view, panel.gates, panel.foot
        self._tabs = panel.tabs
        self._run: _Run | None = None
        self._outdated_meanwhile = False
        self._first_time = 0
        self._showed = False
        self._said: Said | None = None

        self.models = ModelStore()
        self.prefetch = Prefetch(self.models, self)
        self.model_control = ModelControl(self._model, self.prefetch, viewer.layers, self)
        self.runner = Runner(self.models, self)
        self.drops = Drops(viewer, self.models, self)
        self.link = ViewerLink(viewer, self)
        self.results = Results(viewer, self._on_outdated)
        self.inspection = Inspection(viewer, self.models, panel.foot, self)
        self.probe = ProbeControl(self.inspection, panel.gates, panel.probe, panel.profile)
        self.overlays = OverlayControl(self.inspection, panel.overlays, panel.probe.overlay)
        self.measure = MeasureControl(self.inspection, panel.measure)
        self.intervene = InterveneControl(self.inspection, panel.intervene)
        self.checks = ChecksControl(self.inspection, panel.gradcam, panel.sanity)
        self.history = HistoryControl(self.inspection, panel.history, panel.image, self.settings)
        self.compare = CompareControl(self.inspection, panel.compare)
        self.report = ReportControl(self.inspection, panel.measure.report, self._extras)

        self.model_control.described.connect(self._on_facts)
        self.prefetch.devices_found.connect(self._model.show_devices)
        self.runner.progressed.connect(self._on_progress)
        self.runner.answered.connect(self._on_answer)
        self.drops.said.connect(self._say)
        self.drops.checkpoint.connect(self._model.open)
        self.drops.result.connect(self._on_saved)
        self.inspection.said.connect(self._say)
        self.inspection.changed.connect(self.refresh)
        self.link.layers_changed.connect(self._image.refresh)
        self.link.layers_changed.connect(self.inspection.layers_changed)
        self.link.drawn.connect(self.probe.plot)
        self.link.removed.connect(self._on_removed)
        self.link.drawn.connect(self._on_drawn)
        self.link.stepped.connect(self._on_step)
        for part in (self._image, self._model, self._advanced):
            part.changed.connect(self._on_choice)
        self._image.refreshed.connect(self.refresh)
        self._advanced.folded.connect(self.save_choices)
        self._foot.replace_box.toggled.connect(self.save_choices)
        self._foot.run.connect(self.run)
        self._foot.cancel.connect(self.cancel)
        self._foot.reset.connect(self.reset)
        self._foot.copy.connect(self.copy_script)
        self._gates.scaling_changed.connect(self.save_choices)
        self._gates.chosen.connect(self._select)
        self._view.letters_changed.connect(self.save_choices)
        self._view.oblique_changed.connect(self._show_oblique)

        self.prefetch.find_devices()
        self.model_control.start()
        self.refresh()

    # --- from choices to a run ------------------------------------------------------------------

    def refresh(self) -> None:
        """Say whether Run can work, and if not, why."""
        volume, reason = self._volume()
        self._image.show_facts(volume)
        layer = self._image.layer
        self._view.set_orientation(volume.orientation if volume else None)
        self._view.set_oblique(is_oblique(layer), is_shown_oblique(layer))
        reason = reason or self._model.problem() or self._advanced.problem()
        if volume is not None and not reason and self._model.facts is not None:
            spacing = parse_spacing(self._advanced.spacing.value)
            reason = self._model.facts.problem_with(
                volume if spacing is None else volume.replace(spacing=spacing)
            )
        if self.inspection.busy:
            self._foot.set_ready(self.inspection.busy)
            return
        self._foot.set_ready(reason)
        if reason:
            self._foot.say(*not_ready(reason, self._said, self._model.facts, volume))
        else:
            self._foot.say(*(self._said or READY))

    def run(self) -> None:
        """Start a run of what is chosen."""
        if self.inspection.busy or not self._foot.run_button.isEnabled():
            return
        try:
            request = self.request()
        except InputError as error:
            self._say(str(error), "error")
            return
        title = ModelStore.title(request.model)
        self._run = _Run(
            tuple(self._image.layers),
            self._image.leading,
            self._model.outputs,
            self._foot.replace_box.isChecked(),
            title,
            request,
        )
        self._outdated_meanwhile = False
        self.results.watch(self._run.sources)
        self._said = None
        self._foot.begin()
        self.inspection.set_running(True)
        self.runner.start(request)

    def request(self) -> Request:
        """Everything that is chosen, frozen.

        Raises
        ------
        InputError
            If the image cannot be run.
        """
        return Request(self._image.volumes(), self._model.name, self.settings())

    def settings(self) -> Settings:
        """How a run is wanted."""
        choices = self.choices()
        normalize: str | tuple[float, float] = choices.normalize
        if normalize == "window" and choices.window:
            normalize = (choices.window[0], choices.window[1])
        return Settings(
            spacing=parse_spacing(choices.spacing),
            device=choices.device,
            precision=choices.precision,
            plan=choices.plan,
            normalize=normalize,
            outputs=("mask", *(o for o in self._model.outputs if o == "probabilities")),
            threshold=choices.threshold if choices.rule == "threshold" else None,
            memory=choices.memory or None,
            keep_largest=choices.keep_largest,
        )

    def cancel(self) -> None:
        """Stop what is under way."""
        if self._run is None:
            self.inspection.cancel()
        elif not self.runner.cancelling:
            self._foot.stopping()
            self.runner.cancel()

    # --- choices --------------------------------------------------------------------------------

    def choices(self) -> Choices:
        """What the controls say."""
        choices = Choices()
        for part in (self._image, self._model, self._advanced):
            part.read_into(choices)
        choices.replace = self._foot.replace_box.isChecked()
        choices.letters = self._view.letters_box.isChecked()
        choices.scaling = self._gates.scaling
        return choices

    def save_choices(self) -> None:
        """Keep the choices for the next start."""
        save(self.choices())

    def reset(self) -> None:
        """Set every choice back to its default; the list of recent checkpoints stays."""
        defaults = Choices()
        for part in (self._image, self._model, self._advanced):
            part.write(defaults)
        self._foot.replace_box.setChecked(defaults.replace)
        self._view.letters_box.setChecked(defaults.letters)
        self._gates.set_scaling(defaults.scaling)
        self.save_choices()
        self._say(*RESET)

    def copy_script(self) -> None:
        """Put a script that makes the run into the clipboard."""
        facts, problem = self._model.facts, self._model.problem() or self._advanced.problem()
        if problem or facts is None or facts.description is None:
            self._say(f"There is nothing to copy yet. {problem}", "warning")
            return
        try:
            request = self.request()
        except InputError as error:
            self._say(f"There is nothing to copy yet. {error}", "warning")
            return
        script = script_of(
            request,
            self._image.layers,
            self._image.level_index,
            self._image.leading,
            facts.description.stated,
            facts.description.code,
        )
        clipboard = QApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(script)
            self._say("Copied: a Python script that makes this run.", "good", script)

    def close(self) -> None:
        """Stop everything and let go of the viewer."""
        self._foot.end()
        self.runner.abandon()
        self.prefetch.close()
        self.drops.close()
        self.link.close()
        self.results.close()
        for control in (self.probe, self.measure, self.intervene, self.history, self.compare):
            control.close()
        self.inspection.close()
        self._gates.clear()
        self._view.close_events()
        self.models.clear()
        self._run = None

    # --- what comes back ------------------------------------------------------------------------

    def _on_progress(self, progress: Progress) -> None:
        if self._run is not None and self._run.grows and progress.region is not None:
            self.results.grow(progress, self._run.sources[0], self._run.outputs, **self._run.place)
        if not self.runner.cancelling:
            self._foot.show_progress(progress)

    def _on_answer(self, answer: Answer) -> None:
        run, self._run = self._run, None
        self._foot.end()
        self.inspection.set_running(False)
        if run is None:
            return
        kept = not answer.predictions and self._keep_partial(run, answer.partial)
        if answer.error:
            sentence = f"{answer.error} {KEPT}" if kept else answer.error
            self._said = Said(sentence, "error", answer.details)
        elif answer.predictions:
            try:
                self._show(run, answer)
            except Exception as error:  # napari may refuse a layer; the panel goes on
                self._said = Said(explain(error)[0], "error")
        else:
            self._said = cancelled(answer)
        self.prefetch.find_devices()
        self.refresh()

    def _keep_partial(self, run: _Run, partial: tuple[Prediction, ...]) -> bool:
        return self.results.stop_growing(partial, run.sources[0], run.outputs, **run.place)

    def _show(self, run: _Run, answer: Answer) -> None:
        source = run.sources[0]
        first = answer.predictions[0].volume.part.time_index
        here = self._image.time_on_display() - first if source is self._image.layer else 0
        here = max(0, min(here, len(answer.measures) - 1))
        telling = most_telling(list(answer.measures[here]))
        shown, others = self.results.show(
            answer,
            source,
            run.outputs,
            **run.place,
            first=telling,
        )
        finished = FinishedRun(
            run.request,
            answer.predictions,
            answer.measures,
            f"{run.model} on {source.name}",
            str(source.unique_id),
            run.leading,  # type: ignore[arg-type]
        )
        self._present(finished, shown, others, here, telling, run.model)
        self._said = done(answer, telling)
        if self._outdated_meanwhile:
            self.results.mark_outdated(source)
            self._said = outdated(source.name, meanwhile=True)

    def _present(
        self,
        run: FinishedRun,
        shown: list[ShownGate],
        others: list[Any],
        here: int,
        telling: str | None,
        model: str,
    ) -> None:
        """Fill the tabs with a run whose layers were just added."""
        found = len(run.measures[0])
        message = NONE_FOUND.format(model=model) if not found else NOT_SHOWN
        self._first_time = run.predictions[0].volume.part.time_index
        self._gates.set_gates(
            shown, others, EMPTY if shown else message, palette(self._viewer.theme)
        )
        self._gates.show_time(here)
        for gate in shown:
            if gate.name == telling:
                self._select(gate.layer)
        self.inspection.runs.add(run, [*(gate.layer for gate in shown), *others])
        if not self._showed:  # later the person knows where the gates are
            self._showed = True
            self._tabs.show_page("gates")

    def _on_saved(self, saved: SavedResult) -> None:
        try:
            self._adopt(saved)
        except Exception as error:  # napari may refuse a layer; the panel goes on
            self._say(explain(error)[0], "error")

    def _adopt(self, saved: SavedResult) -> None:
        """Show a saved result, and go on as if it had just been run."""
        source = self.results.image_of(saved)
        if source is not None:
            self._image.choose(source)
            self.results.watch([source])
        telling = most_telling(list(saved.measures[0]))
        shown, others = self.results.adopt(saved, source, telling)
        model = str(saved.predictions[0].provenance.get("model", ""))
        name = saved.predictions[0].volume.name
        finished = FinishedRun(
            saved.request,
            saved.predictions,
            saved.measures,
            f"{model} on {name}, from {saved.name}",
            "" if source is None else str(source.unique_id),
            "time",
            closed=saved.closed,
            has_image=source is not None,
        )
        self._present(finished, shown, others, 0, telling, model)
        if saved.closed:
            self._say(f"{saved.said}. {saved.closed}", "warning")
        else:
            self._say(saved.said, "good")

    def _on_facts(self, facts: ModelFacts) -> None:
        self._image.set_channels(facts.in_channels, facts.channel_names)
        self.refresh()

    def _on_outdated(self, source: Any) -> None:
        if self._run is not None and source in self._run.sources:
            self._outdated_meanwhile = True
        else:
            self._say(*outdated(source.name, meanwhile=False))

    # --- the viewer -----------------------------------------------------------------------------

    def _on_removed(self, layer: Any) -> None:
        self._gates.forget(layer)
        self.results.mark_outdated(layer)
        self.inspection.runs.forget_without_layers()
        if self._run is not None and layer in self._run.sources:
            self.runner.abandon()
            self.results.stop_growing((), layer, self._run.outputs, **self._run.place)
            self._run = None
            self._foot.end()
            self._said = removed(layer.name)
            self.inspection.set_running(False)

    def _on_step(self) -> None:
        self._gates.show_time(self._image.time_on_display() - self._first_time)

    def _on_drawn(self) -> None:
        if self._image.region.value == "box":
            self._on_choice()

    def _on_choice(self) -> None:
        self._said = None
        self.refresh()
        self.save_choices()

    def _select(self, layer: Any) -> None:
        if layer in self._viewer.layers:
            self._viewer.layers.selection.active = layer

    def _show_oblique(self, on: bool) -> None:
        with self.results.unmarked():
            show_oblique(self._viewer, self._image.layer, on)

    # --- helpers --------------------------------------------------------------------------------

    def _say(self, text: str, role: str = "dim", details: str = "") -> None:
        """Say something until the next choice; an empty text takes back what was said."""
        self._said = Said(text, role, details) if text else None
        self.refresh()

    def _extras(self) -> dict[str, Any]:
        """What a report can tell beside the run itself."""
        return {"reference": self.measure.comparison, "ablation": self.intervene.ablation}

    def _volume(self) -> tuple[Volume | None, str]:
        try:
            return self._image.volume(), ""
        except InputError as error:
            return None, str(error)
