"""Controls for what a checkpoint does not say, made from the options of its network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from magicgui.widgets import ComboBox, LineEdit
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_attention_unet.models.opened import OptionValue
from napari_attention_unet.models.option_text import from_text, to_text

from .form import Form, beside, describe, native
from .style import set_property


class OptionForm(QWidget):
    """One row an option: its name, its value, and whether that was assumed or chosen."""

    changed = Signal(str, object)  #: name of the option and the value that the person chose

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.rows: list[OptionRow] = []
        self._form = Form()
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self._form)

    def show_options(self, options: Sequence[OptionValue]) -> None:
        """Show these; rows stay while the options are the same ones, and with them the focus."""
        if [_kind(row.option) for row in self.rows] != [_kind(option) for option in options]:
            for row in self.rows:
                self._form.remove(row)
            self.rows = [OptionRow(option) for option in options]
            for row in self.rows:
                name = row.option.name
                self._form.add(name.replace("_", " "), row, f"option_{name}_row", row.option.help)
                row.changed.connect(self.changed)
        for row, option in zip(self.rows, options, strict=True):
            row.show_option(option)


class OptionRow(QWidget):
    """The control of one option, and a mark that says whether its value was assumed."""

    changed = Signal(str, object)

    def __init__(self, option: OptionValue) -> None:
        super().__init__()
        self.option = option
        self.stated = option.stated
        self._shown = ""  # the text that was last shown or taken
        self._mark = QLabel()
        self._mark.setProperty("role", "chip")
        self._mark.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.control: ComboBox | LineEdit
        if option.choices:
            self.control = ComboBox(choices=[(to_text(value), value) for value in option.choices])
            self.control.changed.connect(self._choose)
        else:
            self.control = LineEdit()
            self.control.native.setAcceptDrops(False)  # it would take a dropped file as text
            self.control.native.editingFinished.connect(self._type)
        line = QVBoxLayout(self)
        line.setContentsMargins(0, 0, 0, 0)
        both = beside(native(self.control), self._mark)
        both.layout().setAlignment(self._mark, Qt.AlignmentFlag.AlignVCenter)  # type: ignore[union-attr]
        line.addWidget(both)
        self.setFocusProxy(self.control.native)
        self.show_option(option)

    @property
    def value(self) -> Any:
        """The value as it stands."""
        if isinstance(self.control, ComboBox):
            return self.control.value
        return from_text(self.control.value)

    def show_option(self, option: OptionValue) -> None:
        """Show what the option is set to, and whether it was assumed."""
        self.option = option
        self._shown = to_text(option.value)
        with self.control.changed.blocked():
            self.control.value = option.value if option.choices else self._shown
        name = f"option_{option.name}"
        describe(self.control.native, name, f"{option.help}\nDefault: {to_text(option.default)}")
        self._set_stated(option.stated)

    def _choose(self) -> None:
        self._set_stated(True)
        self.changed.emit(self.option.name, self.value)

    def _type(self) -> None:
        text = self.control.value.strip()
        if not text:
            self.control.value = self._shown
        elif text != self._shown:
            self._shown = text
            self._choose()

    def _set_stated(self, stated: bool) -> None:
        self.stated = stated
        set_property(self._mark, "stated", "true" if stated else "false")
        self._mark.setText("chosen" if stated else "assumed")
        self._mark.setMinimumWidth(self._mark.fontMetrics().horizontalAdvance("assumed") + 10)
        self._mark.setToolTip(
            "Said by you, by a card, or by the file" if stated else self.option.help
        )


def _kind(option: OptionValue) -> tuple[str, str, tuple[Any, ...]]:
    return option.name, option.kind, option.choices
