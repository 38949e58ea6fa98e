"""Who may run code, and what was said of a checkpoint, is remembered by its content."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest
import torch
from small_networks import known

from napari_attention_unet.errors import CheckpointError, TrustRequired
from napari_attention_unet.model import load_model
from napari_attention_unet.models import ModelCard, trust
from napari_attention_unet.models.card_file import (
    card_path,
    find_card,
    forget_card,
    remember_card,
    save_card,
)
from napari_attention_unet.models.contents import sha256


def test_trust_is_remembered_and_forgotten():
    assert not trust.is_trusted("a" * 64)
    trust.remember("a" * 64, "net.ts")
    trust.remember("b" * 64)
    assert trust.trusted() == {"a" * 64: "net.ts", "b" * 64: ""}
    trust.forget("a" * 64)
    assert not trust.is_trusted("a" * 64)
    assert trust.is_trusted("b" * 64)
    assert [p.name for p in trust.trust_file().parent.iterdir()] == ["trusted.json"]


@pytest.mark.parametrize("text", ["", "[1, 2]", "{", "\x00"])
def test_a_damaged_list_trusts_nobody(text):
    trust.trust_file().parent.mkdir(parents=True, exist_ok=True)
    trust.trust_file().write_text(text)
    assert trust.trusted() == {}
    trust.remember("c" * 64)
    assert trust.is_trusted("c" * 64)


def test_what_is_required_says_all_that_a_dialog_needs(tmp_path):
    with pytest.raises(TrustRequired) as caught:
        trust.require(tmp_path / "net.ts", "d" * 64, "a TorchScript program", "It is code.", False)
    error = caught.value
    assert isinstance(error, CheckpointError)
    assert (error.path, error.sha256) == (tmp_path / "net.ts", "d" * 64)
    assert str(error) == (
        "'net.ts' is a TorchScript program. It is code. If you trust where it comes from, say so: "
        "trust=True, or --trust."
    )
    trust.require(tmp_path / "net.ts", "d" * 64, "", "", True)
    assert not trust.is_trusted("d" * 64)  # a yes for once
    trust.remember("d" * 64)
    trust.require(tmp_path / "net.ts", "d" * 64, "", "", False)


@pytest.fixture
def checkpoint(tmp_path):
    torch.save(known().state_dict(), tmp_path / "net.pth")
    return tmp_path / "net.pth"


def test_a_card_beside_the_checkpoint_is_picked_up(checkpoint):
    model = load_model(checkpoint)
    assert model.card.classes[1].name == "class 1"
    named = replace(
        model.card,
        classes=(
            model.card.classes[0],
            replace(model.card.classes[1], name="liver", color="#123456"),
        ),
    )
    assert save_card(checkpoint, named) == card_path(checkpoint)
    assert card_path(checkpoint).name == "net.pth.card.json"
    again = load_model(checkpoint)
    assert again.card.to_json() == named.to_json()
    assert load_model(checkpoint, name="mine").card.classes == named.classes


def test_options_are_remembered_with_the_card(checkpoint):
    first = load_model(checkpoint)
    (upsample, axes) = first.options
    assert (upsample.name, upsample.value, upsample.stated, upsample.kind) == (
        *("upsample", "nearest", False, "choice"),
    )
    assert axes.choices == ("zyx", "xyz")
    assert upsample.help in first.card.assumptions
    chosen = load_model(checkpoint, upsample="trilinear", axes="xyz")
    assert upsample.help not in chosen.card.assumptions
    assert all(option.stated for option in chosen.options)
    remember_card(chosen.sha256, chosen.card)
    again = load_model(checkpoint)
    assert {o.name: o.value for o in again.options} == {"upsample": "trilinear", "axes": "xyz"}
    assert again.card.to_json() == chosen.card.to_json()
    back = load_model(checkpoint, upsample="nearest")  # the keyword wins
    assert back.options[0].value == "nearest"
    assert back.card.arguments["upsample"] == "nearest"
    forget_card(chosen.sha256)
    assert load_model(checkpoint).options == first.options


def test_a_card_is_remembered_by_content_wherever_the_file_goes(checkpoint, tmp_path):
    remember_card(sha256(checkpoint), ModelCard("mine", "AttU_Net"))
    moved = checkpoint.rename(tmp_path / "other.pth")
    assert load_model(moved).name == "mine"
    moved.write_bytes(moved.read_bytes() + b"\0")  # other content
    assert find_card(moved, sha256(moved)) is None


@pytest.mark.parametrize("later", ["beside", "remembered"])
def test_the_later_of_two_cards_counts(checkpoint, later):
    beside = save_card(checkpoint, ModelCard("beside", ""))
    remembered = remember_card("e" * 64, ModelCard("remembered", ""))
    for path, name in ((beside, "beside"), (remembered, "remembered")):
        os.utime(path, (200, 200) if name == later else (100, 100))
    assert find_card(checkpoint, "e" * 64).name == later


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"name": 1, "architecture": 2, "classes": [3]}'])
def test_a_damaged_card_is_said(checkpoint, text):
    card_path(checkpoint).write_text(text)
    with pytest.raises(CheckpointError, match="not a model card"):
        load_model(checkpoint)


def test_a_card_names_no_code_that_runs_unasked(checkpoint, tmp_path):
    card = {
        "name": "x",
        "architecture": "os:system",
        "arguments": {"command": f"touch {tmp_path}/ran"},
    }
    card_path(checkpoint).write_text(json.dumps(card))
    trust.remember(sha256(checkpoint))  # trusting the weights is not trusting what a card asks for
    with pytest.raises(TrustRequired, match="Python class os:system"):
        load_model(checkpoint)
    assert not (tmp_path / "ran").exists()
