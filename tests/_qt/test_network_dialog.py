"""Weights of a network that is not known, opened with the Python class that the person names."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from panel_helpers import PATIENCE, named, settle

from napari_attention_unet._qt import choices as kept
from napari_attention_unet._qt import network_dialog, trust_dialog
from napari_attention_unet._qt.choices import Choices
from napari_attention_unet._qt.network_dialog import Network, NetworkDialog
from napari_attention_unet.errors import InputError
from napari_attention_unet.model import load_model
from napari_attention_unet.models import card_file
from napari_attention_unet.models.option_text import arguments_of

_CODE = """
import torch

class Gated(torch.nn.Module):
    def __init__(self, width, kernel=(3, 3, 3)):
        super().__init__()
        self.a = torch.nn.Conv3d(1, width, kernel, padding=[k // 2 for k in kernel])
        self.g = torch.nn.Conv3d(width, 1, 1)
        self.b = torch.nn.Conv3d(width, 2, 1)

    def forward(self, x):
        x = torch.relu(self.a(x))
        return self.b(x * torch.sigmoid(self.g(x)))
"""


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("", {}),
        ("width=5, kernel=(1, 3, 3)", {"width": 5, "kernel": (1, 3, 3)}),
        ("norm='batch', deep=True", {"norm": "batch", "deep": True}),
    ],
)
def test_arguments_are_read_as_in_a_call(text: str, arguments: dict[str, object]):
    assert arguments_of(text) == arguments


@pytest.mark.parametrize(
    "text",
    ["5", "width=", "width=open('x')", "*[1]", "width=5) + call(", "a=1; b=2", "**{'a': 1}"],
)
def test_anything_else_is_refused_and_not_run(text: str):
    with pytest.raises(InputError, match="widths="):
        arguments_of(text)


def test_what_cannot_be_read_keeps_the_dialog_open(qtbot):
    dialog = NetworkDialog()
    qtbot.addWidget(dialog)
    dialog.show()
    dialog.accept()
    assert "package.module:Class" in dialog.complaint.text()
    dialog.architecture.setText("lab.networks:Gated")
    dialog.arguments.setText("width 5")
    dialog.accept()
    assert "width 5" in dialog.complaint.text()
    assert dialog.isVisible()
    dialog.arguments.setText("width=5")
    dialog.accept()
    assert not dialog.isVisible()
    assert dialog.network == Network("lab.networks:Gated", {"width": 5})


def test_a_named_class_opens_what_is_not_known_and_is_remembered(
    viewer, qtbot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        card_file.platformdirs, "user_config_dir", lambda *_a, **_k: str(tmp_path / "config")
    )
    (tmp_path / "lab_gated.py").write_text(_CODE)
    monkeypatch.syspath_prepend(tmp_path)
    from lab_gated import Gated

    path = tmp_path / "gated.pth"
    torch.save(Gated(5).state_dict(), path)
    monkeypatch.delitem(sys.modules, "lab_gated")
    kept.save(Choices(model=str(path), recent=[str(path)]))
    _dock, panel = viewer.window.add_plugin_dock_widget("napari-attention-unet", "Attention U-Net")
    settle(qtbot, panel)
    assert "not known" in panel.model.facts.error

    asked = []
    network = Network("lab_gated:Gated", {"width": 5})
    monkeypatch.setattr(network_dialog, "ask_network", lambda _parent: network)
    monkeypatch.setattr(trust_dialog, "ask_trust", lambda _p, q: asked.append(q) or True)
    named(panel, "browse").menu().actions()[-1].trigger()
    qtbot.waitUntil(lambda: bool(asked), timeout=PATIENCE)
    assert "lab_gated:Gated" in asked[0].what
    assert "lab_gated" not in sys.modules, "it was imported before anybody said yes"
    qtbot.waitUntil(lambda: panel.model.facts is not None, timeout=PATIENCE)
    assert panel.model.facts.error == ""
    assert panel.model.facts.gates == 1
    assert "lab_gated:Gated" in panel.model.card.facts.texts["network"].replace("\u200b", "")
    assert len(load_model(path).gates) == 1, "the class and the trust are remembered"

    named(panel, "forget_card").click()
    qtbot.waitUntil(lambda: panel.model.facts is not None, timeout=PATIENCE)
    assert "not known" in panel.model.facts.error
