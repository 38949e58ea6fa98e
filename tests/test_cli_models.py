"""The command `models`, and the options that say how a checkpoint is read, for every command."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from napari_attention_unet import cli
from napari_attention_unet.cli import model_options
from napari_attention_unet.describe import describe
from napari_attention_unet.model import load_model
from napari_attention_unet.models import card_file, trust
from napari_attention_unet.models.card_file import card_path
from napari_attention_unet.models.families.oktay import OktayUNet


@pytest.fixture(autouse=True)
def _own_memory(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """What is remembered of checkpoints stays within a test."""
    for module in (card_file, trust):
        monkeypatch.setattr(
            module.platformdirs, "user_config_dir", lambda *_a, **_k: str(tmp_path / "config")
        )


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A bare state_dict with two gates and open questions, with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        network = OktayUNet(1, 3, (2, 3, 4, 5), gates=1, gating=4, inner=(3, 4)).eval()
    path = tmp_path / "models" / "plain.pth"
    path.parent.mkdir()
    torch.save(network.state_dict(), path)
    return path


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


def test_json_is_the_description(run, plain: Path):
    status, out, err = run("models", plain, "--json")
    assert (status, err) == (0, "")
    expected = describe(load_model(plain)).to_dict()
    assert json.loads(out) == json.loads(json.dumps(expected))


def test_the_table_says_what_was_assumed_and_what_there_is_to_choose(run, plain: Path):
    status, out, _err = run("models", plain)
    assert status == 0
    said = " ".join(out.split())
    assert "align_corners: no (assumed), of no, yes" in said
    assert "attentionblock3.gate_block_1" in said
    assert "none runs" in said
    status, out, _err = run("models", plain, "--option", "align_corners=yes")
    assert "align_corners: yes (chosen), of no, yes" in " ".join(out.split())


def test_options_reach_the_network(run, plain: Path):
    status, out, _err = run("models", plain, "--json", "--option", "align_corners=true")
    assert status == 0
    assert json.loads(out)["arguments"]["align_corners"] is True


def test_fields_of_the_card_are_options_too(run, plain: Path):
    status, out, _err = run(
        *("models", plain, "--json", "--option", "activation=sigmoid"),
        *("--option", "classes=liver, spleen", "--option", "normalization=minmax"),
        *("--option", "voxel_size=2,1,1"),
    )
    assert status == 0
    facts = json.loads(out)
    assert facts["activation"] == "sigmoid"
    assert [c["name"] for c in facts["classes"]] == ["background", "liver", "spleen"]
    assert facts["normalization"]["kind"] == "minmax"
    assert facts["voxel_size"] == [2, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--option", "align_corners"), "key=value is needed"),
        (("--option", "align_corners=maybe"), "False, True"),
        (("--option", "stridez=2"), "stridez"),
        (("--argument", "=3"), "key=value is needed"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(run, plain: Path, arguments, words: str):
    status, out, err = run("models", plain, *arguments)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert words in err


def test_a_card_is_saved_beside_the_checkpoint_and_picked_up(run, plain: Path):
    status, _out, err = run(
        *("models", plain, "--save-card", "--option", "classes=liver,spleen"),
        *("--option", "align_corners=yes"),
    )
    assert status == 0
    assert str(card_path(plain)) in err
    arguments = json.loads(card_path(plain).read_text("utf-8"))["arguments"]
    assert arguments["align_corners"] is True
    assert "gate_mode" not in arguments, "what was assumed stays open"
    _status, out, _err = run("models", plain, "--json")
    facts = json.loads(out)
    assert [c["name"] for c in facts["classes"]] == ["background", "liver", "spleen"]
    assert {o["name"]: o["stated"] for o in facts["options"]}["align_corners"] is True
    assert {o["name"]: o["stated"] for o in facts["options"]}["gate_mode"] is False


def test_a_folder_that_cannot_be_written_to_is_said_in_words(
    run, plain: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(card_file, "save_card", refuse)
    status, out, err = run("models", plain, "--save-card")
    assert (status, out) == (2, "")
    assert f"cannot be saved in '{plain.parent}': Permission denied" in err


def test_code_needs_trust(run, tmp_path: Path):
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 3, padding=1)).eval()
    path = tmp_path / "program.pt"
    torch.jit.script(network).save(str(path))
    status, out, err = run("models", path)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    for words in ("TorchScript", "--trust"):
        assert words in err
    status, out, _err = run("models", path, "--trust", "--json")
    assert status == 0
    assert "TorchScript" in json.loads(out)["code"]
    status, _out, _err = run("models", path)
    assert status == 2, "--trust holds once"


def test_a_class_of_the_caller_opens_what_is_not_known(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "lab_networks.py").write_text(
        "import torch\n"
        "class Gated(torch.nn.Module):\n"
        "    def __init__(self, width, kernel):\n"
        "        super().__init__()\n"
        "        pad = [k // 2 for k in kernel]\n"
        "        self.a = torch.nn.Conv3d(1, width, kernel, padding=pad)\n"
        "        self.g = torch.nn.Conv3d(width, 1, 1)\n"
        "        self.b = torch.nn.Conv3d(width, 2, 1)\n"
        "    def forward(self, x):\n"
        "        x = torch.relu(self.a(x))\n"
        "        return self.b(x * torch.sigmoid(self.g(x)))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from lab_networks import Gated

    path = tmp_path / "gated.pth"
    torch.save(Gated(5, (1, 3, 3)).state_dict(), path)
    named = ("--architecture", "lab_networks:Gated", "--argument", "width=5")
    status, _out, err = run("models", path, *named, "--argument", "kernel=1,3,3")
    assert status == 2
    assert "--trust" in err
    status, out, _err = run(
        "models", path, *named, "--argument", "kernel=1,3,3", "--trust", "--json"
    )
    assert status == 0
    facts = json.loads(out)
    assert facts["arguments"] == {"width": 5, "kernel": [1, 3, 3]}
    assert len(facts["gates"]) == 1


def test_predict_takes_the_same_options(run, plain: Path, tmp_path: Path):
    data = np.random.default_rng(0).normal(size=(8, 16, 16)).astype(np.float32)
    tifffile.imwrite(tmp_path / "x.tif", data, imagej=True, metadata={"axes": "ZYX"})
    for name, more in (("plain", ()), ("aligned", ("--option", "align_corners=yes"))):
        status, _out, err = run(
            "predict", tmp_path / "x.tif", "-m", plain, "-o", tmp_path / name, *more
        )
        assert (status, err) == (0, "")
    read = {
        name: json.loads((tmp_path / name / "x" / "prediction.json").read_text("utf-8"))
        for name in ("plain", "aligned")
    }
    assert any("align_corners" in text for text in read["plain"]["assumptions"])
    assert not any("align_corners" in text for text in read["aligned"]["assumptions"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True),
        ("False", False),
        ("8", 8),
        ("2, 2, 1", (2, 2, 1)),
        ("(1, 2, 2), (2, 2, 2)", ((1, 2, 2), (2, 2, 2))),
        ("nearest", "nearest"),
        ("__import__('os').getcwd()", "__import__('os').getcwd()"),
    ],
)
def test_values_are_read_and_nothing_of_them_is_run(text: str, value: object):
    assert model_options._pairs("--option", [f"key={text}"]) == {"key": value}
