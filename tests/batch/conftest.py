"""A tiny checkpoint, and folders of volumes of which some are bad."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch

from napari_attention_unet.models import ModelCard, default_classes, save_checkpoint
from napari_attention_unet.models.attention_unet_3d import AttentionUNet3D


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A network with two gates and random weights, as a file."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = AttentionUNet3D(1, 3, widths=(4, 6)).eval()
    card = ModelCard(
        name="tiny",
        architecture="AttentionUNet3D",
        arguments={"in_channels": 1, "out_channels": 3, "widths": [4, 6]},
        classes=default_classes(3),
    )
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    return str(save_checkpoint(path, network, card))


def write_good(folder: Path, number: int) -> None:
    data = np.random.default_rng(number).normal(100, 20, (6 + number % 3, 10, 9))
    if number % 2:
        affine = np.diag([2.0, -2.0, 3.0, 1.0])
        nib.save(nib.Nifti1Image(data.astype(np.float32), affine), folder / f"v{number:02}.nii.gz")
    else:
        tifffile.imwrite(folder / f"v{number:02}.tif", data.astype(np.uint16))


def write_bad(folder: Path) -> None:
    volume = np.zeros((6, 10, 9), np.uint16)
    (folder / "a-text.nii").write_text("not an image" * 50)
    tifffile.imwrite(folder / "b-cut.tif", volume)
    whole = (folder / "b-cut.tif").read_bytes()
    (folder / "b-cut.tif").write_bytes(whole[: len(whole) // 2])
    tifffile.imwrite(folder / "c-plane.tif", volume[0])
    tifffile.imwrite(folder / "d-colour.tif", np.zeros((6, 10, 9, 3), np.uint8), photometric="rgb")
    np.save(folder / "e-nan.npy", np.full((6, 10, 9), np.nan))
    np.save(folder / "f-channels.npy", np.zeros((2, 6, 10, 9)))
    (folder / "g-empty.zarr").mkdir()


@pytest.fixture
def scans(tmp_path: Path):
    """Make a folder of so many good volumes, and the bad ones."""

    def make(good: int, bad: bool = True) -> Path:
        folder = tmp_path / "scans"
        folder.mkdir()
        for number in range(good):
            write_good(folder, number)
        if bad:
            write_bad(folder)
        return folder

    return make
