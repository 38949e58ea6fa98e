"""A saved result is run again from what it says of itself, and any change is told."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile

from napari_attention_unet import InputError, cli, io, load_model, predict
from napari_attention_unet.batch.rerun import load_keywords, rerun_steps
from napari_attention_unet.graph.lower import finished
from napari_attention_unet.model import Model
from napari_attention_unet.models.card import ClassInfo, Normalization


@pytest.fixture
def head(tmp_path: Path) -> Path:
    """A volume whose axes are turned and flipped against those that are run."""
    affine = np.array([[0, -1.5, 0, 7], [0, 0, 2, -3], [1, 0, 0, 5], [0, 0, 0, 1.0]])
    data = np.random.default_rng(1).normal(size=(8, 9, 10)).astype(np.float32)
    nib.save(nib.Nifti1Image(data, affine), tmp_path / "head.nii.gz")
    return tmp_path / "head.nii.gz"


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


@pytest.fixture
def result(run, head: Path, checkpoint: str, tmp_path: Path) -> Path:
    """The folder of a result of `head`."""
    status, out, err = run(
        "predict", head, "-m", checkpoint, "-o", tmp_path / "out", "--option", "activation=sigmoid"
    )
    assert (status, err) == (0, "")
    return Path(out.strip())


def change(folder: Path, **values: object) -> None:
    """Change what a result says of itself."""
    path = folder / "prediction.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **values}), "utf-8")


def test_the_same_files_give_the_identical_result(run, result: Path, tmp_path: Path):
    status, out, err = run("rerun", result / "prediction.json", "-o", tmp_path / "again")
    assert (status, err) == (0, "")
    assert out.splitlines()[1:] == [
        "identical",
        "mask: 0 of 720 voxels differ",
        "att2: largest difference 0",
        "att1: largest difference 0",
    ]
    for name in json.loads((result / "prediction.json").read_text("utf-8"))["files"].values():
        (old,), (new,) = io.read(result / name), io.read(tmp_path / "again" / name)
        np.testing.assert_array_equal(np.asarray(old.data), np.asarray(new.data))
    status, out, _err = run("rerun", tmp_path / "again")  # which says of itself as much
    assert (status, out.splitlines()[0]) == (0, "identical")


def test_another_folder_makes_no_difference(run, result: Path, monkeypatch, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run("rerun", result)[0] == 0


def test_a_change_is_told_with_its_size(run, result: Path):
    mask_file = result / "mask.nii.gz"
    mask = nib.load(mask_file)
    values = np.asarray(mask.dataobj).copy()
    values[1, 2, 3] += 1
    nib.save(nib.Nifti1Image(values, mask.affine), mask_file)
    gate_file = result / "gate-att1.nii.gz"
    gate = nib.load(gate_file)
    coefficients = np.asarray(gate.dataobj).copy()
    coefficients[0, 0, 0] += 0.25
    nib.save(nib.Nifti1Image(coefficients, gate.affine), gate_file)
    status, out, _err = run("rerun", result)
    assert status == 1
    assert out.splitlines() == [
        "not identical",
        "mask: 1 of 720 voxels differ",
        "att2: largest difference 0",
        "att1: largest difference 0.25",
    ]


def test_what_was_not_as_it_was_is_named(run, result: Path):
    said = json.loads((result / "prediction.json").read_text("utf-8"))
    change(result, versions={**said["versions"], "numpy": "1.0"})
    status, out, _err = run("rerun", result)
    assert status == 0
    assert f"note: numpy: 1.0 then, {np.__version__} now" in out


def test_a_volume_of_other_content_is_refused(run, result: Path, head: Path):
    image = nib.load(head)
    data = np.asarray(image.dataobj).copy()
    data[0, 0, 0] += 1
    nib.save(nib.Nifti1Image(data, image.affine), head)
    status, out, err = run("rerun", result)
    assert (status, out) == (2, "")
    assert "has other content than when the result was made" in err
    head.unlink()
    status, _out, err = run("rerun", result)
    assert status == 2
    assert "is not there any more" in err


def test_another_model_is_refused_and_one_that_moved_is_found(
    run, result: Path, checkpoint: str, tmp_path: Path
):
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(Path(checkpoint).read_bytes())
    change(result, source=str(tmp_path / "gone.safetensors"))
    status, _out, err = run("rerun", result)
    assert status == 2
    assert "--model FILE says where it is now" in err
    assert run("rerun", result, "--model", moved)[0] == 0
    status, _out, err = run("rerun", result, "--model", "brain-t1")
    assert status == 2
    assert "another model" in err or "no option" in err


def test_a_device_that_is_not_here_is_refused_and_another_can_be_named(run, result: Path):
    change(result, device="cuda:7", device_label="A card")
    status, _out, err = run("rerun", result)
    assert status == 2
    assert "made on A card (cuda:7)" in err
    assert "--device cpu" in err
    status, out, _err = run("rerun", result, "--device", "cpu")
    assert status == 0
    assert "note: device: A card then" in out


def test_results_are_never_replaced(run, result: Path):
    status, _out, err = run("rerun", result, "-o", result)
    assert status == 2
    assert "has results already" in err


# --- results that scripts saved -----------------------------------------------------------------


@pytest.fixture(scope="module")
def model(checkpoint: str) -> Model:
    return load_model(checkpoint)


def test_a_region_of_a_time_point_run_in_tiles_and_mirrored(model: Model, tmp_path: Path):
    data = np.random.default_rng(2).integers(0, 999, (3, 10, 12, 14)).astype(np.uint16)
    metadata = {"axes": "TZYX", "finterval": 30.0, "spacing": 2.0, "unit": "um"}
    tifffile.imwrite(tmp_path / "a.tif", data, imagej=True, metadata=metadata)
    volume = io.read(tmp_path / "a.tif")[2].crop(((1, 9), (2, 12), (0, 14)))
    volume = volume.replace(spacing=(3.0, 1.0, 1.0))  # a correction that the file knows nothing of
    settings = {
        "tile": (8, 8, 8),
        "flips": "x",
        "gates": {"att1": 0.5},
        "normalize": (100.0, 900.0),
        "gate_dtype": "uint8",
        "outputs": ("mask", "probabilities"),
        "threshold": 0.3,
        "keep_largest": True,
    }
    prediction = predict(model, volume, **settings)
    folder = prediction.save(tmp_path / "result")
    found = finished(rerun_steps(folder))
    assert found.identical
    assert found.changed == (
        "the result does not say the content of its file, which may have changed",
    )
    (new,) = found.predictions
    assert new.volume.spacing == (3.0, 1.0, 1.0)
    np.testing.assert_array_equal(new.probabilities, prediction.probabilities)
    plain = predict(model, volume)
    assert (np.asarray(plain.mask) != np.asarray(new.mask)).any(), "the settings change nothing"


def test_a_time_series_is_run_point_by_point(model: Model, tmp_path: Path):
    data = np.random.default_rng(3).integers(0, 999, (2, 6, 8, 10)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", data, imagej=True, metadata={"axes": "TZYX"})
    predictions = [predict(model, volume) for volume in io.read(tmp_path / "a.tif")]
    folder = io.save(predictions, tmp_path / "result")
    found = finished(rerun_steps(folder))
    assert found.identical
    assert found.total == data.size


def test_what_came_from_no_file_cannot_be_run_again(model: Model, tmp_path: Path):
    prediction = predict(model, np.random.default_rng(4).normal(size=(6, 8, 10)))
    folder = prediction.save(tmp_path / "array")
    with pytest.raises(InputError, match="it was run on an array"):
        finished(rerun_steps(folder))


def test_gates_that_were_forced_to_arrays_cannot_be_run_again(model: Model, tmp_path: Path):
    np.save(tmp_path / "a.npy", np.random.default_rng(5).normal(size=(6, 8, 10)))
    (volume,) = io.read(tmp_path / "a.npy")
    computed = predict(model, volume).gate("att1").coefficients
    folder = predict(model, volume, gates={"att1": computed}).save(tmp_path / "forced")
    with pytest.raises(InputError, match="att1 was forced to an array"):
        finished(rerun_steps(folder))


def test_a_network_that_came_from_no_file_is_asked_for(model: Model, tmp_path: Path):
    np.save(tmp_path / "a.npy", np.random.default_rng(6).normal(size=(6, 8, 10)))
    nameless = replace(model, source="")
    folder = predict(nameless, io.read(tmp_path / "a.npy")[0]).save(tmp_path / "result")
    with pytest.raises(InputError, match="does not say where its model 'tiny' was loaded from"):
        finished(rerun_steps(folder))
    assert finished(rerun_steps(folder, model=model.source)).identical


def test_what_was_stated_of_a_checkpoint_comes_back(checkpoint: str, tmp_path: Path):
    classes = (
        ClassInfo("background", "#000000"),
        ClassInfo("a", "#ff0000"),
        ClassInfo("b", "#0f0"),
    )
    stated = {
        "activation": "sigmoid",
        "voxel_size": (2.0, 1.0, 1.0),
        "normalization": Normalization("window", -100.0, 240.0),
        "classes": classes,
    }
    model = load_model(checkpoint, **stated)
    assert model.source == checkpoint
    assert model.stated == stated
    np.save(tmp_path / "a.npy", np.random.default_rng(7).normal(size=(6, 8, 10)))
    folder = predict(model, io.read(tmp_path / "a.npy")[0]).save(tmp_path / "result")
    (saved,) = io.open_result(folder)
    assert load_keywords(saved.provenance) == stated
    assert load_model("brain-t1").source == "brain-t1"
