"""The folded *About this model*: what is known, what was assumed, and what can be said."""

from __future__ import annotations

from itertools import chain, pairwise
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QApplication, QLabel, QToolButton, QWidget

from .card_facts import assumed, facts_of
from .class_editor import ClassEditor
from .fact_sheet import FactSheet
from .fold import Fold
from .form import Note, beside, describe
from .option_form import OptionForm
from .style import set_property

if TYPE_CHECKING:
    from napari_attention_unet.describe import Description


class CardPart(Fold):
    """Facts to be read, options and classes to be said, object name ``about``.

    Attributes
    ----------
    sha256 : str
        Of the checkpoint whose card is shown.
    """

    option_chosen = Signal(str, object)  #: name and value
    classes_changed = Signal()
    save = Signal()
    forget = Signal()

    def __init__(self) -> None:
        super().__init__(
            "About this model",
            "about_fold",
            "Its network, inputs, gates and classes; what the file does not say can be said here",
        )
        self.setObjectName("about")
        self.sha256 = ""
        self.facts = FactSheet()
        self.assumed = Note()
        self.assumed.setObjectName("assumed")
        self.options = OptionForm()
        self.classes = ClassEditor()
        self.notice = Note()
        self.notice.setObjectName("card_notice")
        self.save_button = _button(
            "save card",
            "save_card",
            "Save what is known, chosen and named beside the checkpoint, as\n"
            "<checkpoint>.card.json; it is picked up whenever the checkpoint is opened",
        )
        self.forget_button = _button(
            "forget mine",
            "forget_card",
            "Take back the options, names and colours that you gave this checkpoint;\n"
            "a card saved beside it stays",
        )
        self.copy_button = _button("copy SHA-256", "copy_hash", "")
        self._sections = (
            (_heading("Options"), self.options),
            (_heading("Classes"), self.classes),
            (_heading("Assumed"), self.assumed),
        )
        inner = self.content.layout()
        assert inner is not None
        inner.setContentsMargins(0, 0, 0, 8)
        row = beside(self.save_button, self.forget_button, self.copy_button, QWidget(), stretch=3)
        for widget in (self.facts, *chain(*self._sections), row, self.notice):
            inner.addWidget(widget)
        self.notice.hide()

        self.options.changed.connect(self.option_chosen)
        self.classes.edited.connect(self.classes_changed)
        self.save_button.clicked.connect(self.save)
        self.forget_button.clicked.connect(self.forget)
        self.copy_button.clicked.connect(self._copy)

    def show_model(self, description: Description, own: bool) -> None:
        """Show what is known of a model.

        If it is the person's own, its options can be chosen and its card saved; of a model that
        comes with the plugin nothing is open.
        """
        self.sha256 = description.sha256
        self.copy_button.setToolTip(f"Copy the hash of the checkpoint: {description.sha256}")
        self.facts.show_facts(facts_of(description))
        options = description.options if own else ()
        others = assumed(description.card.assumptions, options)
        self.assumed.setText("\n".join(f"• {text}" for text in others))
        self.options.show_options(options)
        self.classes.show_classes(description.card.classes)
        shown = (bool(options), len(description.card.classes) > 1, bool(others))
        for (heading, widget), here in zip(self._sections, shown, strict=True):
            widget.setVisible(here)
            heading.setVisible(here)
        self.save_button.setVisible(own)
        self._set_tab_order()

    def say(self, text: str, role: str = "dim") -> None:
        """Say what became of a change; an empty text says nothing."""
        set_property(self.notice, "role", role)
        self.notice.setText(text)
        self.notice.setVisible(bool(text))

    def _set_tab_order(self) -> None:
        """From top to bottom, though rows are made later than buttons."""
        stops = [
            self.button,
            *(row.control.native for row in self.options.rows),
            *chain(*((row.colour, row.name) for row in self.classes.rows)),
            self.save_button,
            self.forget_button,
            self.copy_button,
        ]
        for earlier, later in pairwise(stops):
            QWidget.setTabOrder(earlier, later)

    def _copy(self) -> None:
        clipboard = QApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(self.sha256)
            self.say("SHA-256 copied.")


def _heading(text: str) -> QLabel:
    label = QLabel(text)
    label.setProperty("role", "heading")
    label.setContentsMargins(0, 4, 0, 0)
    return label


def _button(text: str, name: str, tip: str) -> QToolButton:
    button = QToolButton()
    button.setText(text)
    describe(button, name, tip)
    return button
