"""Two runs in the viewer: what differs, and both side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Layer
from qtpy.QtCore import QObject

from napari_attention_unet.inspect.difference import DIFFERENCE
from napari_attention_unet.io.layers import RESULT_KEY

from . import tasks
from .compare_part import CompareFold
from .inspection import GONE, Inspection
from .intervene_control import DIFFERENCE_COLOURS
from .outcome import Said
from .runs import FinishedRun

if TYPE_CHECKING:
    from napari_attention_unet.inspect.compare import Comparison

ONE_RUN = (
    "There are no two runs yet: untick 'replace earlier results' in Run, then run another model "
    "or other settings on the same image."
)
SAME = "Choose two different runs."
_SIDE = "side"


class CompareControl(QObject):
    """Connects the fold with the runs in the viewer."""

    def __init__(self, inspection: Inspection, fold: CompareFold) -> None:
        super().__init__(inspection)
        self._inspection, self._viewer, self._fold = inspection, inspection.viewer, fold
        self._keys: tuple[str, ...] = ()
        self._before: list[tuple[Any, bool]] = []
        self._grid: tuple[bool, int, tuple[int, int]] | None = None
        inspection.changed.connect(self.refresh)
        for box in (fold.first, fold.second):
            box.changed.connect(self._on_choice)
        fold.run.clicked.connect(self.compare)
        fold.side.toggled.connect(self._on_side)
        self.refresh()

    def refresh(self) -> None:
        """Follow the runs in the viewer and what is under way."""
        runs = self._inspection.runs.all
        keys = tuple(run.key for run in runs)
        if keys != self._keys:
            self._keys = keys
            self._fold.side.setChecked(False)
            self._fold.clear()
            numbered = [(f"{i} · {run.title}", run.key) for i, run in enumerate(runs, 1)]
            self._fold.set_runs(numbered)
        chosen = self._chosen()
        problem = ONE_RUN if len(runs) < 2 else SAME if chosen is None else ""
        self._fold.side.setEnabled(not problem)
        self._fold.side.setToolTip(
            problem or "Show image, mask and best gate of both runs in a grid with one camera"
        )
        problem = problem or self._inspection.busy
        self._fold.run.setEnabled(not problem)
        self._fold.run.setToolTip(problem or "Add layers of the difference of masks and of gates")

    def compare(self) -> None:
        """Find what differs between the two."""
        chosen = self._chosen()
        if chosen is None or self._inspection.busy:
            return
        first, second = chosen
        time = self._inspection.time_on_display(first)
        other = min(time, len(second.predictions) - 1)
        self._inspection.start(
            "The comparison",
            lambda found: self._on_comparison(first, time, found),
            tasks.compare_runs,
            first.predictions[time],
            second.predictions[other],
        )

    def close(self) -> None:
        """Leave the grid."""
        self._fold.side.setChecked(False)

    def _chosen(self) -> tuple[FinishedRun, FinishedRun] | None:
        by_key = {run.key: run for run in self._inspection.runs.all}
        first, second = by_key.get(self._fold.first.value), by_key.get(self._fold.second.value)
        return None if first is None or second is None or first is second else (first, second)

    def _on_choice(self) -> None:
        self._fold.side.setChecked(False)
        self._fold.clear()
        self.refresh()

    def _on_comparison(self, first: FinishedRun, time: int, found: Comparison) -> Said:
        place = self._inspection.runs.place(first)
        if place is None:
            return GONE
        names = ["background", *DIFFERENCE.values()]
        for pair in found.pairs:
            gate = pair.difference
            self._inspection.add_layer(
                first,
                "difference of gates",
                place.expand(gate.coefficients),
                "image",
                {
                    **place.arguments(gate.scale, gate.translate, time),
                    "name": f"difference · {pair.first}",
                    "colormap": "PiYG",
                    "contrast_limits": (-1.0, 1.0),
                    "blending": "translucent_no_depth",
                    "opacity": 0.6,
                    "interpolation2d": "linear",
                    "visible": False,
                    "metadata": {"gate": pair.first},
                },
            )
        self._inspection.add_layer(
            first,
            "difference",
            place.expand(found.difference),
            "labels",
            {
                **place.arguments(time=time),
                "name": "difference · mask",
                "colormap": DIFFERENCE_COLOURS,
                "features": {"index": list(range(len(names))), "change": names},
                "opacity": 0.6,
                "blending": "translucent_no_depth",
            },
        )
        self._fold.show_comparison(found)
        dice = found.classes["dice"].iloc[0]
        return Said(f"The masks of the two runs have a Dice of {dice:.3f}", "good")

    # --- side by side ---------------------------------------------------------------------------

    def _on_side(self, on: bool) -> None:
        if on:
            self._enter()
        else:
            self._leave()

    def _enter(self) -> None:
        """Show copies of image, mask and gate of both runs; copies share their arrays."""
        chosen = self._chosen()
        if chosen is None or self._grid is not None:
            return
        sides = [self._of(run) for run in chosen]
        count = min(len(side) for side in sides)
        layers = [copy for side in sides for copy in side[len(side) - count :]]
        grid = self._viewer.canvas.grid
        self._grid = (grid.enabled, grid.stride, grid.shape)
        self._before = [(layer, layer.visible) for layer in self._viewer.layers]
        for layer, _ in self._before:
            layer.visible = False
        for index, layer in enumerate(layers):
            self._viewer.layers.insert(index, layer)
        grid.stride, grid.shape, grid.enabled = count, (1, 2), True
        self._viewer.reset_view()

    def _leave(self) -> None:
        if self._grid is None:
            return
        grid = self._viewer.canvas.grid
        grid.enabled, grid.stride, grid.shape = self._grid
        self._grid = None
        for layer in list(self._viewer.layers):
            if layer.metadata.get(RESULT_KEY, {}).get("role") == _SIDE:
                self._viewer.layers.remove(layer)
        for layer, visible in self._before:
            layer.visible = visible
        self._before = []
        self._viewer.reset_view()

    def _of(self, run: FinishedRun) -> list[Any]:
        """Copies of a run's image, mask and most telling gate, from bottom to top."""
        from napari_attention_unet.inspect.measures import most_telling

        runs = self._inspection.runs
        telling = most_telling(list(run.measures[0]))
        source = [x for x in self._viewer.layers if str(x.unique_id) == run.source_id]
        gates = [
            layer
            for layer in runs.layers(run, "gate")
            if layer.metadata[RESULT_KEY]["gate"] == telling
        ]
        return [_copy(each) for each in (*source, *runs.layers(run, "mask"), *gates[:1])]


def _copy(layer: Any) -> Any:
    data, state, kind = layer.as_layer_data_tuple()
    about = {RESULT_KEY: {"role": _SIDE}}
    return Layer.create(data, {**state, "visible": True, "metadata": about}, kind)
