from __future__ import annotations

import gc
import json
import weakref
from dataclasses import replace
from itertools import permutations, product
from typing import Any

import dask.array as da
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import napari_attention_unet as nau
from napari_attention_unet.engine import whole
from napari_attention_unet.engine.whole import Execution
from napari_attention_unet.models import save_checkpoint
from napari_attention_unet.models.attention_unet_3d import AttentionUNet3D
from napari_attention_unet.models.card import ClassInfo, Normalization, default_classes

few = settings(max_examples=10, deadline=None)
ORIENTATIONS = [
    "".join(word) for order in permutations(("IS", "PA", "LR")) for word in product(*order)
]
SHAPE = (19, 23, 17)


class Beacon(nn.Module):
    """Says where brightness is: its gate and its second class nearly are the input."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv3d(1, 2, 1, bias=False)
        self.out = nn.Conv3d(2, 2, 1)
        with torch.no_grad():
            self.features.weight[:, 0, 0, 0, 0] = torch.tensor([1.0, 0.0])
            self.out.weight[:, :, 0, 0, 0] = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
            self.out.bias[:] = torch.tensor([0.5, 0.0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        alpha = torch.sigmoid(0.1 * F.avg_pool3d(x, 2))
        return self.out(self.features(x) * F.interpolate(alpha, scale_factor=2, mode="nearest"))


class Ungated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def trained(module: nn.Module) -> nn.Module:
    """Random weights and statistics that give varied logits."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm3d):
                part.running_mean.normal_(0, 0.3, generator=generator)
                part.running_var.uniform_(0.5, 1.5, generator=generator)
            elif isinstance(part, nn.Conv3d | nn.ConvTranspose3d):
                part.weight.normal_(0, (2 / part.weight[0].numel()) ** 0.5, generator=generator)
        last = module.final.final_block[-1].weight
        last -= last.mean(0)  # or one class would win everywhere, for its inputs are positive
        last -= last.mean(1, keepdim=True)
    return module.eval()


MODULE = trained(AttentionUNet3D(1, 3, (4, 6)))


@pytest.fixture(scope="session")
def model() -> nau.Model:
    return nau.load_model(MODULE, name="blog")


@pytest.fixture(scope="session")
def beacon() -> nau.Model:
    return nau.load_model(
        Beacon(),
        voxel_size=(1.5, 1.5, 1.5),
        units="mm",
        orientation="IPL",
        normalization=Normalization("none"),
    )


@pytest.fixture(scope="session")
def ungated() -> nau.Model:
    return nau.load_model(Ungated())


def noise(shape: tuple[int, ...] = SHAPE, dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 30, shape).astype(dtype)


def run(model: nau.Model, volume: Any, **options: Any) -> nau.Prediction:
    return nau.predict(model, volume, **{"device": "cpu", "precision": "float32"} | options)


def with_card(model: nau.Model, **fields: Any) -> nau.Model:
    return replace(model, card=replace(model.card, **fields))


# --- the contract -------------------------------------------------------------------------------


def test_steps_lead_evenly_to_a_prediction(model: nau.Model) -> None:
    steps = list(nau.predict_steps(model, noise(), device="cpu"))
    done = [step.done for step in steps]
    assert done == sorted(done)
    assert len({step.total for step in steps if step.done}) == 1
    assert all(step.done <= step.total for step in steps)
    assert steps[-1].done == steps[-1].total
    assert all(step.message for step in steps)
    assert all(step.prediction is None for step in steps[:-1])
    assert isinstance(steps[-1].prediction, nau.Prediction)
    messages = " ".join(step.message for step in steps)
    for part in ("Preparing", "Reading", "Running whole", "Running the network: att1", "labelling"):
        assert part in messages


def test_nothing_is_held_between_steps(model: nau.Model) -> None:
    steps = nau.predict_steps(model, noise(), device="cpu")
    threads = torch.get_num_threads()
    for _ in steps:
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()
        assert torch.get_num_threads() == threads


