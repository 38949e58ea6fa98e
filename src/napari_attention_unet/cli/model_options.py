"""Options that say how a checkpoint is read, the same for every command that takes a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_attention_unet.errors import InputError

if TYPE_CHECKING:
    from napari_attention_unet.model import Model
    from napari_attention_unet.models import ClassInfo

Trust = Annotated[
    bool,
    typer.Option("--trust", help="Run code of the checkpoint, if it holds or asks for any."),
]
Architecture = Annotated[
    str | None,
    typer.Option(metavar="PACKAGE.MODULE:CLASS", help="The network's class, where it is unknown."),
]
Arguments = Annotated[
    list[str] | None,
    typer.Option("--argument", metavar="KEY=VALUE", help="Of that class; can be repeated."),
]
Options = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="KEY=VALUE",
        help="What the checkpoint does not say, such as align_corners=yes, strides=2,2,1, "
        "activation=sigmoid or classes=liver,spleen; can be repeated.",
    ),
]


def load(
    model: str,
    trust: bool = False,
    architecture: str | None = None,
    arguments: Sequence[str] | None = None,
    options: Sequence[str] | None = None,
) -> Model:
    """The model that these options say.

    Raises
    ------
    InputError
        If one of them is not written as ``key=value``.
    CheckpointError
        If it cannot be opened; `TrustRequired` if it needs `trust`.
    """
    from napari_attention_unet.model import load_model

    return load_model(model, **keywords_of(trust, architecture, arguments, options))


def keywords_of(
    trust: bool = False,
    architecture: str | None = None,
    arguments: Sequence[str] | None = None,
    options: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Keywords of `load_model` that these options say.

    Raises
    ------
    InputError
        If one of them is not written as ``key=value``.
    """
    keywords = _card_fields(_pairs("--option", options or ()))
    if architecture is not None:
        keywords["architecture"] = architecture
    if arguments:
        keywords["arguments"] = _pairs("--argument", arguments)
    if trust:
        keywords["trust"] = True
    return keywords


def _pairs(option: str, texts: Sequence[str]) -> dict[str, Any]:
    from napari_attention_unet.models.option_text import from_text

    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise InputError(f"{option} is '{text}'; key=value is needed, such as groups=8.")
        found[key.strip()] = from_text(value)
    return found


def _card_fields(keywords: dict[str, Any]) -> dict[str, Any]:
    """Fields of the card that are more than a number or a word."""
    from napari_attention_unet.models.card_options import normalization_of

    if "normalization" in keywords:
        keywords["normalization"] = normalization_of(keywords["normalization"])
    if isinstance(keywords.get("classes"), str):
        keywords["classes"] = _classes(keywords["classes"].split(","))
    return keywords


def _classes(names: Sequence[str]) -> tuple[ClassInfo, ...]:
    """The background, and these classes in well-separated colours."""
    from dataclasses import replace

    from napari_attention_unet.models import default_classes

    background, *others = default_classes(len(names) + 1)
    return background, *(
        replace(made, name=name.strip()) for made, name in zip(others, names, strict=True)
    )
