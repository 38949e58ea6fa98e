"""What is taken for a checkpoint where it is dropped or chosen."""

from __future__ import annotations

from pathlib import Path

import pytest
from panel_helpers import PATIENCE, drop, named, settle
from qtpy.QtWidgets import QFileDialog

from napari_attention_unet._qt import choices as kept
from napari_attention_unet._qt.checkpoint_files import is_checkpoint
from napari_attention_unet._qt.choices import Choices
from napari_attention_unet._qt.files import kind_of
from napari_attention_unet.models import checkpoint
from napari_attention_unet.models.shards import index_in


@pytest.mark.parametrize(
    "name",
    [
        "best.pth",
        "epoch=3.CKPT",
        "model.safetensors",
        "scripted.pt",
        "exported.pt2",
        "package.zip",
        "rdf.yaml",
        "bioimageio.yaml",
        "model.safetensors.index.json",
    ],
)
def test_files_that_are_checkpoints(tmp_path: Path, name: str):
    (tmp_path / name).touch()
    assert kind_of(str(tmp_path / name)) == "checkpoint"


@pytest.mark.parametrize("name", ["notes.txt", "metadata.json", "config.yaml", "Makefile"])
def test_files_that_are_not(tmp_path: Path, name: str):
    (tmp_path / name).touch()
    assert kind_of(str(tmp_path / name)) == ""


@pytest.mark.parametrize("name", ["head.nii.gz", "cells.tif"])
def test_volumes_stay_volumes(tmp_path: Path, name: str):
    (tmp_path / name).touch()
    assert kind_of(str(tmp_path / name)) == "volume"


@pytest.mark.parametrize(
    ("inside", "kind"),
    [
        (("configs/metadata.json", "models/model.pt"), "bundle"),
        (("rdf.yaml",), "package"),
        (("bioimageio.yaml", "weights.pt"), "package"),
    ],
)
def test_folders_are_told_by_what_they_hold(tmp_path: Path, inside: tuple[str, ...], kind: str):
    folder = tmp_path / "liver_v1.2"
    for name in inside:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    assert kind_of(str(folder)) == "checkpoint"
    assert checkpoint._kind(folder) == kind, "it is opened as something else than it is taken for"
    assert not is_checkpoint(tmp_path)


def test_a_folder_with_shards_is_a_checkpoint(tmp_path: Path):
    index = tmp_path / "weights.safetensors.index.json"
    assert not is_checkpoint(tmp_path)
    index.touch()
    assert is_checkpoint(tmp_path)
    assert index_in(tmp_path) == index


def test_a_folder_of_checkpoints_is_none_itself(tmp_path: Path):
    (tmp_path / "epoch-1.pth").touch()
    assert not is_checkpoint(tmp_path)


@pytest.fixture
def panel(viewer, qtbot):
    """The panel on the bundled model."""
    kept.save(Choices(model="brain-t1"))
    _dock, made = viewer.window.add_plugin_dock_widget("napari-attention-unet", "Attention U-Net")
    settle(qtbot, made)
    return made


def test_a_file_or_a_folder_is_chosen_with_the_button(
    panel, qtbot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    opened: list[str] = []
    monkeypatch.setattr(panel.model, "open", opened.append)
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_a: str(tmp_path))
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_a: ("/models/best.pth", ""))
    file_action, folder_action, _class_action = named(panel, "browse").menu().actions()
    file_action.trigger()
    folder_action.trigger()
    assert opened == ["/models/best.pth", str(tmp_path)]
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_a: "")
    folder_action.trigger()
    assert len(opened) == 2, "the person cancelled"


def test_a_dropped_folder_is_chosen_as_model(panel, qtbot, tmp_path: Path):
    folder = tmp_path / "bundle"
    for name in ("configs", "models"):
        (folder / name).mkdir(parents=True)
    drop(panel, [folder])
    assert named(panel, "model").currentText() == "bundle"
    qtbot.waitUntil(lambda: panel.model.facts is not None, timeout=PATIENCE)
    assert "bundle" in panel.model.facts.error, "it holds no weights"
    assert named(panel, "model_note").text() == "cannot be used"
    assert "bundle" in named(panel, "model_note").toolTip()
