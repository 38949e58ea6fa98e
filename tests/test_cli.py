"""The command line: what it writes, what it says, and with which exit status it leaves."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch

from napari_attention_unet import cli, io
from napari_attention_unet.cli import console
from napari_attention_unet.cli.demo import gates_table
from napari_attention_unet.models import ModelCard, default_classes, save_checkpoint
from napari_attention_unet.models.attention_unet_3d import AttentionUNet3D

predict_module = importlib.import_module("napari_attention_unet.predict")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny network with two gates and random weights, as a file."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = AttentionUNet3D(1, 3, widths=(4, 6)).eval()
    card = ModelCard(
        name="tiny",
        architecture="AttentionUNet3D",
        arguments={"in_channels": 1, "out_channels": 3, "widths": [4, 6]},
        classes=default_classes(3),
        description="for tests",
    )
    return str(
        save_checkpoint(tmp_path_factory.mktemp("model") / "tiny.safetensors", network, card)
    )


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run the command line in this process; gives exit status, standard output and error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["napari-attention-unet", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return call


def tiff(path: Path, seed: int = 0) -> Path:
    """A (z, y, x) = (10, 12, 14) volume of 2 x 0.5 x 0.5 µm, as an ImageJ TIFF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.random.default_rng(seed).integers(0, 1000, (10, 12, 14)).astype(np.uint16)
    tifffile.imwrite(
        path,
        data,
        imagej=True,
        resolution=(2.0, 2.0),
        metadata={"axes": "ZYX", "spacing": 2.0, "unit": "um"},
    )
    return path


def one_line(text: str) -> str:
    """The text, which has to be exactly one line."""
    assert text.count("\n") == 1, text
    return text.strip()


# --- predict ------------------------------------------------------------------------------------


def test_predict_writes_mask_gates_and_provenance(run, checkpoint: str, tmp_path: Path):
    volume = tiff(tmp_path / "cells.tif")
    status, out, err = run("predict", volume, "-m", checkpoint, "-o", tmp_path / "out")
    folder = tmp_path / "out" / "cells"
    assert (status, out.strip(), err) == (0, str(folder), "")

    summary = json.loads((folder / "prediction.json").read_text(encoding="utf-8"))
    assert [gate["name"] for gate in summary["gates"]] == ["att2", "att1"]
    for gate in summary["gates"]:
        (saved,) = io.read(folder / gate["file"])
        assert list(saved.shape) == gate["shape"]
    (mask,) = io.read(folder / summary["files"]["mask"])
    assert mask.shape == (10, 12, 14)
    np.testing.assert_allclose(mask.spacing, (2.0, 0.5, 0.5))

    model = predict_module.load_model(checkpoint)
    (source,) = io.read(volume)
    expected = predict_module.predict(model, source)
    np.testing.assert_array_equal(np.asarray(mask.data)[0], expected.mask)


def test_nifti_results_lie_over_their_source(run, checkpoint: str, tmp_path: Path):
    affine = np.array([[0, -1.5, 0, 7], [0, 0, 2, -3], [1, 0, 0, 5], [0, 0, 0, 1.0]])
    data = np.random.default_rng(1).normal(size=(8, 9, 10)).astype(np.float32)
    nib.save(nib.Nifti1Image(data, affine), tmp_path / "head.nii.gz")
    status, out, _err = run("predict", tmp_path / "head.nii.gz", "-m", checkpoint, "-o", tmp_path)
    assert status == 0
    mask = nib.load(Path(out.strip()) / "mask.nii.gz")
    assert mask.shape == data.shape
    np.testing.assert_allclose(mask.affine, affine, atol=1e-6)


def test_equal_stems_get_folders_of_their_own(run, checkpoint: str, tmp_path: Path):
    first, second = tiff(tmp_path / "a" / "x.tif", 1), tiff(tmp_path / "b" / "X.tiff", 2)
    status, out, _err = run("predict", first, second, "-m", checkpoint, "-o", tmp_path / "out")
    assert status == 0
    folders = [Path(line) for line in out.splitlines()]
    assert [folder.name for folder in folders] == ["x", "X-2"]
    sources = [json.loads((f / "prediction.json").read_text())["volume"] for f in folders]
    assert [s["storage"]["path"] for s in sources] == [str(first), str(second)]


