"""Results in a zarr group: as in memory, whatever happens on the way."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from itertools import permutations, product
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import LocalStore

import napari_attention_unet as nau
from napari_attention_unet import targets
from napari_attention_unet.frame import frame_for
from napari_attention_unet.models import ModelCard, save_checkpoint
from napari_attention_unet.models.attention_unet_3d import AttentionUNet3D
from napari_attention_unet.store import KEY, Store
from napari_attention_unet.targets import ArrayTarget, Kind, chunks_for

ORIENTATIONS = [
    "".join(word) for order in permutations(("IS", "PA", "LR")) for word in product(*order)
]
SHAPE = (230, 14, 18)
#: A run that goes on may cut its blocks otherwise, and each process tries which kernels are the
#: fastest: what they give may differ in the last bit.
ROUNDING = 1e-6
OPTIONS = {
    "device": "cpu",
    "precision": "float32",
    "plan": "stream",
    "outputs": ("probabilities", "logits"),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    arguments = {"in_channels": 1, "out_channels": 3, "widths": [4, 6]}
    with torch.random.fork_rng():
        torch.manual_seed(2)
        network = AttentionUNet3D(**arguments)
    card = ModelCard("small", "AttentionUNet3D", arguments, orientation="IPL")
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    return save_checkpoint(path, network, card)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> nau.Model:
    return nau.load_model(checkpoint)


@pytest.fixture(scope="module")
def voxels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 4000, SHAPE).astype(np.uint16)


def volume_of(array: Any, orientation: str = "SPL") -> nau.Volume:
    """By default its first axis has to be turned round."""
    return nau.Volume.from_array(array, orientation=orientation)


@pytest.fixture(scope="module")
def truth(model: nau.Model, voxels: np.ndarray) -> nau.Prediction:
    return nau.predict(model, volume_of(voxels), **OPTIONS)


def assert_equal(group: Any, truth: nau.Prediction, atol: float = 0.0) -> None:
    """All of a group is bit for bit a prediction in memory, and says that it is complete."""

    def same(name: str, expected: Any) -> None:
        np.testing.assert_allclose(group[name][:], expected, rtol=0, atol=atol)

    np.testing.assert_array_equal(group["mask"][:], truth.mask)
    same("probabilities", truth.probabilities)
    same("logits", truth.logits)
    for gate in truth.gates:
        same(f"gates/{gate.name}", gate.coefficients)
        assert tuple(group[f"gates/{gate.name}"].attrs["scale"]) == gate.scale
        assert tuple(group[f"gates/{gate.name}"].attrs["translate"]) == gate.translate
    about = group.attrs[KEY]
    assert about["complete"] is True
    assert about["model"] == "small"
    assert all(group[name].attrs["complete"] for name in ("mask", "logits", "gates/att1"))


# --- targets ------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    orientation=st.sampled_from(ORIENTATIONS),
    shape=st.tuples(*[st.integers(1, 40)] * 3),
    channels=st.sampled_from([None, 1, 3]),
    data=st.data(),
)
def test_targets_hold_what_was_written(
    orientation: str, shape: Any, channels: int | None, data: Any
) -> None:
    """Planes in ranges of any size come to lie right, in memory as in a zarr group, once each."""
    card = ModelCard("m", "none", orientation="IPL")
    frame = frame_for(volume_of(np.zeros(shape), orientation), card, (1, 1, 1))
    kind = Kind("mask", frame.turned, np.dtype(np.uint8), channels)
    values = np.random.default_rng(0).integers(1, 255, (channels or 1, *kind.turned))
    group = zarr.group()
    stored = Store(group, [kind], frame, {}).targets["mask"]
    memory = ArrayTarget(kind, frame)
    start = 0
    while start < kind.turned[0]:
        stop = min(kind.turned[0], start + data.draw(st.integers(1, 30)))
        for target in (stored, memory):
            target.write(start, values[:, start:stop])
            assert target.done <= stop
        start = stop
    expected = frame.turn_back(values)
    expected = expected[0] if channels is None else expected
    np.testing.assert_array_equal(memory.array, expected)
    np.testing.assert_array_equal(group["mask"][:], expected)
    np.testing.assert_array_equal(np.asarray(stored.array), expected)
    assert stored.done == memory.done == kind.turned[0]


def test_chunks_are_written_once(voxels: np.ndarray, model: nau.Model, tmp_path: Path) -> None:
    written: list[str] = []

    class Watched(LocalStore):
        async def set(self, key: str, value: Any) -> None:
            written.append(key)
            await super().set(key, value)

    group = zarr.open_group(Watched(tmp_path / "r.zarr"), mode="w")
    nau.predict(model, volume_of(voxels), **OPTIONS, out=group)
    chunks = [key for key in written if "/c/" in key]
    assert len(chunks) == len(set(chunks)) > 20


def test_chunks_follow_the_networks_first_axis() -> None:
    frame = frame_for(
        volume_of(np.zeros((300, 200, 100)), "PLI"),
        ModelCard("m", "none", orientation="IPL"),
        (1, 1, 1),
    )
    assert frame.turned == (100, 300, 200)
    kind = Kind("mask", frame.turned, np.dtype(np.uint8), 2)
    assert chunks_for(kind, frame) == (1, 128, 128, 16)


# --- runs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["numpy", "dask", "zarr"])
def test_in_and_out_of_core_is_as_in_memory(
    source: str, model: nau.Model, voxels: np.ndarray, truth: nau.Prediction, tmp_path: Path
) -> None:
    data: Any = {
        "numpy": lambda: voxels,
        "dask": lambda: da.from_array(voxels, chunks=(31, 14, 7)),
        "zarr": lambda: zarr.create_array(str(tmp_path / "v"), data=voxels, chunks=(32, 8, 8)),
    }[source]()
    group = zarr.open_group(tmp_path / "r.zarr", mode="w")
    prediction = nau.predict(model, volume_of(data), **OPTIONS, out=group)
    assert_equal(zarr.open_group(tmp_path / "r.zarr", mode="r"), truth)
    assert isinstance(prediction.mask, da.Array)
    np.testing.assert_array_equal(np.asarray(prediction.mask), truth.mask)
    np.testing.assert_array_equal(
        np.asarray(prediction.gate("att2").coefficients), truth.gate("att2").coefficients
    )


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
@pytest.mark.parametrize("stored", [False, True])
def test_gate_maps_in_fewer_bytes(
    dtype: str, stored: bool, model: nau.Model, voxels: np.ndarray, truth: nau.Prediction
) -> None:
    group = zarr.group() if stored else None
    prediction = nau.predict(model, volume_of(voxels), **OPTIONS, out=group, gate_dtype=dtype)
    for gate, exact in zip(prediction.gates, truth.gates, strict=True):
        values = np.asarray(gate.coefficients)
        assert np.abs(values - exact.coefficients).max() <= (
            0.5001 / 255 if dtype == "uint8" else 5e-4
        )
        if group is not None:
            kept = group[f"gates/{gate.name}"]
            assert kept.dtype == dtype
            if dtype == "uint8":
                step = kept.attrs["coefficient_of_one_step"]
                np.testing.assert_allclose(kept[:] * step, values, atol=1e-7)


def test_keep_largest_in_a_group(model: nau.Model, voxels: np.ndarray) -> None:
    group = zarr.group()
    prediction = nau.predict(model, volume_of(voxels), **OPTIONS, out=group, keep_largest=True)
    expected = nau.predict(model, volume_of(voxels), **OPTIONS, keep_largest=True)
    np.testing.assert_array_equal(group["mask"][:], expected.mask)
    np.testing.assert_array_equal(np.asarray(prediction.mask), expected.mask)


def stopped(model: nau.Model, volume: Any, group: Any, planes: int, **options: Any) -> None:
    """A run that is closed once so many planes of the mask are written."""
    steps = nau.predict_steps(model, volume, **{**OPTIONS, **options}, out=group)
    for _ in steps:
        about = group.attrs.get(KEY, {})
        if about.get("complete") is False and about["planes"]["mask"] >= planes:
            break
    steps.close()


def regions(model: nau.Model, volume: Any, group: Any, **options: Any) -> tuple[int, Any]:
    """Planes of the mask that a run into a group computes, and what it gives."""
    planes, prediction = 0, None
    for step in nau.predict_steps(model, volume, **{**OPTIONS, **options}, out=group):
        prediction = step.prediction
        if step.region is not None and step.region.mask is not None:
            planes += step.region.mask[0].stop - step.region.mask[0].start
    return planes, prediction


def test_a_run_that_was_stopped_goes_on(
    model: nau.Model, voxels: np.ndarray, truth: nau.Prediction, tmp_path: Path
) -> None:
    path = tmp_path / "r.zarr"
    stopped(model, volume_of(voxels), zarr.open_group(path, mode="w"), 120)
    group = zarr.open_group(path, mode="a")
    about = group.attrs[KEY]
    assert about["complete"] is False
    assert "model" not in about, "a summary of what is not there"
    assert not group["mask"].attrs["complete"]
    done = about["planes"]["mask"]
    assert 120 <= done < SHAPE[0]
    planes, prediction = regions(model, volume_of(voxels), group)
    assert planes == SHAPE[0] - done
    assert_equal(group, truth, ROUNDING)
    assert any("it goes on" in note for note in prediction.provenance["notes"])


def test_a_complete_group_is_not_computed_again(
    model: nau.Model, voxels: np.ndarray, truth: nau.Prediction
) -> None:
    group = zarr.group()
    regions(model, volume_of(voxels), group)
    planes, _ = regions(model, volume_of(voxels), group)
    assert planes == 0
    assert_equal(group, truth)


@pytest.mark.parametrize("change", ["voxels", "option", "orientation", "gates"])
def test_what_differs_begins_anew(
    change: str, model: nau.Model, voxels: np.ndarray, truth: nau.Prediction
) -> None:
    """Nothing of another run may look new."""
    group = zarr.group()
    other: dict[str, Any] = {}
    volume = volume_of(voxels)
    if change == "voxels":
        array = voxels.copy()
        array[-1, -1, -1] += 1
        volume = volume_of(array)
    elif change == "orientation":
        volume = volume_of(voxels, "SPR")
    elif change == "gates":
        other["gates"] = {"att1": np.full(SHAPE, 0.25)}
    else:
        other["normalize"] = "minmax"
    stopped(model, volume, group, 60, **other)
    planes, prediction = regions(model, volume_of(voxels), group)
    assert planes == SHAPE[0]
    assert_equal(group, truth)
    assert not any("it goes on" in note for note in prediction.provenance["notes"])


def test_results_of_another_run_go_at_once(model: nau.Model, voxels: np.ndarray) -> None:
    group = zarr.group()
    regions(model, volume_of(voxels), group)
    group.create_array("mine", data=np.arange(3))
    stopped(model, volume_of(voxels), group, 16, outputs=("mask",))
    assert group.attrs[KEY]["complete"] is False
    assert set(group.array_keys()) == {"mask", "mine"}


KILLED = """
    import sys, zarr
    import napari_attention_unet as nau
    checkpoint, source, target = sys.argv[1:]
    volume = nau.Volume.from_array(zarr.open_array(source), orientation="SPL")
    options = dict(device="cpu", precision="float32", plan="stream")
    out = zarr.open_group(target, mode="a")
    for step in nau.predict_steps(
        nau.load_model(checkpoint), volume, outputs=("probabilities", "logits"), out=out, **options
    ):
        planes = out.attrs.get("attention_unet", {}).get("planes", {}).get("mask", 0)
        if planes >= 96:
            print(planes, flush=True)
