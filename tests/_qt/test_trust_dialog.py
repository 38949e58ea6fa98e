"""The question before code of a file is run: what it says, and that no is the answer by default."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from panel_helpers import PATIENCE, drop, named, settle
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QApplication, QMessageBox, QPushButton

from napari_attention_unet._qt import choices as kept
from napari_attention_unet._qt import trust_dialog
from napari_attention_unet._qt.choices import Choices
from napari_attention_unet._qt.trust_dialog import ask_trust, trust_box
from napari_attention_unet.errors import TrustRequired
from napari_attention_unet.models import trust

DIGEST = hashlib.sha256(b"content").hexdigest()
QUESTION = TrustRequired(
    Path("/models/liver/scripted.pt"),
    DIGEST,
    "a TorchScript program",
    "A program can do to your files whatever you can.",
)


@pytest.fixture(autouse=True)
def _own_memory(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """What is trusted stays within a test."""
    monkeypatch.setattr(
        trust.platformdirs, "user_config_dir", lambda *_a, **_k: str(tmp_path / "config")
    )


def test_it_says_what_the_file_is_and_what_yes_means(qtbot):
    box = trust_box(None, QUESTION)
    qtbot.addWidget(box)
    said = box.text() + box.informativeText()
    for words in ("scripted.pt", "a TorchScript program", "whatever you can", "/models/liver"):
        assert words in said
    assert DIGEST in said.replace("\n", "")
    assert box.textFormat() is Qt.TextFormat.PlainText, "a name could pretend to be markup"


def test_no_is_the_default_and_what_escape_says(qtbot):
    box = trust_box(None, QUESTION)
    qtbot.addWidget(box)
    assert box.defaultButton().objectName() == "trust_no"
    assert box.escapeButton().objectName() == "trust_no"


@pytest.mark.parametrize(
    ("press", "answer"),
    [("yes", True), ("no", False), ("return", False), ("escape", False)],
)
def test_what_is_pressed_is_the_answer(qtbot, press: str, answer: bool):
    def act() -> None:
        box = QApplication.activeModalWidget()
        if not isinstance(box, QMessageBox):
            QTimer.singleShot(20, act)
        elif press in ("yes", "no"):
            box.findChild(QPushButton, f"trust_{press}").click()
        else:
            key = Qt.Key.Key_Return if press == "return" else Qt.Key.Key_Escape
            qtbot.keyClick(box, key)

    QTimer.singleShot(0, act)
    assert ask_trust(None, QUESTION) is answer


# --- in the panel -------------------------------------------------------------------------------


class _Channelwise(torch.nn.Module):
    """A network that is not known: two convolutions and a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.features = torch.nn.Conv3d(1, 4, 3, padding=1)
        self.gate = torch.nn.Conv3d(4, 1, 1)
        self.head = torch.nn.Conv3d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        features = torch.relu(self.features(x))
        return self.head(features * torch.sigmoid(self.gate(features)))


@pytest.fixture
def program(tmp_path) -> Path:
    """A TorchScript program with one gate."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = _Channelwise().eval()
    path = tmp_path / "program.pt"
    torch.jit.script(network).save(str(path))
    return path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[TrustRequired]:
    """Questions that were asked; each is answered with `answers`, no if it is empty."""
    questions: list[TrustRequired] = []
    monkeypatch.setattr(
        trust_dialog, "ask_trust", lambda _parent, q: questions.append(q) or ANSWERS["yes"]
    )
    return questions


ANSWERS = {"yes": False}


def choose(qtbot, panel, path: Path) -> None:
    """Drop a file and wait until it is known what it is."""
    with qtbot.waitSignal(panel.controller.model_control.described, timeout=PATIENCE):
        drop(panel, [path])


@pytest.fixture
def panel(viewer, qtbot):
    """The panel on the bundled model."""
    kept.save(Choices(model="brain-t1"))
    _dock, made = viewer.window.add_plugin_dock_widget("napari-attention-unet", "Attention U-Net")
    settle(qtbot, made)
    return made


def test_no_leaves_the_file_alone_and_can_be_changed(panel, qtbot, program, asked, monkeypatch):
    monkeypatch.setitem(ANSWERS, "yes", False)
    choose(qtbot, panel, program)
    (question,) = asked
    assert question.path == program
    assert "TorchScript" in question.what
    assert panel.model.facts.description is None
    assert not named(panel, "run").isEnabled()
    assert "has not been allowed to run" in named(panel, "model_note").toolTip()
    assert named(panel, "allow").isVisible()
    assert not trust.is_trusted(question.sha256)

    monkeypatch.setitem(ANSWERS, "yes", True)
    with qtbot.waitSignal(panel.controller.model_control.described, timeout=PATIENCE):
        named(panel, "allow").click()
    assert panel.model.facts.error == ""
    assert not named(panel, "allow").isVisible()
    assert panel.model.facts.gates == 1
    assert "allowed by you" in panel.model.card.facts.texts["file"]
    assert trust.is_trusted(question.sha256)


def test_yes_is_remembered_by_content(panel, qtbot, program, asked, monkeypatch, tmp_path):
    monkeypatch.setitem(ANSWERS, "yes", True)
    choose(qtbot, panel, program)
    qtbot.waitUntil(lambda: panel.model.facts is not None, timeout=PATIENCE)
    assert panel.model.facts.error == ""
    again = tmp_path / "renamed.pt"
    program.rename(again)
    choose(qtbot, panel, again)
    assert panel.model.facts.error == ""
    assert len(asked) == 1, "the same content was asked about again"
    changed = tmp_path / "changed.pt"
    torch.jit.script(_Channelwise().eval()).save(str(changed))
    choose(qtbot, panel, changed)
    assert len(asked) == 2


def test_nothing_is_asked_when_napari_starts(viewer, qtbot, program, asked):
    kept.save(Choices(model=str(program), recent=[str(program)]))
    _dock, panel = viewer.window.add_plugin_dock_widget("napari-attention-unet", "Attention U-Net")
    settle(qtbot, panel)
    assert asked == []
    assert named(panel, "allow").isVisible()
    assert named(panel, "model").currentText() == "program.pt", "it is still in the list"