def test_prediction_of_an_array(model: nau.Model) -> None:
    prediction = run(model, noise(), outputs=("mask", "probabilities", "logits"))
    assert prediction.mask.shape == SHAPE
    assert prediction.mask.dtype == np.uint8
    assert set(np.unique(prediction.mask)) == {0, 1, 2}
    assert prediction.probabilities.shape == prediction.logits.shape == (3, *SHAPE)
    assert prediction.logits.dtype == np.float32
    np.testing.assert_allclose(prediction.probabilities.sum(0), 1, rtol=1e-5)
    np.testing.assert_array_equal(prediction.mask, prediction.logits.argmax(0))
    np.testing.assert_array_equal(prediction.mask, prediction.probabilities.argmax(0))
    assert [g.name for g in prediction.gates] == ["att2", "att1"]
    assert [g.label for g in prediction.gates] == ["1/2", "1/1"]
    att2, att1 = prediction.gates
    assert att1.coefficients.shape == SHAPE
    assert (att1.scale, att1.translate) == ((1.0,) * 3, (0.0,) * 3)
    # samples at 0.5, 2.5, ... as far as they lie in the volume, whose last voxel ends at n - 0.5
    assert att2.coefficients.shape == (10, 12, 9)
    assert (att2.scale, att2.translate) == ((2.0,) * 3, (0.5,) * 3)
    assert all(0 <= g.coefficients.min() <= g.coefficients.max() <= 1 for g in prediction.gates)
    assert prediction.classes == default_classes(3)
    assert prediction.volume.shape == SHAPE
    assert not prediction.volume.data.any()
    assert run(model, noise()).probabilities is None


@few
@given(shape=st.tuples(*[st.integers(4, 21)] * 3), seed=st.integers(0, 9))
def test_equals_the_modules_own_forward(
    model: nau.Model, shape: tuple[int, int, int], seed: int
) -> None:
    array = noise(shape, seed=seed)
    seen = {}
    hooks = [
        getattr(MODULE, name).psi.register_forward_hook(
            lambda m, i, o, name=name: seen.__setitem__(name, o[0, 0].numpy())
        )
        for name in ("att1", "att2")
    ]
    padded = [-n % 4 for n in shape]
    normal = (array.astype(np.float64) - array.mean(dtype=np.float64)) / array.std(dtype=np.float64)
    x = np.pad(normal, [(0, n) for n in padded]).astype(np.float32)
    with torch.no_grad():
        truth = MODULE(torch.from_numpy(x)[None, None])[0].numpy()
    for hook in hooks:
        hook.remove()
    prediction = run(model, array, outputs=("logits",))
    cropped = truth[:, : shape[0], : shape[1], : shape[2]]
    np.testing.assert_allclose(prediction.logits, cropped, rtol=1e-4, atol=1e-4)
    for gate in prediction.gates:
        z, y, x = gate.coefficients.shape
        np.testing.assert_allclose(gate.coefficients, seen[gate.name][:z, :y, :x], atol=1e-5)


def test_provenance_is_complete_and_plain(model: nau.Model) -> None:
    prediction = run(
        model, noise(), spacing=(2, 1, 1), gates={"att1": 1.0}, threshold=np.float64(0.4)
    )
    about = json.loads(json.dumps(prediction.provenance, allow_nan=False))
    assert about["model"] == "blog"
    assert len(about["sha256"]) == 64
    assert about["architecture"] == "AttentionUNet3D"
    assert (about["device"], about["precision"], about["plan"]) == ("cpu", "float32", "whole")
    assert "may be used" in about["plan_reason"]
    assert about["voxel_size"] == [2.0, 1.0, 1.0]
    assert about["options"]["gates"] == {"att1": 1.0}
    assert about["options"]["threshold"] == 0.4
    assert about["versions"]["torch"] == torch.__version__
    assert [g["name"] for g in about["gates"]] == ["att2", "att1"]
    assert about["gates"][0]["scale"] == [2.0, 2.0, 2.0]
    assert about["gates"][1]["forced"] is True
    assert about["seconds"]["total"] >= about["seconds"]["network"] > 0


def test_reduced_precision_is_said_and_near(model: nau.Model) -> None:
    exact = run(model, noise())
    reduced = run(model, noise(), precision="bfloat16")
    assert reduced.provenance["precision"] == "bfloat16"
    assert (exact.mask == reduced.mask).mean() > 0.98
    for a, b in zip(exact.gates, reduced.gates, strict=True):
        assert b.coefficients.dtype == np.float32
        assert np.abs(a.coefficients - b.coefficients).max() < 0.03