"""


def test_a_killed_process_leaves_what_the_next_one_finishes(
    checkpoint: Path, voxels: np.ndarray, truth: nau.Prediction, model: nau.Model, tmp_path: Path
) -> None:
    source, target = tmp_path / "v.zarr", tmp_path / "r.zarr"
    zarr.create_array(str(source), data=voxels, chunks=(32, 14, 18))
    arguments = [str(checkpoint), str(source), str(target)]
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(KILLED), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
    ) as process:
        assert process.stdout is not None
        assert int(process.stdout.readline()) >= 96  # in the middle
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    group = zarr.open_group(target, mode="a")
    about = group.attrs[KEY]
    assert about["complete"] is False
    done = about["planes"]["mask"]
    assert 96 <= done < SHAPE[0]
    # what counts as written is right already
    np.testing.assert_array_equal(group["mask"][SHAPE[0] - done :], truth.mask[SHAPE[0] - done :])
    planes, _ = regions(model, volume_of(zarr.open_array(source)), group)
    assert planes == SHAPE[0] - done
    assert_equal(group, truth, ROUNDING)


# --- faults -------------------------------------------------------------------------------------


def test_a_chunk_that_fails_in_the_middle(
    model: nau.Model, voxels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named; what was computed stays, marked; and the run goes on once it is there again."""
    from napari_attention_unet import reader

    monkeypatch.setattr(reader, "KEPT", 0)
    monkeypatch.setattr(reader, "_SMALLEST_ROW", 1)
    voxels = np.tile(voxels, (1, 3, 3))  # large enough that its end is not read at once
    gone = [False]

    def chunk(block: np.ndarray, block_info: Any = None) -> np.ndarray:
        # the volume is turned round, so the first chunk is read last
        if gone[0] and block_info[0]["array-location"][0][0] == 0:
            raise OSError("the share is gone")
        return block

    lazy = da.from_array(voxels, chunks=(16, -1, -1))
    data = lazy.map_blocks(chunk, dtype=voxels.dtype, meta=np.empty(0, voxels.dtype))
    group = zarr.group()

    def run_until_it_fails() -> None:
        for step in nau.predict_steps(model, volume_of(data), **OPTIONS, out=group):
            gone[0] |= step.message.startswith("Running")

    with pytest.raises(nau.InputError, match=r"could not be read: OSError: the share is gone"):
        run_until_it_fails()
    assert group.attrs[KEY]["complete"] is False
    done = group.attrs[KEY]["planes"]["mask"]
    assert 0 < done < len(voxels)
    gone[0] = False
    planes, _ = regions(model, volume_of(data), group)
    assert planes == len(voxels) - done
    assert_equal(group, nau.predict(model, volume_of(voxels), **OPTIONS), ROUNDING)


