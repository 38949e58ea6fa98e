"""The model part: which network, on which device, and which layers a run adds."""

from __future__ import annotations

from pathlib import Path

from magicgui.widgets import CheckBox, ComboBox
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QMenu, QToolButton, QVBoxLayout, QWidget

from napari_attention_unet.models import bundled_models

from .card_part import CardPart
from .checkpoint_files import DIALOG_PATTERNS
from .choices import RECENT, Choices
from .form import Form, Note, beside, describe, native
from .models import ModelFacts, ModelStore
from .style import set_property


class ModelPart(QWidget):
    """Controls for the network.

    Attributes
    ----------
    facts : ModelFacts or None
        What the chosen model is; None while it is read.
    card : CardPart
        All that is known of it, folded away.
    """

    chosen = Signal(str)  #: another model is to be read
    changed = Signal()  #: the person chose something
    allowing = Signal()  #: the person wants to say whether the file may run its code
    naming = Signal()  #: the person wants to name the Python class of the network

    def __init__(self, choices: Choices, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._recent = [path for path in choices.recent or [] if Path(path).exists()]
        self.facts: ModelFacts | None = None
        self._on_card = ""  # the model whose card is shown

        self.model = ComboBox(choices=self._choices)
        self.browse = self._browse_button()
        self.note = Note("reading …")
        self.note.setObjectName("model_note")
        self.allow = QToolButton()
        self.allow.setText("allow …")
        describe(self.allow, "allow", "Say whether this file may run its code")
        self.allow.clicked.connect(self.allowing)
        self.allow.hide()
        self.card = CardPart()
        self.card.hide()
        self.device = ComboBox(choices=[("looking …", "auto")])
        self.add_mask = CheckBox(text="mask", value=choices.mask)
        self.add_gates = CheckBox(text="gates", value=choices.gates)
        self.add_probabilities = CheckBox(text="probabilities", value=choices.probabilities)
        self._wanted_device = choices.device

        self._form = form = Form()
        form.add("model", beside(native(self.model), self.browse), "model_row", "")
        describe(
            self.model.native,
            "model",
            "The trained network: one that comes with the plugin, or a checkpoint of yours.\n"
            "Nothing in a checkpoint is executed unless you allow it.",
        )
        form.add_note(beside(self.note, self.allow))
        form.add_wide(self.card)
        form.add(
            "device", native(self.device), "device", "Where the network runs, with its free memory"
        )
        adds = beside(self.add_mask.native, self.add_gates.native, self.add_probabilities.native)
        adds.layout().setSpacing(8)  # type: ignore[union-attr]
        adds.layout().setStretch(0, 0)  # type: ignore[union-attr]
        adds.layout().addStretch(1)  # type: ignore[union-attr]
        form.add("add", adds, "add", "Layers that a run adds to the viewer")
        describe(self.add_mask.native, "add_mask", "Add the mask as a Labels layer")
        describe(self.add_gates.native, "add_gates", "Add the map of every attention gate")
        describe(
            self.add_probabilities.native, "add_probabilities", "Add the probability of every class"
        )
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(form)

        if choices.model in self.model.choices:
            self.model.value = choices.model
        self.model.changed.connect(self._on_model)
        self.device.changed.connect(self._on_device)
        for box in (self.add_mask, self.add_gates, self.add_probabilities):
            box.changed.connect(self._on_change)

    @property
    def name(self) -> str:
        """The chosen model: bundled name or path; empty if there is none."""
        return self.model.value or ""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Layers to add."""
        boxes = {
            "mask": self.add_mask,
            "probabilities": self.add_probabilities,
            "gates": self.add_gates,
        }
        return tuple(name for name, box in boxes.items() if box.value)

    def problem(self) -> str:
        """Why these settings cannot be run; empty if they can."""
        if not self.name:
            return "Choose a model, or drop a checkpoint file here."
        if self.facts is None:
            return f"Reading {ModelStore.title(self.name)} …"
        if self.facts.error:
            return self.facts.error
        if not self.outputs:
            return "Choose at least one of mask, gates and probabilities to add."
        if self.facts.gates == 0 and self.outputs == ("gates",):
            return "This network has no attention gate; choose the mask as well."
        return ""

    def open(self, path: str) -> None:
        """Choose a checkpoint's file or folder."""
        path = str(Path(path).expanduser().resolve())
        self._recent = [path, *(p for p in self._recent if p != path)][:RECENT]
        with self.model.changed.blocked():
            self.model.reset_choices()
            self.model.value = path
        self._on_model()

    def reading(self) -> None:
        """The chosen model is read, anew or with other options."""
        self.facts = None
        set_property(self.note, "role", "dim")
        self.note.setText("reading …" if self.name else "none yet")
        self.allow.hide()
        self.changed.emit()

    def show_facts(self, facts: ModelFacts) -> None:
        """Say what the model is, or why it cannot be used."""
        self.facts = facts
        set_property(self.note, "role", "error" if facts.error else "dim")
        unusable = "not allowed yet" if facts.question else "cannot be used"
        self.note.setText(unusable if facts.error else facts.summary)
        self.note.setToolTip(facts.error or facts.about)
        self.model.native.setToolTip(facts.error or facts.about)
        self.allow.setVisible(facts.question is not None)
        if facts.description is not None:
            self._on_card = facts.name
            self.card.show_model(facts.description, facts.name not in bundled_models())
        # where an option does not fit, the card stays, so that it can be mended
        known = self._on_card == facts.name
        self.card.setVisible(known)
        self.card.say(facts.error or facts.notice, "error" if facts.error else "dim")
        if facts.error and not facts.question and not known and facts.name in self._recent:
            self._recent.remove(facts.name)

    def show_devices(self, devices: list[tuple[str, str]]) -> None:
        """Offer the devices that were found."""
        with self.device.changed.blocked():
            self.device.choices = devices
            if self._wanted_device in self.device.choices:
                self.device.value = self._wanted_device
        for index, (title, _) in enumerate(devices):
            self.device.native.setItemData(index, title, 3)  # Qt.ToolTipRole

    def read_into(self, choices: Choices) -> None:
        """Write the settings into the choices."""
        choices.model = self.name
        choices.recent = list(self._recent)
        choices.device = self._wanted_device
        choices.mask = bool(self.add_mask.value)
        choices.gates = bool(self.add_gates.value)
        choices.probabilities = bool(self.add_probabilities.value)

    def write(self, choices: Choices) -> None:
        """Show the choices."""
        self.add_mask.value, self.add_gates.value = choices.mask, choices.gates
        self.add_probabilities.value = choices.probabilities
        self._wanted_device = choices.device
        if choices.device in self.device.choices:
            self.device.value = choices.device
        model = choices.model or next(iter(bundled_models()), "")
        if model in self.model.choices:
            self.model.value = model

    def _choices(self, _widget: object = None) -> list[tuple[str, str]]:
        bundled = [(name, name) for name in bundled_models()]
        names = [Path(path).name for path in self._recent]
        titles = [
            f"{name} ({Path(path).parent.name})" if names.count(name) > 1 else name
            for name, path in zip(names, self._recent, strict=True)
        ]
        return [*bundled, *zip(titles, self._recent, strict=True)]

    def _browse_button(self) -> QToolButton:
        button = QToolButton()
        button.setText("…")
        menu = QMenu(button)
        for text, slot in (
            ("Open a checkpoint file …", self._browse_files),
            ("Open a folder: MONAI bundle, BioImage.IO …", self._browse_folders),
            ("Name the Python class of its network …", self.naming.emit),
        ):
            action = menu.addAction(text)
            if action is not None:
                action.triggered.connect(slot)
        button.setMenu(menu)
        button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        describe(
            button, "browse", "Choose a checkpoint's file or folder; it can be dropped here as well"
        )
        return button

    def _browse_files(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self,
            "Open a checkpoint",
            self._start(),
            f"Checkpoints ({' '.join(DIALOG_PATTERNS)});;All files (*)",
        )
        if path:
            self.open(path)

    def _browse_folders(self) -> None:
        path = QFileDialog.getExistingDirectory(
            self, "Open the folder of a MONAI bundle or a BioImage.IO package", self._start()
        )
        if path:
            self.open(path)

    def _start(self) -> str:
        """Where a file dialog starts."""
        return str(Path(self._recent[0]).parent if self._recent else Path.home())

    def _on_model(self) -> None:
        self.reading()
        if self.name:
            self.chosen.emit(self.name)

    def _on_device(self) -> None:
        self._wanted_device = self.device.value
        self.changed.emit()

    def _on_change(self) -> None:
        self.changed.emit()
