"""The training loop: seeded, resumable, and able to be cooled down at any time."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from . import augment
from .augment import Canvas
from .loss import segmentation_loss

logger = logging.getLogger(__name__)

#: Of the running statistics of batch normalisation: those of single cubes are noisy.
MOMENTUM = 0.02
#: Views over which the statistics are measured at last.
CALIBRATION = 48


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run.

    Attributes
    ----------
    steps : int
        Steps in all. A run that stopped may be resumed with fewer or more.
    cooldown : float
        Share of the steps, at the end, over which the learning rate falls to zero.
    learning_rate, weight_decay : float
        Of AdamW.
    settle : float
        Share of the cool-down, at its end, in which batch normalisation keeps fixed statistics,
        so that the weights settle to what prediction uses.
    warmup : int
        Steps over which the learning rate rises.
    patch : int
        Edge of the training cubes, in voxels.
    voxel_size : float
        In mm.
    ema : float
        Decay of the moving average of the weights.
    seed : int
        Of the weights, and with the step number of each step's view.
    """

    steps: int = 2300
    cooldown: float = 0.3
    settle: float = 0.65
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    warmup: int = 100
    patch: int = 96
    voxel_size: float = 1.5
    ema: float = 0.995
    seed: int = 0


def learning_rate(step: int, recipe: Recipe) -> float:
    """Rises, stays, and falls linearly to zero: a function of the step alone."""
    rise = min(1.0, (step + 1) / recipe.warmup)
    fall = min(1.0, (recipe.steps - step) / max(1.0, recipe.cooldown * recipe.steps))
    return recipe.learning_rate * min(rise, fall)


def settling_start(recipe: Recipe) -> int:
    """First step with fixed statistics of batch normalisation."""
    return round(recipe.steps * (1 - recipe.cooldown * recipe.settle))


class Trainer:
    """A network, its moving average and its optimiser, taken one step at a time.

    Parameters
    ----------
    module : nn.Module
        The network; it returns logits of 4 classes.
    canvases : sequence of Canvas
        The training heads.
    weights : sequence of float
        How often each head is seen, relative to the others.
    recipe : Recipe
        The rest.
    """

    def __init__(
        self,
        module: nn.Module,
        canvases: Sequence[Canvas],
        weights: Sequence[float],
        recipe: Recipe,
    ) -> None:
        for layer in _normalisations(module):
            layer.momentum = MOMENTUM
        # Without channels_last_3d a step takes several times longer on a CPU.
        self.module = module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.module).eval()
        self.canvases = list(canvases)
        self.weights = torch.tensor(weights)
        self.recipe = recipe
        self.optimizer = torch.optim.AdamW(
            module.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.step = 0

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """The cube and target of a step, shapes (1, 1, n, n, n) and (1, n, n, n)."""
        recipe = self.recipe
        rng = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        canvas = self.canvases[int(torch.multinomial(self.weights, 1, generator=rng))]
        image, target = augment.view(canvas, recipe.voxel_size, rng)
        image, target = augment.patch(image, target, recipe.patch, 16, rng)
        return image[None, None].contiguous(memory_format=torch.channels_last_3d), target[None]

    def advance(self) -> float:
        """Take one step; returns its loss."""
        recipe, step = self.recipe, self.step
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe)
        self.module.train()
        if step == settling_start(recipe):
            self.calibrate()
        if step >= settling_start(recipe):
            for layer in _normalisations(self.module):
                layer.eval()
        image, target = self.batch(step)
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.module(image)
        loss = segmentation_loss(logits, target)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.module.parameters(), 5.0)
        self.optimizer.step()
        self._average(min(recipe.ema, (step + 1) / (step + 10)))
        self.step += 1
        return loss.item()

    @torch.no_grad()
    def calibrate(self) -> None:
        """Take the averaged weights over, and measure batch normalisation's statistics for them.

        Running statistics lag behind weights that move: at the full learning rate they belong to
        another network.
        """
        self.module.load_state_dict(self.average.state_dict())
        self.module.train()
        for layer in _normalisations(self.module):
            layer.reset_running_stats()
            layer.momentum = None  # the plain mean over all batches
        for number in range(CALIBRATION):
            image, _ = self.batch(-1 - number)  # views that no step sees
            with torch.autocast("cpu", torch.bfloat16):
                self.module(image)
        for layer in _normalisations(self.module):
            layer.momentum = MOMENTUM
        self.average.load_state_dict(self.module.state_dict())

    @torch.no_grad()
    def _average(self, decay: float) -> None:
        new = self.module.state_dict()
        for key, value in self.average.state_dict().items():
            if value.is_floating_point():
                value.lerp_(new[key], 1 - decay)
            else:
                value.copy_(new[key])

    def save(self, path: Path) -> None:
        """Write all that is needed to go on, replacing the file only once it is whole."""
        part = path.with_suffix(".part")
        torch.save(
            {
                "step": self.step,
                "module": self.module.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            },
            part,
        )
        part.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a file that `save` wrote."""
        state = torch.load(path, weights_only=True)
        self.module.load_state_dict(state["module"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = int(state["step"])


def _normalisations(module: nn.Module) -> list[nn.BatchNorm3d]:
    return [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm3d)]


def run(
    trainer: Trainer,
    state: Path,
    keep: Callable[[int, nn.Module], None],
    kept_steps: Sequence[int],
    save_every: int = 50,
) -> None:
    """Train to the end, saving on the way.

    Parameters
    ----------
    trainer : Trainer
        Goes on from its own step.
    state : Path
        File from which an interrupted run resumes.
    keep : callable
        Called with the step number and the averaged network at each of `kept_steps`, at each
        multiple of 1000, and at the end.
    kept_steps : sequence of int
        Early steps worth keeping.
    save_every : int
        Steps between two writes of `state`.
    """
    began, losses = time.perf_counter(), []
    while trainer.step < trainer.recipe.steps:
        losses.append(trainer.advance())
        step = trainer.step
        if step % 20 == 0:
            seconds = (time.perf_counter() - began) / len(losses)
            mean = sum(losses[-20:]) / len(losses[-20:])
            logger.info(
                "step %d of %d  loss %.3f  %.2f s a step", step, trainer.recipe.steps, mean, seconds
            )
        if step in kept_steps or step % 1000 == 0 or step == trainer.recipe.steps:
            keep(step, trainer.average)
        if step % save_every == 0 or step == trainer.recipe.steps:
            trainer.save(state)