def test_a_full_disk(
    model: nau.Model, voxels: np.ndarray, truth: nau.Prediction, tmp_path: Path
) -> None:
    room = [40]

    class Full(LocalStore):
        async def set(self, key: str, value: Any) -> None:
            if "/c/" in key:
                room[0] -= 1
                if room[0] < 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            await super().set(key, value)

    group = zarr.open_group(Full(tmp_path / "r.zarr"), mode="w")
    began = time.monotonic()
    with pytest.raises(nau.errors.OutputError, match=r"No space left on device.* run again into"):
        nau.predict(model, volume_of(voxels), **OPTIONS, out=group)
    assert time.monotonic() - began < 60
    about = zarr.open_group(tmp_path / "r.zarr", mode="r").attrs[KEY]
    assert about["complete"] is False
    assert about["planes"]["logits"] < SHAPE[0]
    room[0] = 10_000
    planes, _ = regions(model, volume_of(voxels), group)
    assert planes <= SHAPE[0] - about["planes"]["mask"]
    assert_equal(zarr.open_group(tmp_path / "r.zarr", mode="r"), truth, ROUNDING)


def test_a_group_that_cannot_be_written_is_refused_before_the_run(
    model: nau.Model, voxels: np.ndarray, tmp_path: Path
) -> None:
    class Broken(LocalStore):
        async def set(self, key: str, value: Any) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    zarr.open_group(tmp_path / "r.zarr", mode="w")
    group = zarr.open_group(Broken(tmp_path / "r.zarr"), mode="r+")
    with pytest.raises(nau.errors.OutputError, match="Read-only file system"):
        nau.predict(model, volume_of(voxels), **OPTIONS, out=group)


def test_rows_are_small_here(voxels: np.ndarray) -> None:
    """What the tests above rely on: several rows of chunks."""
    assert voxels.shape[0] > 10 * targets.CHUNK[0]