# --- where things lie ---------------------------------------------------------------------------


def blob(shape: tuple[int, int, int], centre: list[float], width: list[float]) -> np.ndarray:
    lines = [
        np.exp(-0.5 * ((np.arange(n) - c) / w) ** 2)
        for n, c, w in zip(shape, centre, width, strict=True)
    ]
    return np.einsum("z,y,x->zyx", *lines).astype(np.float32)


def centroid(values: np.ndarray, scale: Any, translate: Any) -> list[float]:
    found = []
    for axis in range(3):
        profile = values.sum(tuple(k for k in range(3) if k != axis), dtype=np.float64)
        positions = translate[axis] + scale[axis] * np.arange(len(profile))
        found.append(float((profile * positions).sum() / profile.sum()))
    return found


@settings(max_examples=25, deadline=None)
@given(
    orientation=st.sampled_from(ORIENTATIONS),
    spacing=st.tuples(*[st.sampled_from([0.7, 1.0, 1.5, 2.4])] * 3),
    where=st.tuples(*[st.floats(0.4, 0.6)] * 3),
    extra=st.tuples(*[st.integers(0, 5)] * 3),
)
def test_a_bright_point_is_found_where_it_is(
    beacon: nau.Model, orientation: str, spacing: Any, where: Any, extra: Any
) -> None:
    """Through turning, flipping, resampling and padding, to a small part of a voxel."""
    shape = tuple(round(42 / s) + e for s, e in zip(spacing, extra, strict=True))
    centre = [w * (n - 1) for w, n in zip(where, shape, strict=True)]
    image = blob(shape, centre, [3.0 / s for s in spacing])
    volume = nau.Volume(image[None], spacing, units="mm", orientation=orientation)
    prediction = run(beacon, volume, outputs=("logits",))
    assert prediction.mask.shape == shape
    (gate,) = prediction.gates
    assert gate.coefficients.shape == tuple(
        sum(-0.5 - 1e-6 <= t + s * j <= n - 0.5 + 1e-6 for j in range(n))
        for n, s, t in zip(shape, gate.scale, gate.translate, strict=True)
    )
    assert gate.scale == pytest.approx([2 * 1.5 / s for s in spacing])
    found = centroid(gate.coefficients - 0.5, gate.scale, gate.translate)
    assert found == pytest.approx(centre, abs=0.12)
    assert centroid(prediction.logits[1], (1, 1, 1), (0, 0, 0)) == pytest.approx(centre, abs=0.12)
    assert centroid(prediction.mask, (1, 1, 1), (0, 0, 0)) == pytest.approx(centre, abs=0.6)
    assert prediction.mask[tuple(round(c) for c in centre)] == 1


def test_stride_is_told_in_the_callers_axes() -> None:
    class Flat(Beacon):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            alpha = torch.sigmoid(F.avg_pool3d(x, (1, 2, 4)))
            alpha = F.interpolate(alpha, scale_factor=(1, 2, 4), mode="nearest")
            return self.out(self.features(x) * alpha)

    flat = nau.load_model(Flat(), orientation="IPL", normalization=Normalization("none"))
    volume = nau.Volume(noise((1, 9, 10, 11)), orientation="LPI")
    (gate,) = run(flat, volume).gates
    assert gate.stride == gate.scale == (4.0, 2.0, 1.0)
    assert gate.translate == (1.5, 0.5, 0.0)
    assert gate.label == "1/4·1/2·1/1"


def test_voxel_size_comes_from_the_option_too(beacon: nau.Model) -> None:
    by_volume = run(beacon, nau.Volume(noise()[None], (3.0, 1.5, 0.75), units="mm"))
    by_option = run(beacon, noise(), spacing=(3.0, 1.5, 0.75))
    np.testing.assert_array_equal(by_volume.mask, by_option.mask)
    assert by_option.gates[0].scale == (1.0, 2.0, 4.0)
    assert by_option.provenance["network_grid"]["voxel_size"] == [1.5, 1.5, 1.5]


