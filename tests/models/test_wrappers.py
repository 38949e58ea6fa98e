"""Weights are found in whatever a training script saved around them."""

from __future__ import annotations

import json
import pickle
from argparse import Namespace
from copy import deepcopy

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_networks import known, randomised
from torch import nn

from napari_attention_unet.errors import CheckpointError
from napari_attention_unet.models import Normalization, open_checkpoint
from napari_attention_unet.models.opened import Request
from napari_attention_unet.models.shards import index_in


@pytest.fixture
def net():
    return known()


@pytest.fixture
def other():
    """Weights that differ."""
    return randomised(known(), seed=1)


def holds(opened, network: nn.Module) -> bool:
    state = network.state_dict()
    return all(torch.equal(v, state[k]) for k, v in opened.module.state_dict().items())


def prefixed(state, prefix: str):
    return {f"{prefix}{key}": value for key, value in state.items()}


WRAPS = {
    "lightning": lambda s: {
        "epoch": 3,
        "pytorch-lightning_version": "2.1",
        "state_dict": {**prefixed(s, "net."), "criterion.weight": torch.ones(2)},
        "hyper_parameters": Namespace(lr=0.1),
        "callbacks": {"ModelCheckpoint": {"best": np.float64(0.5)}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}],
    },
    "nnunet": lambda s: {
        "network_weights": prefixed(s, "_orig_mod."),
        "optimizer_state": {"state": {}},
        "init_args": {"fold": 0},
        "trainer_name": "nnUNetTrainer",
    },
    "ignite": lambda s: {"network": s, "optimizer": {"state": {}}, "trainer": {"iteration": 9}},
    "ignite, net": lambda s: {"net": s, "lr_scheduler": {"last_epoch": 1}},
    "nested": lambda s: {"model": {"state_dict": prefixed(s, "module._orig_mod.")}, "best": 0.9},
    "parallel": lambda s: prefixed(s, "module."),
    "compiled": lambda s: prefixed(s, "_orig_mod."),
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("wrap", WRAPS)
def test_wrappers(tmp_path, net, wrap, zipped):
    path = tmp_path / "net.ckpt"
    torch.save(WRAPS[wrap](net.state_dict()), path, _use_new_zipfile_serialization=zipped)
    assert holds(open_checkpoint(path), net)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_run_in_float32(tmp_path, net, dtype):
    torch.save(
        {k: v.to(dtype) if v.is_floating_point() else v for k, v in net.state_dict().items()},
        tmp_path / "a.pt",
    )
    module = open_checkpoint(tmp_path / "a.pt").module
    assert {v.dtype for v in module.parameters()} == {torch.float32}
    for key, value in module.state_dict().items():
        torch.testing.assert_close(value, net.state_dict()[key], rtol=1e-2, atol=1e-2)


def test_a_pkl_of_arrays_that_torch_wrote_by_pickle(tmp_path, net):
    with (tmp_path / "a.pkl").open("wb") as file:
        pickle.dump(net.state_dict(), file)
    assert holds(open_checkpoint(tmp_path / "a.pkl"), net)


