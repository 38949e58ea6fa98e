"""Checkpoints: what opens, what comes back, and what is said of a file that is none."""

from __future__ import annotations

import hashlib
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile

import pytest
import torch
from blog_network import BlogAttentionUNet3D
from safetensors.torch import save_file

from napari_attention_unet.errors import CheckpointError
from napari_attention_unet.models import (
    ClassInfo,
    ModelCard,
    Normalization,
    bundled_models,
    open_checkpoint,
    read_card,
    save_checkpoint,
)
from napari_attention_unet.models.attention_unet_3d import AttentionUNet3D

WIDTHS = (3, 5)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return AttentionUNet3D(2, 3, WIDTHS, center=4).eval()


@pytest.fixture
def card():
    return ModelCard(
        name="two tissues",
        architecture="AttentionUNet3D",
        arguments={"in_channels": 2, "out_channels": 3, "widths": [3, 5], "center": 4},
        in_channels=2,
        channel_names=("T1", "FLAIR"),
        classes=(ClassInfo("background", "#000000"), *[ClassInfo(c, "#00ff00") for c in "ab"]),
        voxel_size=(2.0, 1.0, 1.0),
        orientation="IPL",
        normalization=Normalization("window", -100, 300),
        licence="CC0-1.0",
        scores={"Dice": 0.5},
    )


def same_output(one, two, **tolerance):
    x = torch.randn(1, 2, 8, 4, 12)
    with torch.no_grad():
        torch.testing.assert_close(one(x), two(x), **tolerance)


# --- what opens ---------------------------------------------------------------------------------


def test_saved_checkpoint_comes_back_whole(tmp_path, net, card):
    path = save_checkpoint(tmp_path / "deep" / "net.safetensors", net, card)
    opened = open_checkpoint(path)
    module, got, digest = opened.module, opened.card, opened.sha256
    same_output(module, net, rtol=0, atol=0)
    assert got == card
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert not module.training
    assert not any(p.requires_grad for p in module.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_stored_small_and_runs_in_float32(tmp_path, net, card, dtype):
    full = save_checkpoint(tmp_path / "full.safetensors", net, card)
    half = save_checkpoint(tmp_path / "half.safetensors", net, card, dtype)
    assert half.stat().st_size < 0.7 * full.stat().st_size
    module = open_checkpoint(half).module
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    same_output(module, net, rtol=0.05, atol=0.05)
    assert not torch.equal(module.final.final_block[0].weight, net.final.final_block[0].weight)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model_state_dict": s, "optimizer": {"lr": 1e-3}},
        lambda s: {"model": s},
        lambda s: {"net": {"state_dict": s}},
        lambda s: {f"module.{k}": v for k, v in s.items()},
        lambda s: {"model": {f"_orig_mod.module.{k}": v for k, v in s.items()}},
        lambda s: {k: v.half() if v.is_floating_point() else v for k, v in s.items()},
        lambda s: {k: v for k, v in s.items() if not k.endswith("num_batches_tracked")},
    ],
    ids=["bare", "lightning", "model_state_dict", "model", "net", "ddp", "compiled", "half", "old"],
)
def test_wrappers_and_prefixes(tmp_path, net, wrap, zipped):
    path = tmp_path / "best.pth"
    torch.save(wrap(net.state_dict()), path, _use_new_zipfile_serialization=zipped)
    opened = open_checkpoint(path)
    module, card = opened.module, opened.card
    same_output(module, net, rtol=0.05, atol=0.05)
    assert (card.name, card.architecture, card.in_channels) == ("best", "AttentionUNet3D", 2)
    assert card.arguments["widths"] == list(WIDTHS)
    assert [c.name for c in card.classes] == ["background", "class 1", "class 2"]
    assert card.activation == "softmax"
    assert any("z-scored" in sentence for sentence in card.assumptions)


def test_blog_checkpoint_is_recognised(tmp_path):
    theirs = BlogAttentionUNet3D(1, 1, b=2).eval()
    torch.save(theirs.state_dict(), tmp_path / "blog.pt")
    opened = open_checkpoint(tmp_path / "blog.pt")
    module, card = opened.module, opened.card
    x = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        assert torch.equal(module(x), theirs(x))
    assert card.arguments == {
        "in_channels": 1,
        "out_channels": 1,
        "widths": [2, 4, 8, 16],
        "center": 32,
        "gate": "skip",
    }
    assert card.activation == "sigmoid"
    assert len(card.classes) == 2


