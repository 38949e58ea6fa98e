"""The commands that ask for causes: what they print, write and refuse."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch

from napari_attention_unet import cli, io
from napari_attention_unet.io.open_result import open_result
from napari_attention_unet.models import ModelCard, default_classes, save_checkpoint
from napari_attention_unet.models.attention_unet_3d import AttentionUNet3D


def write(path: Path, seed: int, classes: int = 3) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = AttentionUNet3D(1, classes, widths=(4, 6)).eval()
    card = ModelCard(
        name="tiny",
        architecture="AttentionUNet3D",
        arguments={"in_channels": 1, "out_channels": classes, "widths": [4, 6]},
        classes=default_classes(classes),
    )
    return save_checkpoint(path, network, card)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A volume, its labels, and two checkpoints."""
    made = tmp_path_factory.mktemp("causes")
    rng = np.random.default_rng(0)
    save = {"imagej": True, "metadata": {"axes": "ZYX", "spacing": 2.0, "unit": "um"}}
    tifffile.imwrite(made / "cells.tif", rng.integers(0, 999, (8, 12, 12)).astype("u2"), **save)
    labels = np.zeros((8, 12, 12), np.uint8)
    labels[2:6, 3:9, 3:9] = 1
    tifffile.imwrite(made / "labels.tif", labels, **save)
    tifffile.imwrite(made / "small.tif", labels[:4], **save)
    (made / "training").mkdir()
    for epoch in (1, 10):
        write(made / "training" / f"epoch={epoch}.safetensors", epoch)
    return made


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


def test_ablate(run, folder, tmp_path):
    model = folder / "training" / "epoch=1.safetensors"
    csv = tmp_path / "ablation.csv"
    asked = ("ablate", folder / "cells.tif", "-m", model, "--reference", folder / "labels.tif")
    status, out, err = run(*asked, "--csv", csv)
    assert (status, err) == (0, "")
    for word in ("att2", "att1", "closed", "open", "mean", "foreground", "Dice", "Gain in Dice"):
        assert word in out
    table = pd.read_csv(csv)
    assert len(table) == 2 * 3 * 3
    assert "before (µm³)" in table.columns
    status, out, _err = run(*asked, "--json")
    rows = json.loads(out)
    assert [row["gate"] for row in rows] == table["gate"].tolist()
    dice = [np.nan if row["dice"] is None else row["dice"] for row in rows]
    np.testing.assert_allclose(dice, table["dice"], rtol=1e-4)


def test_references_of_another_shape_are_refused(run, folder):
    model = folder / "training" / "epoch=1.safetensors"
    status, out, err = run(
        "ablate", folder / "cells.tif", "-m", model, "--reference", folder / "small.tif"
    )
    assert (status, out) == (2, "")
    assert "(8, 12, 12)" in err
    assert err.count("\n") == 1


def test_sanity(run, folder):
    model = folder / "training" / "epoch=1.safetensors"
    status, out, err = run("sanity", folder / "cells.tif", "-m", model, "--mode", "cascading")
    assert (status, err) == (0, "")
    for word in ("att1.W_g", "encoder1.encoder_block", "SSIM", "att2: ", "the weights."):
        assert word in out


def test_gradcam(run, folder, tmp_path):
    model = folder / "training" / "epoch=1.safetensors"
    asked = ("gradcam", folder / "cells.tif", "-m", model, "--region", folder / "labels.tif")
    name = default_classes(3)[1].name
    status, out, err = run(*asked, "--class", name, "-o", tmp_path / "maps")
    assert (status, err) == (0, "")
    assert "Rank correlation" in out
    (found,) = open_result(tmp_path / "maps" / name)
    assert [gate.kind for gate in found.gates] == ["gradcam", "gradcam"]
    labels = np.asarray(io.read(folder / "labels.tif")[0].data)[0]
    np.testing.assert_array_equal(found.mask > 0, labels > 0)
    status, out, _err = run(*asked, "--json")
    assert {row["gate"] for row in json.loads(out)} == {"att2", "att1"}
    status, out, err = run("gradcam", folder / "cells.tif", "-m", model, "--class", "kidney")
    assert status == 2
    assert "kidney" in err


def test_history(run, folder, tmp_path):
    asked = ("history", folder / "training", "--volume", folder / "cells.tif", "-o", tmp_path / "h")
    status, out, err = run(*asked)
    assert (status, err) == (0, "")
    assert "Epoch" in out
    assert str(tmp_path / "h") in out.replace("\n", "")
    series = open_result(tmp_path / "h")
    assert [p.volume.time for p in series] == [1, 10]
    assert len(io.read(tmp_path / "h" / "gate-att1.ome.tif")) == 2
    assert set(pd.read_csv(tmp_path / "h" / "measures.csv")["epoch"]) == {1, 10}
    status, _out, err = run(*asked)
    assert status == 2
    assert "--overwrite" in err
    assert run(*asked, "--overwrite")[0] == 0


def test_history_names_what_it_leaves_out(run, folder, tmp_path):
    good = folder / "training" / "epoch=1.safetensors"
    (tmp_path / "epoch=1.safetensors").write_bytes(good.read_bytes())
    (tmp_path / "epoch=2.safetensors").write_bytes(b"\0" * 64)
    status, _out, err = run(
        "history", tmp_path, "--volume", folder / "cells.tif", "-o", tmp_path / "out"
    )
    assert status == 0
    assert "epoch=2.safetensors: left out: " in err


def test_compare(run, folder, tmp_path):
    for epoch in (1, 10):
        model = folder / "training" / f"epoch={epoch}.safetensors"
        run("predict", folder / "cells.tif", "-m", model, "-o", tmp_path / str(epoch))
    one, other = (tmp_path / str(epoch) / "cells" for epoch in (1, 10))
    csv = tmp_path / "both.csv"
    status, out, err = run("compare", one, other, "--csv", csv)
    assert (status, err) == (0, "")
    for word in ("foreground", "att2", "Rank correlation", "Before (µm³)"):
        assert word in out
    assert {"auc_1", "auc_2"} <= set(pd.read_csv(csv).columns)
    status, out, _err = run("compare", one, one, "--json")
    found = json.loads(out)
    assert {row["max_abs_difference"] for row in found["gates"]} == {0}
    status, _out, err = run("compare", one, other, "--time", 3)
    assert (status, err.count("\n")) == (2, 1)
    status, _out, err = run("compare", one, tmp_path)
    assert status == 2
    assert "prediction.json" in err
