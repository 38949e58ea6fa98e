"""A checkpoint that is dropped on napari's canvas is chosen in the panel."""

from __future__ import annotations

from pathlib import Path

import pytest
from npe2 import PluginManager
from panel_helpers import PATIENCE, named

from napari_attention_unet._qt import canvas_drop
from napari_attention_unet.errors import InputError


def test_the_panel_is_docked_and_the_checkpoint_chosen(viewer, qtbot, checkpoint: Path):
    assert viewer.open(str(checkpoint), plugin="napari-attention-unet") == []
    panel = viewer.window.dock_widgets["Attention U-Net (napari-attention-unet)"]
    assert named(panel, "model").currentText() == checkpoint.name
    qtbot.waitUntil(lambda: panel.model.facts is not None, timeout=PATIENCE)
    assert panel.model.facts.gates == 2

    viewer.open(str(checkpoint), plugin="napari-attention-unet")
    assert len(viewer.window.dock_widgets) == 1, "a second panel was docked"
    qtbot.waitUntil(lambda: panel.model.facts is not None, timeout=PATIENCE)


def test_napari_finds_it_without_being_told(viewer, checkpoint: Path):
    found = PluginManager.instance().iter_compatible_readers([str(checkpoint)])
    assert "napari-attention-unet.choose_checkpoint" in [reader.command for reader in found]


def test_other_files_are_left_to_others(tmp_path: Path):
    (tmp_path / "notes.txt").touch()
    assert canvas_drop.get_reader(str(tmp_path / "notes.txt")) is None
    assert canvas_drop.get_reader(["a.pth", "b.pth"]) is None
    assert canvas_drop.get_reader(str(tmp_path)) is None


def test_without_a_viewer_it_says_what_would_work(monkeypatch: pytest.MonkeyPatch):
    import napari

    monkeypatch.setattr(napari, "current_viewer", lambda: None)
    with pytest.raises(InputError, match="load_model opens it"):
        canvas_drop.choose("best.pth")
