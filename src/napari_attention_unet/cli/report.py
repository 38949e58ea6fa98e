"""`report`: one HTML page about a result, with pictures, measures and where it came from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_attention_unet.errors import InputError

from .model_options import Architecture, Arguments, Options, Trust, load
from .results import Results, run_results, saved_results
from .run_options import (
    DeviceName,
    Memory,
    ModelName,
    Precision,
    Spacing,
    labels_like,
    settings_of,
)
from .tables import follow

if TYPE_CHECKING:
    from napari_attention_unet.model import Model
    from napari_attention_unet.prediction import Prediction


def report(
    source: Annotated[
        Path, typer.Argument(metavar="RESULT|VOLUME", help="A folder of results, or a volume.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page to write.")] = Path(
        "report.html"
    ),
    ablation: Annotated[
        bool, typer.Option("--ablation", help="Run again with each gate closed, open and level.")
    ] = False,
    reference: Annotated[
        Path | None, typer.Option(help="Labels that are right, on the volume's grid.")
    ] = None,
    checkpoints: Annotated[
        Path | None,
        typer.Option("--history", help="A folder of checkpoints of the training, to be run too."),
    ] = None,
    model: ModelName = "brain-t1",
    device: DeviceName = "auto",
    precision: Precision = "auto",
    memory: Memory = None,
    spacing: Spacing = None,
    trust: Trust = False,
    architecture: Architecture = None,
    arguments: Arguments = None,
    options: Options = None,
) -> None:
    """Write a page with every gate over the image, measures, plots and provenance.

    It is a single file that fetches nothing, to be opened in any browser, sent or printed. A
    folder of results is reported as it is; a volume is run first. Prints where the page is.
    """
    from napari_attention_unet import io
    from napari_attention_unet.inspect.report import Extras, report_steps, save_report

    settings = settings_of(device, precision, memory, spacing)
    saved = io.is_result(source)
    loaded = None
    if ablation or not saved:
        loaded = load(model, trust, architecture, arguments, options)
    found = saved_results(source) if saved else run_results(_there(loaded), source, settings)
    first, image = found.predictions[0], found.images[0]
    extras: dict[str, Any] = {}
    if reference is not None:
        extras["reference"] = _compared(first, reference)
    if ablation:
        extras["ablation"] = _ablation(_there(loaded), found, settings)
    if checkpoints is not None:
        extras["history"] = _history(checkpoints, found, settings)
    if loaded is not None:
        extras["about_model"] = _about(loaded)
    page = follow(report_steps(found.predictions, image, Extras(**extras)), "report")
    typer.echo(save_report(page, output))


def _compared(prediction: Prediction, reference: Path) -> Any:
    import numpy as np

    from napari_attention_unet.inspect.reference import compare_with_reference

    labels = np.asarray(labels_like(reference, prediction.volume))
    return compare_with_reference(prediction, labels)


def _ablation(model: Model, found: Results, settings: Any) -> Any:
    from napari_attention_unet.inspect.ablation import ablation_steps
    from napari_attention_unet.inspect.baseline import baseline_steps

    made_by = found.predictions[0].provenance.get("sha256")
    if made_by and model.sha256 and made_by != model.sha256:
        raise InputError(
            f"The result was made by another model than '{model.name}'. Name the one that made it "
            "with --model, or leave --ablation out."
        )
    baseline = follow(baseline_steps(model, _image(found), settings), "as computed")
    return follow(ablation_steps(baseline), "ablation")


def _history(checkpoints: Path, found: Results, settings: Any) -> Any:
    from napari_attention_unet.inspect.history import history_steps

    return follow(history_steps(checkpoints, _image(found), settings), "history").measures


def _image(found: Results) -> Any:
    if found.images[0] is None:
        raise InputError(
            "The volume of this result is no longer where it was, so it cannot be run again. Give "
            "the volume itself in place of the folder."
        )
    return found.images[0]


def _there(model: Model | None) -> Model:
    assert model is not None
    return model


def _about(model: Model) -> dict[str, str]:
    """What a card says to people."""
    card = model.card
    said = {
        "About the model": card.description,
        "Trained on": card.training_data,
        "Its limits": card.limits,
        "Its licence": card.licence,
    }
    return {term: text for term, text in said.items() if text}