# --- gates that are forced ----------------------------------------------------------------------


def test_maps_forced_back_change_nothing(model: nau.Model) -> None:
    free = run(model, noise(), outputs=("logits",))
    maps = {gate.name: gate.coefficients for gate in free.gates}
    forced = run(model, noise(), outputs=("logits",), gates=maps)
    np.testing.assert_allclose(forced.logits, free.logits, atol=1e-6)
    assert all(gate.forced for gate in forced.gates)
    assert not any(gate.forced for gate in free.gates)


def test_maps_are_forced_in_the_callers_axes(beacon: nau.Model) -> None:
    """The mask must follow a map that is open in one corner of the caller's array."""
    volume = nau.Volume(np.ones((1, 20, 22, 24), np.float32), (1.5,) * 3, "mm", "mm", "RAS")
    volume = volume.replace(translate=(0.0, 0.0, 0.0))
    open_map = np.zeros((10, 11, 12), np.float32)
    open_map[:3, 7:, :4] = 1
    prediction = run(beacon, volume, gates={beacon.gates[0].name: open_map})
    np.testing.assert_array_equal(prediction.gates[0].coefficients, open_map)
    expected = np.zeros((20, 22, 24), np.uint8)
    expected[:6, 14:, :8] = 1
    np.testing.assert_array_equal(prediction.mask, expected)


def test_holes_in_a_forced_map_are_computed(model: nau.Model) -> None:
    free = run(model, noise())
    half = np.full(SHAPE, np.nan)
    half[:5] = 0.25
    forced = run(model, noise(), gates={"att1": half}).gate("att1")
    assert (forced.coefficients[:5] == 0.25).all()
    np.testing.assert_allclose(
        forced.coefficients[5:], free.gate("att1").coefficients[5:], atol=1e-6
    )


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        ({"att9": 1.0}, r"no gate 'att9' to force; the gates are: 'att2', 'att1'"),
        ({"att1": np.ones((3, 3, 3))}, r"shape \(3, 3, 3\); this gate's map .* \(19, 23, 17\)"),
        ({"att1": float("nan")}, r"cannot be forced to nan"),
    ],
)
def test_gates_that_cannot_be_forced(model: nau.Model, gates: Any, message: str) -> None:
    with pytest.raises(nau.InputError, match=message):
        nau.predict_steps(model, noise(), gates=gates)


# --- volumes of any make ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["u1", ">i2", "<u2", ">f4", "f8", "i8"])
def test_any_dtype(model: nau.Model, dtype: str) -> None:
    array = noise(dtype=dtype)
    truth = run(model, array.astype(np.float64), outputs=("logits",))
    prediction = run(model, array, outputs=("logits",))
    np.testing.assert_allclose(prediction.logits, truth.logits, atol=1e-5)


@pytest.mark.parametrize("kind", ["dask", "zarr", "zarr4", "tensor", "list"])
def test_any_array(model: nau.Model, kind: str, tmp_path: Any) -> None:
    array = noise((8, 12, 8))
    truth = run(model, array)
    volume: Any = {
        "dask": lambda: da.from_array(array, chunks=(3, 12, 4)),
        "zarr": lambda: zarr.create_array(str(tmp_path / "a"), data=array, chunks=(5, 12, 8)),
        "zarr4": lambda: zarr.create_array(str(tmp_path / "b"), data=array[None]),
        "tensor": lambda: torch.from_numpy(array),
        "list": lambda: array.tolist(),
    }[kind]()
    np.testing.assert_array_equal(run(model, volume).mask, truth.mask)


def test_several_channels_and_no_gates(ungated: nau.Model) -> None:
    assert ungated.gates == ()
    steps = list(nau.predict_steps(ungated, noise((2, 9, 9, 9)), device="cpu"))
    prediction = steps[-1].prediction
    assert prediction.gates == ()
    assert prediction.mask.max() <= 1
    assert prediction.provenance["notes"] == [
        "This network has no attention gates: there is a mask alone."
    ]


# --- labels -------------------------------------------------------------------------------------


