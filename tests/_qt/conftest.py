from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from panel_helpers import load_once, settle

from napari_attention_unet._qt import choices as kept
from napari_attention_unet._qt.choices import Choices
from napari_attention_unet.models import ClassInfo, ModelCard, save_checkpoint
from napari_attention_unet.models.attention_unet_3d import AttentionUNet3D

CLASSES = (
    ClassInfo("background", "#000000"),
    ClassInfo("core", "#ff8000"),
    ClassInfo("shell", "#0080ff"),
)


def make_checkpoint(path: Path, in_channels: int = 1, channel_names: tuple[str, ...] = ()) -> Path:
    """A narrow untrained network of the blog's kind with two levels and two gates."""
    arguments = {"in_channels": in_channels, "out_channels": 3, "widths": [3, 4], "center": 7}
    with torch.random.fork_rng():
        # of the first seeds, one that gives all three classes, and two gates without a flag
        torch.manual_seed(9)
        network = AttentionUNet3D(**arguments)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm3d):
                torch.nn.init.normal_(module.weight, 1.5, 0.5)
                torch.nn.init.normal_(module.bias, 0, 0.5)
        last = network.final.final_block[-1].weight
        with torch.no_grad():
            last -= last.mean(0, keepdim=True)
    card = ModelCard(
        name=path.stem,
        architecture="AttentionUNet3D",
        arguments=arguments,
        in_channels=in_channels,
        channel_names=channel_names,
        classes=CLASSES,
    )
    return save_checkpoint(path, network, card)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoints") / "small.safetensors")


@pytest.fixture(scope="session")
def two_channel_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    return make_checkpoint(folder / "two.safetensors", 2, ("t1", "flair"))


@pytest.fixture
def blob() -> np.ndarray:
    """A bright ball in noise, shape (20, 24, 28)."""
    rng = np.random.default_rng(1)
    z, y, x = np.ogrid[:20, :24, :28]
    ball = (z - 10) ** 2 + (y - 12) ** 2 + (x - 14) ** 2 < 49
    return (rng.normal(100, 10, ball.shape) + 200 * ball).astype(np.float32)


@pytest.fixture
def docked(viewer, checkpoint: Path, qtbot, monkeypatch: pytest.MonkeyPatch):
    """The viewer with the panel docked as *Plugins > Attention U-Net* does it.

    The small network is chosen, as if it had been the last time; it and the devices are known.
    Tests share loaded models, as tracing one takes a second. Returns the viewer and the panel.
    """

    # the name in the package is the function
    predict = importlib.import_module("napari_attention_unet.predict")
    monkeypatch.setattr(predict, "load_model", load_once)
    kept.save(Choices(model=str(checkpoint), recent=[str(checkpoint)]))
    _dock, panel = viewer.window.add_plugin_dock_widget("napari-attention-unet", "Attention U-Net")
    settle(qtbot, panel)
    return viewer, panel