def test_earlier_results_are_replaced_on_request_alone(run, checkpoint: str, tmp_path: Path):
    volume = tiff(tmp_path / "x.tif")
    command = ("predict", volume, "-m", checkpoint, "-o", tmp_path / "out")
    assert run(*command)[0] == 0
    summary = tmp_path / "out" / "x" / "prediction.json"
    before = summary.stat().st_mtime_ns
    status, out, err = run(*command)
    assert (status, out) == (2, "")
    assert "--overwrite" in one_line(err)
    assert summary.stat().st_mtime_ns == before
    assert run(*command, "--overwrite")[0] == 0
    assert summary.stat().st_mtime_ns > before


def test_an_unusable_file_does_not_stop_the_others(run, checkpoint: str, tmp_path: Path):
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"\x1f\x8b not a volume")
    fine = tiff(tmp_path / "fine.tif")
    status, out, err = run("predict", broken, fine, "-m", checkpoint, "-o", tmp_path / "out")
    assert status == 2
    assert out.strip() == str(tmp_path / "out" / "fine")
    assert "broken.nii.gz" in one_line(err)
    assert not (tmp_path / "out" / "broken").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--spacing", "1,2"], r"--spacing is '1,2'; three numbers"),
        (["--spacing", "1,2,mm"], r"three numbers are needed"),
        (["--save", "mask,heat"], r"heat"),
        (["-m", "no-such.pth"], r"no file 'no-such\.pth'"),
        (["--device", "abacus"], r"abacus"),
        (["--memory", "-1"], r"memory"),
    ],
)
def test_bad_options(run, checkpoint: str, tmp_path: Path, arguments: list[str], said: str):
    model = [] if "-m" in arguments else ["-m", checkpoint]
    status, out, err = run("predict", tiff(tmp_path / "x.tif"), "-o", tmp_path, *model, *arguments)
    assert (status, out) == (2, "")
    assert re.search(said, one_line(err)), err


def test_a_missing_file_is_named(run, checkpoint: str, tmp_path: Path):
    status, _out, err = run("predict", tmp_path / "gone.tif", "-m", checkpoint, "-o", tmp_path)
    assert status == 2
    assert "gone.tif" in one_line(err)


def test_spacing_replaces_what_the_file_says(run, checkpoint: str, tmp_path: Path):
    volume = tiff(tmp_path / "x.tif")
    arguments = ("--spacing", "4,1,1", "--save", "probabilities, logits", "--format", "zarr")
    status, out, err = run("predict", volume, "-m", checkpoint, "-o", tmp_path / "out", *arguments)
    assert (status, err) == (0, "")
    summary = json.loads((Path(out.strip()) / "prediction.json").read_text())
    assert summary["volume"]["spacing"] == [4.0, 1.0, 1.0]
    assert {"mask.zarr", "probabilities.zarr", "logits.zarr"} <= set(summary["files"].values())


def test_time_points_are_saved_together(run, checkpoint: str, tmp_path: Path):
    path = tmp_path / "movie.tif"
    data = np.random.default_rng(3).integers(0, 255, (2, 8, 9, 10)).astype(np.uint8)
    tifffile.imwrite(path, data, imagej=True, metadata={"axes": "TZYX"})
    status, out, _err = run("predict", path, "-m", checkpoint, "-o", tmp_path / "out")
    assert status == 0
    assert len(io.read(Path(out.strip()) / "mask.ome.tif")) == 2


