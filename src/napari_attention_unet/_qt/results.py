"""The layers that runs add to a viewer: added, replaced, and marked when they no longer hold."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from napari.layers import Layer

from napari_attention_unet.inspect.measures import GateMeasures
from napari_attention_unet.io.layer_volume import SOURCE_KEY
from napari_attention_unet.io.layers import RESULT_KEY, layers_from_prediction
from napari_attention_unet.io.napari_reader import LayerData
from napari_attention_unet.io.placement import index_to_world, layer_axes, layer_like, layer_shape
from napari_attention_unet.prediction import Prediction, Slices

from .gate_row import ShownGate
from .growing import Growing, Key, key_of
from .request import Answer, Progress
from .saved_result import SavedResult

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
        self._growing: Growing | None = None

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
        """Show the results of a run that came to its end; layers that grew with it stay.

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
        layers = [self._grown(layer, source) or self._created(layer, source) for layer in made]
        if self._growing is not None:  # those that were not taken over
            for layer in layers:
                self._growing.layers.pop(key_of(layer.metadata), None)
            self._growing.remove()
            self._growing = None
        if replace:
            for layer in results_of(list(self._viewer.layers), source):
                if not layer.metadata[RESULT_KEY].get(KEPT) and layer not in layers:
                    self._viewer.layers.remove(layer)
        self._add(layers, source, above=replace)
        return _told(layers, answer.predictions, answer.measures)

    def image_of(self, saved: SavedResult) -> Any:
        """The layer of a saved result's image: one that shows it already, else it is added."""
        if not saved.image:
            return None
        data, arguments, _ = saved.image[0]
        wanted = layer_like(data, arguments)
        path = wanted.metadata[SOURCE_KEY]["storage"].path
        for layer in self._viewer.layers:
            about = layer.metadata.get(SOURCE_KEY)
            if is_result(layer) or about is None or about["storage"].path != path:
                continue
            same_place = layer.ndim == len(wanted.scale) and np.allclose(
                index_to_world(layer), index_to_world(wanted)
            )
            if about["channel"] == 0 and layer_shape(layer) == layer_shape(wanted) and same_place:
                return layer
        layers = [Layer.create(*each) for each in saved.image]
        for layer in layers:
            self._viewer.add_layer(layer)
        return layers[0]

    def adopt(
        self, saved: SavedResult, source: Any, first: str | None
    ) -> tuple[list[ShownGate], list[Any]]:
        """Show the results that were saved earlier, as `show` does with those of a run.

        Parameters
        ----------
        saved : SavedResult
            With layers.
        source : napari layer or None
            The layer of their image; None where that is gone.
        first : str or None
            The gate that is visible at first.
        """
        layers = [self._created(layer, source) for layer in saved.layers]
        for layer in layers:
            if layer.metadata[RESULT_KEY].get("gate") == first and first is not None:
                layer.visible = True
        self._add(layers, source, above=source is not None)
        return _told(layers, saved.predictions, saved.measures)

    def grow(
        self,
        progress: Progress,
        source: Any,
        outputs: Sequence[str],
        *,
        replace: bool,
        leading: str,
    ) -> None:
        """Show what a run finished, in layers that grow with it.

        Parameters are those of `show`.

        Parameters
        ----------
        progress : Progress
            With a region.
        """
        region = progress.region
        assert region is not None
        if self._growing is None:
            gates = region.partial.gates
            made = layers_from_prediction(
                region.partial,
                source,
                outputs=[name for name in outputs if name != "probabilities"],
                show=gates[0].name if gates else None,
                leading=leading,  # type: ignore[arg-type]
            )
            layers = [self._created(layer, source) for layer in made]
            if replace:
                for layer in results_of(self._viewer.layers, source):
                    layer.visible = False
            self._add(layers, source, above=replace)
            axes = layer_axes(source, leading)  # type: ignore[arg-type]
            self._growing = Growing(self._viewer, layers, axes)
        changed: dict[Key, Slices] = {("gate", name): box for name, box in region.gates.items()}
        if region.mask is not None:
            changed["mask", ""] = region.mask
        self._growing.grow(changed)

    def stop_growing(
        self,
        partial: Sequence[Prediction],
        source: Any,
        outputs: Sequence[str],
        *,
        replace: bool,
        leading: str,
    ) -> bool:
        """Keep what a run that did not come to its end computed, marked as partial.

        Parameters are those of `show`.

        Parameters
        ----------
        partial : sequence of Prediction
            One a time point that was begun; empty if that is not known.

        Returns
        -------
        bool
            Whether there is anything.
        """
        growing, self._growing = self._growing, None
        if growing is not None and len(partial) < 2:
            growing.stop()
            return True
        if growing is not None:
            growing.remove()
        if not partial or source not in self._viewer.layers:
            return False
        made = layers_from_prediction(partial, source, outputs=outputs, leading=leading)  # type: ignore[arg-type]
        layers = [self._created(layer, source) for layer in made]
        self._add(layers, source, above=replace)
        axes = layer_axes(source, leading)  # type: ignore[arg-type]
        Growing(self._viewer, layers, axes).stop()
        return True

    def _created(self, made: LayerData, source: Any) -> Any:
        data, arguments, kind = made
        layer = Layer.create(data, arguments, kind)
        layer.metadata[RESULT_KEY]["source_id"] = "" if source is None else str(source.unique_id)
        return layer

    def _grown(self, made: LayerData, source: Any) -> Any:
        """The layer that grew to be this one; None if there is none."""
        data, arguments, _ = made
        if self._growing is None:
            return None
        layer = self._growing.layers.get(key_of(arguments["metadata"]))
        if layer is None or layer not in self._viewer.layers or layer.data.shape != data.shape:
            return None
        if self._growing.untouched(layer):
            layer.visible = arguments.get("visible", True)
        layer.metadata = arguments["metadata"]
        layer.metadata[RESULT_KEY]["source_id"] = str(source.unique_id)
        layer.name = arguments["name"]
        if "contrast_limits" in arguments:
            layer.contrast_limits = arguments["contrast_limits"]
        if np.shares_memory(layer.data, data):
            layer.refresh()
        else:  # the largest component alone, for one
            layer.data = data
        return layer

    def _add(self, layers: list[Any], source: Any, *, above: bool) -> None:
        """Put layers into the viewer, right above their source or on top."""
        present = source is not None and source in self._viewer.layers
        at = self._viewer.layers.index(source) + 1 if present else None
        for offset, layer in enumerate(layers):
            if layer in self._viewer.layers:
                continue
            if at is None or not above:
                self._viewer.layers.append(layer)
            else:
                self._viewer.layers.insert(at + offset, layer)

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


def _told(
    layers: Iterable[Any],
    predictions: Sequence[Prediction],
    measures: Sequence[Sequence[GateMeasures]],
) -> tuple[list[ShownGate], list[Any]]:
    """The layers that show gates, with what is known of each, and the others."""
    labels = {gate.name: gate.label for gate in predictions[0].gates}
    order = list(labels)
    shown, others = [], []
    for layer in layers:
        about = layer.metadata[RESULT_KEY]
        if about["role"] == "gate":
            name = about["gate"]
            of_gate = tuple(each[order.index(name)] for each in measures)
            shown.append(ShownGate(layer, labels[name], of_gate))
        else:
            others.append(layer)
    return shown, others