def test_grid_gates_take_from_the_card_what_no_shape_tells(tmp_path, card):
    net = AttentionUNet3D(1, 2, WIDTHS, gate="grid", align_corners=True)
    arguments = {"gate": "grid", "align_corners": True}
    told = ModelCard("told", "AttentionUNet3D", arguments, classes=card.classes[:2])
    module = open_checkpoint(save_checkpoint(tmp_path / "a.safetensors", net, told)).module
    assert module.att2.align_corners is True

    torch.save(net.state_dict(), tmp_path / "b.pt")
    opened = open_checkpoint(tmp_path / "b.pt")
    module, guessed = opened.module, opened.card
    assert module.att2.align_corners is False
    assert any("align_corners" in sentence for sentence in guessed.assumptions)


def test_shapes_win_over_a_card_that_lies(tmp_path, net):
    lying = ModelCard("x", "AttentionUNet3D", {"widths": [10**9] * 50, "out_channels": 9})
    module = open_checkpoint(save_checkpoint(tmp_path / "x.safetensors", net, lying)).module
    same_output(module, net, rtol=0, atol=0)


def test_safetensors_without_card(tmp_path, net):
    save_file(net.state_dict(), tmp_path / "plain.safetensors")
    assert read_card(tmp_path / "plain.safetensors") is None
    opened = open_checkpoint(str(tmp_path / "plain.safetensors"))
    module, card = opened.module, opened.card
    same_output(module, net, rtol=0, atol=0)
    assert card.name == "plain"


# --- bundled ------------------------------------------------------------------------------------


def test_bundled_model_opens_by_name():
    assert "brain-t1" in bundled_models()
    opened = open_checkpoint("brain-t1")
    module, card, digest = opened.module, opened.card, opened.sha256
    assert card == read_card(bundled_models()["brain-t1"])
    assert len(digest) == 64
    assert [c.name for c in card.classes] == ["background", "grey matter", "white matter", "CSF"]
    assert (card.voxel_size, card.units, card.orientation) == ((1.5, 1.5, 1.5), "mm", "IPL")
    for field in ("description", "training_data", "licence", "version", "limits", "scores"):
        assert getattr(card, field), field
    assert "not for clinical use" in card.limits
    assert bundled_models()["brain-t1"].stat().st_size < 8e6
    with torch.no_grad():
        assert module(torch.randn(1, 1, 16, 16, 16)).isfinite().all()


def test_a_file_wins_over_a_bundled_name(tmp_path, net, card, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tmp_path / "brain-t1", net, card)
    assert open_checkpoint("brain-t1").card.name == "two tissues"


def test_cards_of_bundled_models_are_read_without_torch():
    code = (
        "import sys; from napari_attention_unet import models; "
        "print({n: models.read_card(p).name for n, p in models.bundled_models().items()}); "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "brain-t1" in done.stdout


# --- what does not open -------------------------------------------------------------------------


def _zip(names):
    def write(path):
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, "x")

    return write


def _tar(path):
    (path.parent / "a.txt").write_text("a")
    with tarfile.open(path, "w") as archive:
        archive.add(path.parent / "a.txt", "a.txt")