def test_one_channel_is_compared_with_a_threshold(ungated: nau.Model) -> None:
    assert ungated.card.activation == "sigmoid"
    volume = noise((2, 9, 9, 9))
    for threshold in (None, 0.3, 0.9):
        prediction = run(ungated, volume, threshold=threshold, outputs=("probabilities", "logits"))
        assert prediction.probabilities.shape == (1, 9, 9, 9)
        np.testing.assert_allclose(
            prediction.probabilities, 1 / (1 + np.exp(-prediction.logits)), rtol=1e-5
        )
        expected = prediction.probabilities[0] >= (threshold or 0.5)
        np.testing.assert_array_equal(prediction.mask, expected)


def test_classes_that_do_not_compete(model: nau.Model) -> None:
    """Three channels without one for the background: the most probable of those that reach it."""
    four = with_card(model, activation="sigmoid", classes=default_classes(4))
    probabilities = run(four, noise(), outputs=("probabilities",)).probabilities
    best, index = probabilities.max(0), probabilities.argmax(0)
    middle = float(np.median(best))
    mask = run(four, noise(), threshold=middle).mask
    np.testing.assert_array_equal(mask, np.where(best >= np.float32(middle), index + 1, 0))
    assert len(np.unique(mask)) > 2
    three = with_card(model, activation="sigmoid")  # the first channel is the background's
    prediction = run(three, noise(), outputs=("probabilities",))
    best, index = prediction.probabilities[1:].max(0), prediction.probabilities[1:].argmax(0)
    np.testing.assert_array_equal(prediction.mask, np.where(best >= 0.5, index + 1, 0))


def test_threshold_where_classes_compete(model: nau.Model) -> None:
    prediction = run(model, noise(), threshold=0.45, outputs=("probabilities",))
    best, index = prediction.probabilities[1:].max(0), prediction.probabilities[1:].argmax(0)
    np.testing.assert_array_equal(prediction.mask, np.where(best >= 0.45, index + 1, 0))


def test_activation_none_takes_the_output_as_it_is(model: nau.Model) -> None:
    prediction = run(model, noise(), activation="none", outputs=("probabilities", "logits"))
    np.testing.assert_array_equal(prediction.probabilities, prediction.logits)


def test_keep_largest(beacon: nau.Model) -> None:
    image = blob((30, 30, 30), [9, 9, 9], [3, 3, 3]) + blob((30, 30, 30), [23, 23, 23], [2, 2, 2])
    both = run(beacon, image)
    kept = run(beacon, image, keep_largest=True)
    assert both.mask[9, 9, 9] == both.mask[23, 23, 23] == 1
    assert (kept.mask[9, 9, 9], kept.mask[23, 23, 23]) == (1, 0)
    np.testing.assert_array_equal(kept.mask[:16], both.mask[:16])


# --- memory and plans ---------------------------------------------------------------------------


def test_tiles_equal_the_whole(beacon: nau.Model) -> None:
    volume = nau.Volume(noise((1, 40, 24, 24)), (1.5,) * 3, units="mm", orientation="SAR")
    whole_run = run(beacon, volume, outputs=("logits",))
    tiled = run(beacon, volume, outputs=("logits",), plan="tiles")
    assert tiled.provenance["plan"] == "tiles"
    assert "exact margins" in tiled.provenance["plan_reason"]
    np.testing.assert_allclose(tiled.logits, whole_run.logits, rtol=1e-6)
    for a, b in zip(tiled.gates, whole_run.gates, strict=True):
        np.testing.assert_allclose(a.coefficients, b.coefficients, atol=1e-7)


def test_a_small_budget_leads_to_a_stream_or_says_what_is_needed(model: nau.Model) -> None:
    volume = noise((80, 40, 40))
    everything = run(model, volume, plan="whole")
    needed = everything.provenance["memory_gib"]
    streamed = run(model, volume, memory=needed * 0.7)
    assert streamed.provenance["plan"] == "stream"
    assert streamed.provenance["memory_gib"] <= needed * 0.7
    assert "the whole volume needs" in streamed.provenance["plan_reason"]
    np.testing.assert_array_equal(streamed.mask, everything.mask)
    with pytest.raises(nau.MemoryBudgetError, match="Even in the smallest tiles this run needs"):
        run(model, volume, memory=1e-6)


