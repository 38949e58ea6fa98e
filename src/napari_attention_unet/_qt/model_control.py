"""What a person says of the model reaches the store, and what is known of it reaches the panel."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QObject, Signal

from . import network_dialog, trust_dialog
from .class_layers import show_classes
from .model_part import ModelPart
from .models import ModelFacts
from .prefetch import Prefetch


class ModelControl(QObject):
    """Connects the model part with the thread on which models are read.

    Parameters
    ----------
    part : ModelPart
        The controls.
    prefetch : Prefetch
        Reads models, and emits what they are.
    layers : napari LayerList
        Of the viewer; masks among them take over names and colours.
    """

    described = Signal(object)  #: `ModelFacts`, once the part shows them

    def __init__(
        self, part: ModelPart, prefetch: Prefetch, layers: Any, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._part, self._prefetch, self._layers = part, prefetch, layers
        self._asks = False  # whether the person just chose the model
        self._renames = False  # whether names and colours were taken back
        prefetch.described.connect(self._on_described)
        part.chosen.connect(self._choose)
        part.allowing.connect(self._ask)
        part.naming.connect(self._name_network)
        part.card.option_chosen.connect(self._state)
        part.card.classes_changed.connect(self._name_classes)
        part.card.save.connect(self._save)
        part.card.forget.connect(self._forget)

    def start(self) -> None:
        """Read the model of the last time, without questions."""
        if self._part.name:
            self._prefetch.choose(self._part.name)

    def _choose(self, name: str) -> None:
        self._asks = True
        self._prefetch.choose(name)

    def _on_described(self, facts: ModelFacts) -> None:
        self._part.show_facts(facts)
        self.described.emit(facts)
        renames, self._renames = self._renames, False
        if renames and facts.description is not None:
            card = facts.description.card
            show_classes(self._layers, facts.description.sha256, card.classes)
        asks, self._asks = self._asks, False
        if facts.question is not None and asks:
            self._ask()

    def _ask(self) -> None:
        facts = self._part.facts
        if facts is None or facts.question is None:
            return
        if trust_dialog.ask_trust(self._part, facts.question) and self._part.facts is facts:
            self._part.reading()
            self._prefetch.trust(facts.name, facts.question)

    def _name_network(self) -> None:
        name = self._part.name
        network = network_dialog.ask_network(self._part)
        if network is not None and name == self._part.name:
            self._asks = True
            self._part.reading()
            self._prefetch.name_network(name, *network)

    def _state(self, option: str, value: Any) -> None:
        self._part.reading()
        self._prefetch.state(self._part.name, option, value)

    def _name_classes(self) -> None:
        classes = self._part.card.classes.classes
        show_classes(self._layers, self._part.card.sha256, classes)
        self._prefetch.name_classes(self._part.name, classes)

    def _save(self) -> None:
        self._prefetch.save_card(self._part.name)

    def _forget(self) -> None:
        self._renames = True
        self._part.reading()
        self._prefetch.forget(self._part.name)
