"""Each family against values that its source implementation gave.

A reference file holds a state dict with random weights and random statistics of batch
normalisation, an input, and the logits and attention maps that the family's own code made of
them in float32.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from recording import difference, run
from torch import Tensor

from napari_attention_unet.errors import CheckpointError
from napari_attention_unet.models.families import FAMILIES, Built

REFERENCES = sorted((Path(__file__).parent / "references").glob("*.npz"))


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, np.ndarray], dict]:
    with np.load(path) as file:
        arrays = {key: file[key] for key in file.files}
    state = {
        key.removeprefix("state/"): torch.from_numpy(arrays.pop(key)).float()
        for key in list(arrays)
        if key.startswith("state/")
    }
    return state, arrays, json.loads(str(arrays.pop("about")))


def build(state: dict[str, Tensor], **options) -> Built:
    return next(f for f in FAMILIES if f.matches(state)).build(state, **options)


def maps_of(arrays: dict[str, np.ndarray]) -> list[Tensor]:
    keys = sorted((key for key in arrays if key.startswith("gate/")), key=lambda k: int(k[5:]))
    return [torch.from_numpy(arrays[key]) for key in keys]


def test_there_are_references():
    assert len(REFERENCES) >= 11


@pytest.mark.parametrize("path", REFERENCES, ids=lambda path: path.stem)
def test_logits_and_maps_are_those_of_the_source(path):
    state, arrays, about = read(path)
    if about["family"] == "MONAI AttentionUnet":
        pytest.importorskip("monai")
    built = build(state, **about["options"])
    assert built.family == about["family"]
    x = torch.from_numpy(arrays["input"]).float()
    flat = x.ndim == 4  # the slices of a 2D network are the z of a volume
    logits, maps = run(built.module, x.permute(1, 0, 2, 3)[None] if flat else x)
    if flat:
        logits, *maps = (t[0].permute(1, 0, 2, 3) for t in (logits, *maps))
    assert difference(logits, torch.from_numpy(arrays["logits"])) <= 1e-5
    expected = maps_of(arrays)
    assert len(maps) == len(expected) > 0
    assert max(map(difference, maps, expected)) <= 1e-5


@pytest.mark.parametrize("name", ["oktay_grid", "attu_net_3d", "elektronn3", "biapy"])
def test_axes_xyz_is_the_same_network_on_the_transposed_volume(name):
    path = next(p for p in REFERENCES if p.stem == name)
    state, arrays, about = read(path)
    x = torch.from_numpy(arrays["input"]).float().permute(0, 1, 4, 3, 2)
    built = build(state, axes="xyz", **about["options"])
    logits, maps = run(built.module, x)
    back = (0, 1, 4, 3, 2)
    assert difference(logits.permute(back), torch.from_numpy(arrays["logits"])) <= 1e-5
    for got, expected in zip(maps, maps_of(arrays), strict=True):
        assert difference(got.permute(back), expected) <= 1e-5


def reference(name: str) -> dict[str, Tensor]:
    return read(next(p for p in REFERENCES if p.stem == name))[0]


def test_what_the_keys_do_not_say_is_stated_unless_chosen():
    state = reference("oktay_single")
    assumed = build(state)
    assert assumed.options == {"align_corners": False, "gate_mode": "concatenation"}
    text = " ".join(assumed.assumptions)
    assert all(word in text for word in ("axes=", "align_corners=", "gate_mode="))
    chosen = build(state, align_corners=True, gate_mode="concatenation_residual", axes="zyx")
    assert chosen.assumptions == ()
    x = torch.randn(1, 2, 16, 16, 16)
    (logits, maps), (other, others) = run(assumed.module, x), run(chosen.module, x)
    assert difference(logits, other) > 1e-3
    sums = [float(m.sum()) for m in others]
    assert sums == pytest.approx([1.0, 1.0, 1.0], abs=1e-4)
    assert [m.shape[2] for m in maps] == [1, 2, 4]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gate_mode": "hard"}, "one of 'concatenation'"),
        ({"axes": "yxz"}, "'zyx' or 'xyz'"),
        ({"strides": (2, 2)}, "no option 'strides'; there are align_corners, gate_mode, axes"),
    ],
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises(CheckpointError, match=words):
        build(reference("oktay_single"), **options)


def test_a_family_loads_strictly_and_names_what_differs():
    state = reference("oktay_multi")
    del state["center.conv2.1.running_var"]
    state["extra.weight"] = torch.zeros(3)
    state["dsv1.weight"] = torch.zeros(9, 9, 1, 1, 1)
    with pytest.raises(CheckpointError) as caught:
        build(state)
    text = str(caught.value)
    assert "missing: center.conv2.1.running_var;" in text
    assert "not known: extra.weight;" in text
    assert "other shape: dsv1.weight (9, 9, 1, 1, 1) instead of" in text
    assert "unet_CT_multi_att_dsv_3D" in text


def test_half_precision_weights_and_counters_are_taken():
    state = reference("attu_net_3d")
    exact, _ = run(build(state).module, x := torch.randn(1, 2, 16, 16, 16))
    halved = {k: v.half() if k.endswith("weight") else v.bfloat16() for k, v in state.items()}
    halved["Conv1.conv.1.num_batches_tracked"] = torch.tensor(7)
    built = build(halved)
    assert {p.dtype for p in built.module.parameters()} == {torch.float32}
    assert difference(run(built.module, x)[0], exact) < 0.05


def test_a_2d_network_with_statistics_over_space_is_refused():
    state = reference("elektronn3")
    flat = {k: v[:, :, 0] if v.ndim == 5 else v for k, v in state.items()}
    with pytest.raises(CheckpointError, match="2D elektronn3"):
        build(flat)


def test_plain_networks_are_told_from_gated_ones():
    state = {k: v for k, v in reference("attu_net_3d").items() if not k.startswith("Att")}
    built = build(state)
    assert built.family == "U_Net"
    assert any("mask only" in note for note in built.assumptions)
    assert run(built.module, torch.randn(1, 2, 16, 16, 16))[1] == []


def test_monai_missing_is_said_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "monai.networks.nets.attentionunet", None)
    with pytest.raises(CheckpointError, match=r'pip install "napari-attention-unet\[monai\]"'):
        build(reference("monai_default"))