def test_interruption_leaves_status_130_and_no_results(
    run, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    steps = predict_module.predict_steps

    def interrupted(*args, **kwargs):
        for step in steps(*args, **kwargs):
            signal.raise_signal(signal.SIGINT)
            yield step

    monkeypatch.setattr(predict_module, "predict_steps", interrupted)
    volume = tiff(tmp_path / "x.tif")
    status, out, err = run("predict", volume, "-m", checkpoint, "-o", tmp_path / "out")
    assert (status, out) == (130, "")
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_said_in_one_line(
    run, checkpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(io, "save", full)
    status, _out, err = run("predict", tiff(tmp_path / "x.tif"), "-m", checkpoint, "-o", tmp_path)
    assert status == 1
    assert "No space left" in one_line(err)


# --- models -------------------------------------------------------------------------------------


def test_models_lists_the_bundled_ones(run):
    status, out, _err = run("models")
    assert status == 0
    assert "brain-t1" in out
    status, out, _err = run("models", "--json")
    (card,) = (card for card in json.loads(out) if card["name"] == "brain-t1")
    assert card["classes"][0]["name"] == "background"


def test_models_prints_the_card_of_a_checkpoint(run, checkpoint: str):
    status, out, err = run("models", checkpoint, "--json")
    assert (status, err) == (0, "")
    facts = json.loads(out)
    assert facts["name"] == "tiny"
    assert facts["arguments"]["widths"] == [4, 6]
    assert facts["stride"] == [4, 4, 4]
    assert len(facts["sha256"]) == 64
    assert [(gate["name"], gate["scale"]) for gate in facts["gates"]] == [
        ("att2", [2, 2, 2]),
        ("att1", [1, 1, 1]),
    ]
    status, out, _err = run("models", checkpoint)
    assert status == 0
    for word in ("tiny", "for tests", "att2", facts["sha256"][:8]):
        assert word in out


def test_models_says_what_a_foreign_file_is(run, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("buy milk")
    status, out, err = run("models", tmp_path / "notes.txt")
    assert (status, out) == (2, "")
    assert "notes.txt" in one_line(err)


# --- demo ---------------------------------------------------------------------------------------


def test_the_table_has_a_row_for_each_gate(checkpoint: str, capsys: pytest.CaptureFixture[str]):
    array = np.random.default_rng(4).normal(size=(8, 8, 8)).astype(np.float32)
    prediction = predict_module.predict(predict_module.load_model(checkpoint), array)
    console.show(gates_table(prediction))
    out = capsys.readouterr().out
    for gate in prediction.gates:
        assert gate.name in out


@pytest.mark.skipif(sys.platform != "linux", reason="other systems always have a display")
def test_demo_without_any_screen_says_what_to_install(run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("PATH", "")
    status, _out, err = run("demo")
    assert status == 2
    assert "xvfb" in one_line(err)


@pytest.mark.slow
def test_demo_saves_results_and_a_screenshot(tmp_path: Path):
    """On a virtual screen of its own where this is a Linux machine without a display."""
    environment = {k: v for k, v in os.environ.items() if sys.platform != "linux" or k != "DISPLAY"}
    done = subprocess.run(
        [sys.executable, "-m", "napari_attention_unet", "demo", "--no-window", "-o", tmp_path],
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert "AUC" in done.stdout
    (summary,) = tmp_path.rglob("prediction.json")
    for gate in json.loads(summary.read_text())["gates"]:
        assert gate["name"] in done.stdout
    from skimage.io import imread

    picture = imread(tmp_path / "viewer.png")
    assert picture.shape[0] >= 600
    assert picture[..., :3].std() > 10


# --- start --------------------------------------------------------------------------------------


def test_help_answers_without_loading_what_is_heavy():
    code = (
        "import sys; sys.argv = ['napari-attention-unet', 'predict', '--help']\n"
        "from napari_attention_unet.cli import main\n"
        "try:\n    main()\nexcept SystemExit as left:\n    assert left.code == 0\n"
        "print(sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert "VOLUME" in done.stdout
    for heavy in ("torch", "numpy", "napari", "qtpy", "nibabel"):
        assert f"'{heavy}'" not in done.stderr


def test_module_and_script_are_the_same_command():
    done = subprocess.run(
        [sys.executable, "-m", "napari_attention_unet"], capture_output=True, text=True, timeout=60
    )
    assert "predict" in done.stdout + done.stderr
    assert done.returncode == 2
