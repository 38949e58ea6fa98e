"""The training loop: its schedule, its averages, and that an interrupted run goes on alike."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from napari_attention_unet.models.attention_unet_3d import AttentionUNet3D
from napari_attention_unet.training import loop
from napari_attention_unet.training.augment import Canvas
from napari_attention_unet.training.loop import Recipe, Trainer, learning_rate, settling_start

RECIPE = Recipe(steps=10, warmup=2, patch=16, voxel_size=6.0)


@pytest.fixture(autouse=True)
def _few_views_to_calibrate(monkeypatch):
    monkeypatch.setattr(loop, "CALIBRATION", 2)


def make(head, recipe=RECIPE, **others) -> Trainer:
    torch.manual_seed(recipe.seed)
    net = AttentionUNet3D(1, 4, (4, 6), center=8)
    canvas = Canvas.of(head)
    return Trainer(net, [canvas, *others.get("more", [])], others.get("weights", [1.0]), recipe)


def test_learning_rate_rises_stays_and_falls():
    recipe = Recipe(steps=1000, cooldown=0.3, warmup=100, learning_rate=2e-3)
    rates = [learning_rate(step, recipe) for step in range(1000)]
    assert rates[0] == pytest.approx(2e-5)
    assert rates[99:701] == [2e-3] * 602
    assert rates[850] == pytest.approx(1e-3)
    assert 0 < rates[999] < 1e-5
    assert settling_start(replace(recipe, settle=0.25)) == 925


def test_shorter_total_cools_a_running_training_down():
    recipe = Recipe(steps=20_000)
    assert learning_rate(800, recipe) == recipe.learning_rate
    ending = replace(recipe, steps=1000)
    assert learning_rate(800, ending) == pytest.approx(recipe.learning_rate * 200 / 300)


def test_resumed_run_takes_the_same_steps(tmp_path, head):
    straight = make(head)
    losses = [straight.advance() for _ in range(5)]

    first = make(head)
    assert [first.advance() for _ in range(3)] == losses[:3]
    first.save(tmp_path / "state.pt")
    second = make(head, replace(RECIPE))
    second.load(tmp_path / "state.pt")
    assert second.step == 3
    assert [second.advance() for _ in range(2)] == losses[3:]
    for one, two in ((straight.module, second.module), (straight.average, second.average)):
        for key, value in one.state_dict().items():
            assert torch.equal(value, two.state_dict()[key]), key


def test_seed_and_step_decide_the_batch(head):
    one, two = make(head), make(head)
    image, target = one.batch(7)
    assert image.shape == (1, 1, 16, 16, 16)
    assert target.shape == (1, 16, 16, 16)
    assert torch.equal(image, two.batch(7)[0])
    assert not torch.equal(image, one.batch(8)[0])
    assert not torch.equal(image, make(head, replace(RECIPE, seed=1)).batch(7)[0])


def test_heads_are_drawn_by_their_weights(head, brain_only):
    trainer = make(head, more=[Canvas.of(brain_only)], weights=[0.0, 1.0])
    labels = {int(v) for step in range(4) for v in trainer.batch(step)[1].unique()}
    assert labels == {0, 4}


def test_average_follows_the_weights_and_statistics(head):
    trainer = make(head, replace(RECIPE, ema=0.5))
    name = "encoder1.encoder_block.1.running_mean"
    weight = "encoder1.encoder_block.0.weight"
    before = {k: trainer.average.state_dict()[k].clone() for k in (name, weight)}
    trainer.advance()
    decay = 1 / 10  # at the first step the average has nothing to remember
    for key, old in before.items():
        new = trainer.module.state_dict()[key]
        expected = decay * old + (1 - decay) * new
        torch.testing.assert_close(trainer.average.state_dict()[key], expected)
    assert not trainer.average.training


def _normalisations(module: nn.Module) -> list[nn.BatchNorm3d]:
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm3d)]


def test_statistics_of_batch_normalisation_stay_while_it_settles(head, monkeypatch):
    monkeypatch.setattr(loop, "CALIBRATION", 3)
    trainer = make(head, replace(RECIPE, steps=4, cooldown=1.0, settle=0.5))
    seen = []
    for _ in range(4):
        trainer.advance()
        seen.append(torch.cat([m.running_var.clone() for m in _normalisations(trainer.module)]))
    moved = [not torch.equal(a, b) for a, b in itertools.pairwise(seen)]
    assert moved == [True, True, False]  # the second: measured anew at the third step
    for one, two in zip(
        _normalisations(trainer.module), _normalisations(trainer.average), strict=True
    ):
        torch.testing.assert_close(one.running_var, two.running_var)
        assert int(one.num_batches_tracked) == 3


def test_calibration_measures_the_averaged_weights(head, monkeypatch):
    monkeypatch.setattr(loop, "CALIBRATION", 4)
    trainer = make(head)
    for _ in range(2):
        trainer.advance()
    weights = trainer.average.encoder1.encoder_block[0].weight.clone()
    assert not torch.equal(weights, trainer.module.encoder1.encoder_block[0].weight)
    seen = []
    first = trainer.module.encoder1.encoder_block[0]
    hook = first.register_forward_hook(lambda module, inputs, out: seen.append(out.float()))
    trainer.calibrate()
    hook.remove()
    assert torch.equal(first.weight, weights)
    measured = trainer.module.encoder1.encoder_block[1]
    expected = torch.stack([out.mean((0, 2, 3, 4)) for out in seen]).mean(0)
    torch.testing.assert_close(measured.running_mean, expected, rtol=0.02, atol=1e-3)
    assert measured.momentum == loop.MOMENTUM
    for key, value in trainer.average.state_dict().items():
        assert torch.equal(value, trainer.module.state_dict()[key])


def test_training_lowers_the_loss(head):
    trainer = make(head, replace(RECIPE, steps=60, warmup=5, learning_rate=1e-2, ema=0.8))
    losses = [trainer.advance() for _ in range(60)]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_run_keeps_and_saves(tmp_path, head):
    trainer = make(head, replace(RECIPE, steps=6))
    kept = []
    state = tmp_path / "state.pt"
    loop.run(trainer, state, lambda step, net: kept.append((step, net)), (2, 5), save_every=4)
    assert [step for step, _ in kept] == [2, 5, 6]
    assert all(net is trainer.average for _, net in kept)
    again = make(head)
    again.load(state)
    assert again.step == 6
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]
