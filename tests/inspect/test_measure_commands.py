"""The commands `measure` and `report`: of a volume, and of a folder of results."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch

from napari_attention_unet import cli, io
from napari_attention_unet.inspect.reference import compare_with_reference
from napari_attention_unet.inspect.table import measures_table
from napari_attention_unet.models import ModelCard, default_classes, save_checkpoint
from napari_attention_unet.models.attention_unet_3d import AttentionUNet3D

SHAPE = (10, 12, 14)


def made(path: Path, seed: int) -> str:
    """A tiny network with two gates and random weights, as a file."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = AttentionUNet3D(1, 3, widths=(4, 6)).eval()
    card = ModelCard(
        name="tiny",
        architecture="AttentionUNet3D",
        arguments={"in_channels": 1, "out_channels": 3, "widths": [4, 6]},
        classes=default_classes(3),
        limits="Knows nothing.",
    )
    return str(save_checkpoint(path, network, card))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return made(tmp_path_factory.mktemp("model") / "tiny.safetensors", 0)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A volume of 2 x 0.5 x 0.5 µm, as an ImageJ TIFF."""
    data = np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.uint16)
    path = tmp_path / "cells.tif"
    tifffile.imwrite(
        path, data, imagej=True, resolution=(2.0, 2.0),
        metadata={"axes": "ZYX", "spacing": 2.0, "unit": "um"},
    )  # fmt: skip
    return path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run the command line in this process; gives exit status, standard output and error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["napari-attention-unet", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return call


@pytest.fixture
def result(run, volume: Path, checkpoint: str, tmp_path: Path) -> Path:
    """The folder of a result of that volume."""
    status, out, _ = run("predict", volume, "-m", checkpoint, "-o", tmp_path / "out")
    assert status == 0
    return Path(out.strip())


def test_measure_gives_the_table_of_a_result(run, result: Path, tmp_path: Path):
    file = tmp_path / "measures.csv"
    status, out, err = run("measure", result, "--csv", file)
    assert (status, err) == (0, "")
    assert "att2" in out
    assert "AUC" in out
    expected = measures_table(io.open_result(result))
    read = pd.read_csv(file)
    assert len(read) == len(expected) == 4
    np.testing.assert_allclose(read["inside"], expected["inside"], rtol=1e-5)
    np.testing.assert_allclose(read["volume (µm³)"], expected["voxels"] * 0.5)


@pytest.mark.parametrize("by", ["class", "object", "foreground"])
def test_measure_of_a_volume_equals_that_of_its_result(
    run, volume: Path, result: Path, checkpoint: str, by: str
):
    status, out, err = run("measure", volume, "-m", checkpoint, "--by", by, "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == json.loads(run("measure", result, "--by", by, "--json")[1])
    rows = json.loads(out)["measures"]
    expected = measures_table(io.open_result(result), by=by)
    assert [row["region"] for row in rows] == list(expected["region"])


def test_measure_compares_with_a_reference(run, result: Path, tmp_path: Path):
    (prediction,) = io.open_result(result)
    labels = np.roll(prediction.mask, 1, 2)
    tifffile.imwrite(tmp_path / "labels.tif", labels, photometric="minisblack")
    arguments = ("measure", result, "--reference", tmp_path / "labels.tif")
    status, out, _ = run(*arguments, "--csv", tmp_path / "m.csv")
    assert status == 0
    for heading in ("Dice", "Precision", "95 %"):
        assert heading in out
    expected = compare_with_reference(prediction, labels)
    with (tmp_path / "m-reference.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    dice = [float(row["dice"]) for row in rows]
    np.testing.assert_allclose(dice, expected.classes["dice"], rtol=1e-5)
    assert "surface_distance (µm)" in rows[0]
    assert (tmp_path / "m-errors.csv").exists()
    both = json.loads(run(*arguments, "--json")[1])
    assert set(both) == {"measures", "reference", "errors"}

    tifffile.imwrite(tmp_path / "small.tif", labels[:4], photometric="minisblack")
    status, _, err = run("measure", result, "--reference", tmp_path / "small.tif")
    assert status == 2
    assert "(4, 12, 14)" in err


def test_report_of_a_result_and_of_its_volume(
    run, volume: Path, result: Path, checkpoint: str, tmp_path: Path
):
    status, out, err = run("report", result, "-o", tmp_path / "a" / "one.html")
    assert (status, err) == (0, "")
    assert out.strip() == str(tmp_path / "a" / "one.html")
    page = Path(out.strip()).read_text(encoding="utf-8")
    assert "cells: where tiny looks" in page
    assert "The image was not at hand" not in page
    assert "Does it matter?" not in page
    status, out, _ = run("report", volume, "-m", checkpoint, "-o", tmp_path / "two.html")
    assert status == 0
    assert "Knows nothing." in Path(out.strip()).read_text(encoding="utf-8")


def test_report_with_ablation_reference_and_history(
    run, volume: Path, result: Path, checkpoint: str, tmp_path: Path
):
    (prediction,) = io.open_result(result)
    tifffile.imwrite(tmp_path / "labels.tif", prediction.mask, photometric="minisblack")
    for epoch in (0, 5):
        made(tmp_path / "training" / f"epoch={epoch}.safetensors", epoch)
    status, out, err = run(
        "report", result, "-m", checkpoint, "--ablation", "--reference", tmp_path / "labels.tif",
        "--history", tmp_path / "training", "-o", tmp_path / "r.html",
    )  # fmt: skip
    assert (status, err) == (0, "")
    page = Path(out.strip()).read_text(encoding="utf-8")
    for title in ("Does it matter?", "Against the reference", "Over the training"):
        assert title in page


def test_what_cannot_be_reported_is_said(
    run, volume: Path, result: Path, checkpoint: str, tmp_path: Path
):
    other = made(tmp_path / "other.safetensors", 7)
    status, _, err = run("report", result, "-m", other, "--ablation")
    assert status == 2
    assert "made by another model than 'tiny'" in err
    volume.unlink()
    status, _, err = run("report", result, "-m", checkpoint, "--ablation")
    assert status == 2
    assert "no longer where it was" in err
    status, out, _ = run("report", result, "-o", tmp_path / "r.html")  # the result alone is enough
    assert status == 0
    assert "The image was not at hand" in Path(out.strip()).read_text(encoding="utf-8")
    status, _, err = run("measure", tmp_path / "nothing.tif")
    assert status == 2
    assert err.count("\n") == 1
