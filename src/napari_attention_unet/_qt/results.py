"""The layers that runs add to a viewer: added, replaced, and marked when they no longer hold."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from napari.layers import Layer

from napari_attention_unet.io.layers import RESULT_KEY, layers_from_prediction

from .gate_row import ShownGate
from .request import Answer

OUTDATED = " (outdated)"
#: Key of metadata that marks what a person made of a result: a later run does not replace it.
KEPT = "kept"
_TELLING = ("data", "scale", "translate", "rotate", "shear", "affine")


def is_result(layer: Any) -> bool:
    """Whether a layer is a result of ours, by its metadata."""
    return RESULT_KEY in layer.metadata


def results_of(layers: Iterable[Any], source: Any) -> list[Any]:
    """The results of a source layer among others, by their metadata."""
    wanted = str(source.unique_id)
    return [
        layer
        for layer in layers
        if is_result(layer) and layer.metadata[RESULT_KEY].get("source_id") == wanted
    ]


class Results:
    """Results in one viewer, and the layers that they were made from.

    Parameters
    ----------
    viewer : napari viewer
        Where the layers go.
    on_outdated : callable
        Called with a source layer whose data or place changed.
    """

    def __init__(self, viewer: Any, on_outdated: Callable[[Any], None]) -> None:
        self._viewer = viewer
        self._on_outdated = on_outdated
        self._sources: list[weakref.ref[Any]] = []
        self._silent = False

    def watch(self, sources: Sequence[Any]) -> None:
        """Mark results from now on when one of these layers changes."""
        known = [ref() for ref in self._sources]
        for source in sources:
            if not any(source is other for other in known):
                self._sources.append(weakref.ref(source))
                for name in _TELLING:
                    getattr(source.events, name).connect(self._changed)

    def show(
        self,
        answer: Answer,
        source: Any,
        outputs: Sequence[str],
        *,
        replace: bool,
        leading: str,
        first: str | None,
    ) -> tuple[list[ShownGate], list[Any]]:
        """Add the layers of a run that came to its end.

        Parameters
        ----------
        answer : Answer
            With predictions.
        source : napari layer
            The layer that was run, or the first of them.
        outputs : sequence of str
            Any of ``"mask"``, ``"probabilities"``, ``"gates"``.
        replace : bool
            Whether earlier results of the same source go.
        leading : str
            As in `volume_from_layers`.
        first : str or None
            The gate that is visible at first.

        Returns
        -------
        gates : list of ShownGate
            In the order in which the network runs them; empty if gates were not asked for.
        others : list of napari layers
            Mask and probabilities.
        """
        made = layers_from_prediction(
            answer.predictions,
            source,
            outputs=outputs,
            show=first,
            leading=leading,  # type: ignore[arg-type]
        )
        layers = [Layer.create(data, arguments, kind) for data, arguments, kind in made]
        for layer in layers:
            layer.metadata[RESULT_KEY]["source_id"] = str(source.unique_id)
        if replace:
            for layer in results_of(list(self._viewer.layers), source):
                if not layer.metadata[RESULT_KEY].get(KEPT):
                    self._viewer.layers.remove(layer)
        at = self._viewer.layers.index(source) + 1 if source in self._viewer.layers else None
        for offset, layer in enumerate(layers):
            if at is None or not replace:
                self._viewer.layers.append(layer)
            else:
                self._viewer.layers.insert(at + offset, layer)
        labels = {gate.name: gate.label for gate in answer.predictions[0].gates}
        order = list(labels)
        shown, others = [], []
        for layer in layers:
            about = layer.metadata[RESULT_KEY]
            if about["role"] == "gate":
                name = about["gate"]
                measures = tuple(each[order.index(name)] for each in answer.measures)
                shown.append(ShownGate(layer, labels[name], measures))
            else:
                others.append(layer)
        return shown, others

    def mark_outdated(self, source: Any) -> None:
        """Rename the results of a source so that nobody takes them for current ones."""
        for layer in results_of(self._viewer.layers, source):
            if not layer.name.endswith(OUTDATED):
                layer.name += OUTDATED

    @contextmanager
    def unmarked(self) -> Iterator[None]:
        """Within it, changes of the sources are ours and outdate nothing."""
        self._silent = True
        try:
            yield
        finally:
            self._silent = False

    def close(self) -> None:
        """Stop watching."""
        for ref in self._sources:
            source = ref()
            if source is not None:
                for name in _TELLING:
                    getattr(source.events, name).disconnect(self._changed)
        self._sources.clear()

    def _changed(self, event: Any) -> None:
        if not self._silent:
            self.mark_outdated(event.source)
            self._on_outdated(event.source)
