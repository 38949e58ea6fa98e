"""Ask the person for the Python class of a network that is not known."""

from __future__ import annotations

from typing import Any, NamedTuple

from qtpy.QtWidgets import QDialog, QDialogButtonBox, QLineEdit, QVBoxLayout, QWidget

from napari_attention_unet.errors import InputError
from napari_attention_unet.models.option_text import arguments_of

from .form import Form, Note
from .style import set_property

_WHAT = (
    "For weights of a network that is not known: the Python class that they belong to, in a "
    "package that is installed. Importing it runs its code; you are asked before that happens."
)


class Network(NamedTuple):
    """A class and the arguments with which it makes a network."""

    architecture: str
    arguments: dict[str, Any]


class NetworkDialog(QDialog):
    """Two fields, the class and its arguments; what cannot be read is said and keeps it open."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("network_dialog")
        self.setWindowTitle("The network's Python class")
        self.setMinimumWidth(440)
        self.network: Network | None = None
        self.architecture, self.arguments = QLineEdit(), QLineEdit()
        self.architecture.setPlaceholderText("package.module:Class")
        self.arguments.setPlaceholderText("in_channels=1, out_channels=3, widths=(8, 16)")
        self.complaint = Note(role="error")
        self.complaint.hide()
        form = Form()
        form.add("class", self.architecture, "network_class", "Where Python finds it")
        form.add(
            "arguments",
            self.arguments,
            "network_arguments",
            "With which it was made when it was trained, written as in Python",
        )
        roles = QDialogButtonBox.StandardButton
        buttons = QDialogButtonBox(roles.Ok | roles.Cancel)
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        column = QVBoxLayout(self)
        column.setSpacing(10)
        for widget in (Note(_WHAT), form, self.complaint, buttons):
            column.addWidget(widget)

    def accept(self) -> None:
        """Close, if both fields can be read."""
        name = self.architecture.text().strip()
        module, _, cls = name.partition(":")
        try:
            if not module or not cls:
                raise InputError("Name the class as package.module:Class.")
            self.network = Network(name, arguments_of(self.arguments.text()))
        except InputError as error:
            set_property(self.complaint, "role", "error")
            self.complaint.setText(str(error))
            self.complaint.show()
            return
        super().accept()


def ask_network(parent: QWidget | None) -> Network | None:
    """The class that the person names; None if they cancelled."""
    dialog = NetworkDialog(parent)
    try:
        dialog.exec()
        return dialog.network
    finally:
        dialog.deleteLater()