class AveragedModel(nn.Module):
    """As torch.optim.swa_utils keeps it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.register_buffer("n_averaged", torch.tensor(7))


def parameters_alone(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach() for name, p in network.named_parameters()}


AVERAGES = {
    "ema": lambda a, b: {"model": a.state_dict(), "ema": b.state_dict()},
    "model_ema": lambda a, b: {"model": a.state_dict(), "model_ema": b.state_dict()},
    "timm": lambda a, b: {"state_dict": a.state_dict(), "state_dict_ema": b.state_dict()},
    "ema_state_dict": lambda a, b: {
        "state_dict": prefixed(a.state_dict(), "module."),
        "ema_state_dict": prefixed(b.state_dict(), "module."),
    },
    "shadow": lambda a, b: {"net": a.state_dict(), "shadow": parameters_alone(b)},
    "nested": lambda a, b: {
        "model": a.state_dict(),
        "ema": {"module": b.state_dict(), "decay": 0.9},
    },
    "swa": lambda a, b: {"model": a.state_dict(), "ema": AveragedModel(b).state_dict()},
    "list": lambda a, b: {
        "model": a.state_dict(),
        "ema": {"decay": 0.9, "shadow_params": [p.detach() for p in b.parameters()]},
    },
    "prefixes": lambda a, b: {
        "state_dict": {
            **prefixed(a.state_dict(), "model."),
            **prefixed(b.state_dict(), "model_ema.module."),
        }
    },
    "ema_pytorch": lambda a, b: {
        **prefixed(a.state_dict(), "online_model."),
        **prefixed(b.state_dict(), "ema_model."),
        "initted": torch.tensor(True),
        "step": torch.tensor(3),
    },
}


@pytest.mark.parametrize("kind", AVERAGES)
def test_a_running_average_is_offered(tmp_path, net, other, kind):
    torch.save(AVERAGES[kind](net, other), tmp_path / "a.pt")
    trained = open_checkpoint(tmp_path / "a.pt")
    assert holds(trained, net)
    assert any("weights='ema' takes the average" in s for s in trained.card.assumptions)
    assert next((o.name, o.value, o.stated) for o in trained.options) == (
        "weights",
        "trained",
        False,
    )
    averaged = open_checkpoint(tmp_path / "a.pt", Request(weights="ema"))
    expected = deepcopy(other)
    if kind in ("shadow", "list"):  # which keep no statistics of batch normalisation
        for name, buffer in net.named_buffers():
            expected.get_buffer(name).copy_(buffer)
    assert holds(averaged, expected)
    assert not any("average" in s for s in averaged.card.assumptions)
    assert averaged.card.arguments["weights"] == "ema"


@pytest.mark.parametrize(
    "wrap",
    [
        lambda a: AveragedModel(a).state_dict(),
        lambda a: {"ema": a.state_dict()},
        lambda a: {"epoch": 1, "ema_model": {"module": a.state_dict()}},
    ],
    ids=["AveragedModel", "ema", "nested"],
)
def test_an_average_alone_is_taken_and_said(tmp_path, net, wrap):
    torch.save(wrap(net), tmp_path / "a.pt")
    opened = open_checkpoint(tmp_path / "a.pt")
    assert holds(opened, net)
    assert any("running average" in s and "no others" in s for s in opened.card.assumptions)


def test_a_choice_that_there_is_not_is_refused(tmp_path, net):
    torch.save(net.state_dict(), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="no running average"):
        open_checkpoint(tmp_path / "a.pt", Request(weights="ema"))
    with pytest.raises(CheckpointError, match="'trained' or 'ema'"):
        open_checkpoint(tmp_path / "a.pt", Request(weights="swa"))
    torch.save({"ema": net.state_dict()}, tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match="nothing but a running average"):
        open_checkpoint(tmp_path / "b.pt", Request(weights="trained"))


def test_hyper_parameters_of_lightning_answer_options(tmp_path, net):
    content = {
        "state_dict": prefixed(net.state_dict(), "model."),
        "hyper_parameters": {"upsample": "trilinear", "axes": 3, "lr": 0.1},
    }
    torch.save(content, tmp_path / "a.ckpt")
    opened = open_checkpoint(tmp_path / "a.ckpt")
    values = {o.name: (o.value, o.stated) for o in opened.options}
    assert values == {"upsample": ("trilinear", True), "axes": ("zyx", False)}
    asked = open_checkpoint(tmp_path / "a.ckpt", upsample="nearest")
    assert asked.options[0].value == "nearest"


PLANS = {
    "transpose_forward": [0, 1, 2],
    "configurations": {
        "3d_fullres": {
            "spacing": [2.5, 0.8, 0.7],
            "normalization_schemes": ["ZScoreNormalization"],
            "use_mask_for_norm": [True],
        },
        "3d_cascade_fullres": {"inherits_from": "3d_fullres", "spacing": [1.0, 1.0, 1.0]},
    },
}
DATASET = {"labels": {"background": 0, "spleen": 1}, "channel_names": {"0": "CT"}}


@pytest.mark.parametrize("where", ["inside", "beside", "above"])
def test_plans_of_nnunet_become_the_card(tmp_path, net, where):
    folder = tmp_path / "fold_0"
    folder.mkdir()
    inside = {"plans": PLANS, "dataset_json": DATASET, "configuration": "3d_cascade_fullres"}
    content = {"network_weights": net.state_dict(), "init_args": inside, "trainer_name": "x"}
    if where != "inside":
        place = folder if where == "beside" else tmp_path
        (place / "plans.json").write_text(json.dumps(PLANS))
        (place / "dataset.json").write_text(json.dumps(DATASET))
        content["init_args"] = {}
    torch.save(content, folder / "checkpoint_final.pth")
    card = open_checkpoint(folder / "checkpoint_final.pth").card
    assert card.voxel_size == ((1.0, 1.0, 1.0) if where == "inside" else (2.5, 0.8, 0.7))
    assert card.normalization == Normalization("zscore", nonzero=True)
    assert [c.name for c in card.classes] == ["background", "spleen"]
    assert card.channel_names == ("CT",)
    assert not any("no names" in s or "z-scored" in s for s in card.assumptions)


@pytest.mark.parametrize(
    "plans", [3, {"configurations": 3}, {"configurations": {"3d_fullres": []}}]
)
def test_plans_that_are_odd_are_told_or_left(tmp_path, net, plans):
    content = {"network_weights": net.state_dict(), "init_args": {"plans": plans}}
    torch.save(content, tmp_path / "a.pth")
    assert holds(open_checkpoint(tmp_path / "a.pth"), net)


def test_ct_normalisation_of_nnunet_is_said_to_be_missing(tmp_path, net):
    plans = {"configurations": {"3d_fullres": {"normalization_schemes": ["CTNormalization"]}}}
    content = {"network_weights": net.state_dict(), "init_args": {"plans": plans}}
    torch.save(content, tmp_path / "a.pth")
    assert any("CTNormalization" in s for s in open_checkpoint(tmp_path / "a.pth").card.assumptions)


# Sharded safetensors.


def sharded(folder, state) -> None:
    names = sorted(state)
    parts = {
        "model-00001-of-00002.safetensors": names[::2],
        "model-00002-of-00002.safetensors": names[1::2],
    }
    for name, keys in parts.items():
        save_file({key: state[key].contiguous() for key in keys}, folder / name)
    places = {key: name for name, keys in parts.items() for key in keys}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


@pytest.mark.parametrize("by", ["index", "folder"])
def test_sharded_safetensors(tmp_path, net, by):
    sharded(tmp_path, net.state_dict())
    path = tmp_path if by == "folder" else index_in(tmp_path)
    opened = open_checkpoint(path)
    assert holds(opened, net)
    assert opened.card.name == "model"
    before = opened.sha256
    shard = tmp_path / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-4] + bytes(4))
    assert open_checkpoint(path).sha256 != before  # every file counts


@pytest.mark.parametrize(
    "name",
    ["../secret.safetensors", "/etc/passwd", "sub/a.safetensors", "..\\a.safetensors", "a.pt", ""],
)
def test_an_index_leads_nowhere_else(tmp_path, net, name):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "sub").mkdir()
    for place in (tmp_path / "secret.safetensors", folder / "sub" / "a.safetensors"):
        save_file(net.state_dict(), place)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(net.state_dict(), name)}))
    with pytest.raises(CheckpointError, match="no safetensors file beside it"):
        open_checkpoint(index)


def test_an_index_follows_no_link_out_of_its_folder(tmp_path, net):
    folder = tmp_path / "in"
    folder.mkdir()
    save_file(net.state_dict(), tmp_path / "secret.safetensors")
    (folder / "a.safetensors").symlink_to(tmp_path / "secret.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(net.state_dict(), "a.safetensors")}))
    with pytest.raises(CheckpointError, match="no safetensors file beside it"):
        open_checkpoint(index)


@pytest.mark.parametrize(
    "text", ["", "[", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 1}}', "[" * 100_000]
)
def test_a_damaged_index_is_said(tmp_path, text):
    (tmp_path / "m.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match="looks like the index of a sharded checkpoint"):
        open_checkpoint(tmp_path)


def test_shards_that_are_missing_or_short_are_said(tmp_path, net):
    sharded(tmp_path, net.state_dict())
    shard = tmp_path / "model-00002-of-00002.safetensors"
    raw = shard.read_bytes()
    shard.write_bytes(raw[:-10])
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        open_checkpoint(tmp_path)
    save_file({"a": torch.ones(1)}, shard)
    with pytest.raises(CheckpointError, match="promises"):
        open_checkpoint(tmp_path)
    shard.unlink()
    with pytest.raises(CheckpointError, match="which is missing"):
        open_checkpoint(tmp_path)