def test_closing_stops_and_frees_everything_at_once(
    model: nau.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    keep = Execution._keep

    def remember(self: Execution, op: Any, value: Any) -> None:
        made.append(weakref.ref(value))
        keep(self, op, value)

    monkeypatch.setattr(Execution, "_keep", remember)
    monkeypatch.setattr(Execution, "_planes", lambda self, op, work: 2)
    gc.collect()
    gc.disable()
    try:
        steps = nau.predict_steps(model, noise((32, 32, 32)), device="cpu")
        while len(made) < 10:
            next(steps)
        alive = [ref() for ref in made if ref() is not None]
        assert alive
        del alive
        steps.close()
        assert not any(ref() is not None for ref in made)
        with pytest.raises(StopIteration):
            next(steps)
    finally:
        gc.enable()


def test_running_out_of_memory_is_announced(
    model: nau.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = run(model, noise())
    compute, failed = Execution._compute, []

    def once(self: Execution, op: Any, start: int, stop: int) -> Any:
        if stop - start > 4 and len(failed) < 2:
            failed.append(op.name)
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to ...")
        return compute(self, op, start, stop)

    model.program(torch.device("cpu"), torch.float32).rates.clear()
    monkeypatch.setattr(whole, "_FIRST_GUESS", 1e15)
    monkeypatch.setattr(Execution, "_compute", once)
    steps = list(nau.predict_steps(model, noise(), device="cpu", precision="float32"))
    assert len(failed) == 2
    assert any("memory ran out, going on with" in step.message for step in steps)
    np.testing.assert_array_equal(steps[-1].prediction.mask, truth.mask)


def test_output_goes_into_a_zarr_group(model: nau.Model, tmp_path: Any) -> None:
    group = zarr.open_group(str(tmp_path / "result.zarr"), mode="w")
    prediction = run(model, noise(), outputs=("probabilities",), out=group)
    again = zarr.open_group(str(tmp_path / "result.zarr"), mode="r")
    np.testing.assert_array_equal(again["mask"][:], prediction.mask)
    np.testing.assert_array_equal(again["probabilities"][:], prediction.probabilities)
    assert "logits" not in again
    gate = again["gates/att2"]
    np.testing.assert_array_equal(gate[:], prediction.gate("att2").coefficients)
    assert tuple(gate.attrs["translate"]) == prediction.gate("att2").translate
    assert again.attrs["attention_unet"]["model"] == "blog"


# --- what cannot be run -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("volume", "options", "message"),
    [
        (np.zeros((20, 20)), {}, r"got 2 axes, shape \(20, 20\)"),
        (np.zeros((9, 20, 20, 3)), {}, r"looks like colours: convert to grey values"),
        (noise((2, 9, 9, 9)), {}, r"reads 1 channel\(s\); this volume has 2"),
        (noise((1, 20, 20)), {}, r"has 1 voxel\(s\) along z .* A single image or slice"),
        (noise((3, 3, 3)), {}, r"too small: 3×3×3 voxels .* coarsest level is 4×4×4"),
        (noise(), {"spacing": (1, 0, 1)}, r"each must be a positive number"),
        (noise(), {"device": "cuda:9"}, r"There is no device 'cuda:9' here"),
        (noise(), {"precision": "double"}, r"precision='double' is not known"),
        (noise(), {"plan": "flow"}, r"plan='flow' is not known; use 'auto', 'whole', 'stream'"),
        (noise(), {"flips": "zw"}, r"flips='zw' is not known; use any of the axes 'zyx'"),
        (noise(), {"tile": (64, 64)}, r"tile=\(64, 64\) is not a size; give three numbers"),
        (noise(), {"tile": (8, 8, 8), "plan": "whole"}, r"size of tiles, and plan='whole' has"),
        (noise(), {"gate_dtype": "int8"}, r"gate_dtype='int8' is not known; use 'float32'"),
        (noise(), {"normalize": "mean"}, r"use 'card', 'zscore'"),
        (noise(), {"outputs": ("mask", "labels")}, r"outputs has 'labels'; there are 'mask'"),
        (noise(), {"activation": "relu"}, r"activation='relu' is not known"),
        (noise(), {"threshold": 40}, r"threshold=40 is not a probability"),
        (noise(), {"memory": 0}, r"memory=0 GiB is not positive"),
        (noise(), {"out": "result.zarr"}, r"out is a str; pass a zarr group"),
    ],
)
def test_bad_input_is_refused_at_once(
    model: nau.Model, volume: Any, options: Any, message: str
) -> None:
    with pytest.raises(nau.InputError, match=message):
        nau.predict_steps(model, volume, **options)


def test_bad_voxels_are_refused_in_the_first_steps(model: nau.Model) -> None:
    array = noise()
    array[3, 4, 5] = np.nan
    with pytest.raises(nau.InputError, match="has 1 NaN of 7429 voxels"):
        run(model, array)
    with pytest.raises(nau.InputError, match=r"Every voxel of channel 0 is 4: .* 'zscore'"):
        run(model, np.full(SHAPE, 4))


def test_intensities_beyond_float32_are_refused(ungated: nau.Model) -> None:
    plain = with_card(ungated, normalization=Normalization("none"))
    with pytest.raises(nau.InputError, match="too large for float32; use 'zscore'"):
        run(plain, noise((2, 9, 9, 9)).astype(np.float64) * 1e300)


def test_a_network_that_gives_nan_is_an_error(ungated: nau.Model) -> None:
    constants = dict(ungated.graph.constants)
    constants["layers.2.bias"] = torch.full((1,), float("nan"))
    broken = replace(ungated, graph=replace(ungated.graph, constants=constants), _lowered={})
    with pytest.raises(nau.InputError, match="gives NaN or infinite values"):
        run(broken, noise((2, 9, 9, 9)))


def test_something_else_than_a_model() -> None:
    with pytest.raises(nau.InputError, match="model is a Conv3d; pass what load_model gives"):
        nau.predict(nn.Conv3d(1, 1, 1), noise())  # type: ignore[arg-type]


# --- models -------------------------------------------------------------------------------------


def test_model_of_a_checkpoint(model: nau.Model, tmp_path: Any) -> None:
    path = tmp_path / "net.safetensors"
    card = replace(
        model.card,
        arguments={"in_channels": 1, "out_channels": 3, "widths": [4, 6]},
        classes=(*default_classes(2), ClassInfo("tumour", "#ff0000")),
        voxel_size=(2.0, 2.0, 2.0),
    )
    save_checkpoint(path, MODULE, card)
    loaded = nau.load_model(path, voxel_size=None)
    assert loaded.name == "blog"
    assert loaded.architecture == "AttentionUNet3D"
    assert loaded.card.voxel_size is None
    assert [c.name for c in loaded.classes] == ["background", "class 1", "tumour"]
    assert (loaded.in_channels, loaded.stride) == (1, (4, 4, 4))
    assert [g.name for g in loaded.gates] == ["att2", "att1"]
    np.testing.assert_array_equal(run(loaded, noise()).mask, run(model, noise()).mask)


def test_model_of_a_module_is_known_by_its_weights(model: nau.Model, ungated: nau.Model) -> None:
    assert len(model.sha256) == 64
    assert model.sha256 != ungated.sha256
    assert ungated.name == ungated.architecture == "Ungated"
    assert "graph" not in repr(model)


def test_the_latest_program_is_kept(model: nau.Model) -> None:
    cpu = torch.device("cpu")
    first = model.program(cpu, torch.float32)
    assert model.program(cpu, torch.float32) is first
    model.program(cpu, torch.bfloat16)
    assert model.program(cpu, torch.float32) is not first


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"voxels": 1}, nau.InputError, r"card has no voxels; its fields are .*voxel_size"),
        (
            {"classes": default_classes(5)},
            nau.CheckpointError,
            r"names 5 classes, .* gives 1 channel\(s\). Name 2 classes",
        ),
        (
            {"activation": "softmax"},
            nau.CheckpointError,
            r"one channel, whose softmax is always 1; state activation='sigmoid'",
        ),
    ],
)
def test_cards_that_do_not_fit(fields: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        nau.load_model(Ungated(), **fields)
