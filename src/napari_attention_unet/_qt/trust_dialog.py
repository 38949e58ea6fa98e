"""Ask the person before code of a file is run."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QMessageBox, QWidget

from napari_attention_unet.errors import TrustRequired

_LINE = 32  # digits of a hash in one line


def trust_box(parent: QWidget | None, required: TrustRequired) -> QMessageBox:
    """The dialog: what the file is, what yes means, its name and hash; No is the default."""
    path = Path(required.path)
    box = QMessageBox(parent)
    box.setObjectName("trust_dialog")
    box.setIcon(QMessageBox.Icon.Warning)
    box.setWindowTitle("Run code of this file?")
    box.setTextFormat(Qt.TextFormat.PlainText)
    box.setText(f"'{path.name}' is {required.what}.")
    digest = required.sha256
    lines = [digest[start : start + _LINE] for start in range(0, len(digest), _LINE)]
    box.setInformativeText(
        f"{required.why}\n\n"
        "Say yes only if you know who made it. The answer is remembered for exactly this content; "
        "you are asked again when it changes.\n\n"
        f"Folder: {path.parent}\n"
        "SHA-256:\n" + "\n".join(lines)
    )
    box.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    yes = box.addButton("Yes, run it", QMessageBox.ButtonRole.YesRole)
    no = box.addButton("No", QMessageBox.ButtonRole.NoRole)
    for button, name in ((yes, "trust_yes"), (no, "trust_no")):
        if button is not None:
            button.setObjectName(name)
    box.setDefaultButton(no)
    box.setEscapeButton(no)
    return box


def ask_trust(parent: QWidget | None, required: TrustRequired) -> bool:
    """Whether the person says that code of the file may be run."""
    box = trust_box(parent, required)
    try:
        box.exec()
        clicked = box.clickedButton()
        return clicked is not None and clicked.objectName() == "trust_yes"
    finally:
        box.deleteLater()