FOREIGN = {
    "empty": (b"", "an empty file"),
    "html": (b"\n<!DOCTYPE html><html><body>404</body>", "an HTML page"),
    "png": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a PNG image"),
    "jpeg": (b"\xff\xd8\xff\xe0\0\x10JFIF", "a JPEG image"),
    "tiff": (b"II*\0\x08\0\0\0", "a TIFF image"),
    "nifti": (b"\x1f\x8b\x08\0\0\0\0\0", "gzip"),
    "hdf5": (b"\x89HDF\r\n\x1a\n", "HDF5"),
    "npy": (b"\x93NUMPY\x01\0", "a NumPy array"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer"),
    "text": ("lr: 0.001\nname: µnet\n".encode(), "a text file"),
    "cut text": ("é".encode() * 400, "a text file"),
    "json": (b'{"epoch": 3}', "a text file"),
    "random": (bytes(range(200, 256)) * 4, "a file of unknown kind"),
    "one byte": (b"\x80", "a file of unknown kind"),
    "zip": (_zip(["a/readme.txt"]), "a zip archive that holds no PyTorch checkpoint"),
    "tar": (_tar, "a tar archive"),
    "cut zip": (b"PK\x03\x04" + bytes(40), "cut short"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files_are_named(tmp_path, name):
    content, words = FOREIGN[name]
    path = tmp_path / "file.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content(path)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path)
    message = str(caught.value)
    assert words in message
    assert "'file.pth' looks like" in message
    assert "torch.save" in message
    assert "\n" not in message


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(CheckpointError, match=r"There is no file .*nowhere.*brain-t1"):
        open_checkpoint(tmp_path / "nowhere.pt")
    with pytest.raises(CheckpointError, match="is a folder"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("kept", [0.05, 0.5, 0.97])
@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_cut_short(tmp_path, net, card, kind, kept):
    path = tmp_path / f"net.{kind}"
    if kind == "safetensors":
        save_checkpoint(path, net, card)
    else:
        torch.save(net.state_dict(), path, _use_new_zipfile_serialization=kind == "zip")
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(CheckpointError, match="cut short"):
        open_checkpoint(path)


def test_header_that_claims_to_be_huge(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 60) + b"{" + bytes(100))
    with pytest.raises(CheckpointError, match="looks like"):
        open_checkpoint(path)


class _Runs:
    """A pickle of this would make a folder when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("writer", ["zip", "legacy", "pickle"])
def test_nothing_in_a_file_runs(tmp_path, net, writer):
    trap, path = tmp_path / "trap", tmp_path / "net.pth"
    content = {"state_dict": net.state_dict(), "args": _Runs(trap)}
    if writer == "pickle":
        path.write_bytes(pickle.dumps({"args": _Runs(trap)}))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=writer == "zip")
    if writer == "pickle":
        with pytest.raises(CheckpointError, match="holds no state_dict but the entries args"):
            open_checkpoint(path)
    else:  # the tensors are taken, and what came with them is not run
        same_output(open_checkpoint(path).module, net, rtol=0, atol=0)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"epoch": 3, "best": 0.5}, "the entries epoch, best"),
        ({}, r"the entries \(none\)"),
        ([1, 2], "a list"),
        ({"model": {"net": {"model": {"net": {"model": {}}}}}}, "the entries model"),
    ],
)
def test_torch_files_without_a_state_dict(tmp_path, content, words):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=f"holds no state_dict but {words}"):
        open_checkpoint(tmp_path / "x.pt")


def test_unknown_network_shows_its_first_tensors(tmp_path):
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"2 tensors of a network.*weight, bias.*Attention"):
        open_checkpoint(tmp_path / "x.pt")


def test_tensors_that_differ_are_named(tmp_path, net):
    state = net.state_dict()
    state["att2.extra"] = torch.zeros(1)
    del state["att1.psi.0.bias"]
    state["att1.W_g.0.weight"] = torch.zeros(1, 7, 1, 1, 1)
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path / "x.pt")
    message = str(caught.value)
    assert "missing: att1.psi.0.bias" in message
    assert "not known: att2.extra" in message
    assert "att1.W_g.0.weight (1, 7, 1, 1, 1) instead of (1, 3, 1, 1, 1)" in message


def test_levels_with_a_gap_are_not_recognised(tmp_path, net):
    state = {k: v for k, v in net.state_dict().items() if not k.startswith("encoder1")}
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="not known"):
        open_checkpoint(tmp_path / "x.pt")


def test_damaged_card(tmp_path, net):
    save_file(
        net.state_dict(), tmp_path / "x.safetensors", metadata={"attention_unet_card": "{no json"}
    )
    with pytest.raises(CheckpointError, match="not a model card"):
        open_checkpoint(tmp_path / "x.safetensors")


def test_classes_are_made_up_for_a_card_without(tmp_path, net):
    bare = ModelCard("bare", "AttentionUNet3D", {"out_channels": 3}, in_channels=2)
    save_checkpoint(tmp_path / "x.safetensors", net, bare)
    assert len(open_checkpoint(tmp_path / "x.safetensors").card.classes) == 3
