"""From the tensors of a checkpoint to a network that is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from napari_attention_unet.errors import CheckpointError

from .card import ModelCard, default_classes
from .families import AXES, Built, Option
from .guess import Known, guessed_card
from .opened import Opened, OptionValue, Request
from .recognise import recognise
from .wrappers import CHOICES, TRAINED, Contents

#: Arguments of a card that concern its file rather than the network, which is loaded already.
OF_THE_FILE = ("axes", "weights")


def open_tensors(
    contents: Contents, package: Known, digest: str, card: ModelCard | None, request: Request
) -> Opened | None:
    """Rebuild the network that tensors belong to, and load them; None if it is not known.

    Parameters
    ----------
    contents : Contents
        Tensors, and what else the file says.
    package : Known
        Name, and what comes with the file.
    digest : str
        Of the content.
    card : ModelCard or None
        What was saved of it before.
    request : Request
        What the caller says; its options win over the card's, those over the file's.

    Raises
    ------
    CheckpointError
        If it is a known network whose tensors differ, or an option is not one of it.
    """
    found = recognise(contents.state)
    if found is None:
        return None
    asked = (*found.family.options, AXES)
    told = {**contents.told, **(card.arguments if card is not None else {})}
    stated = {o.name: told[o.name] for o in asked if _fits(o, told.get(o.name))}
    built = found.family.build(found.state, contents.modules, **{**stated, **request.options})
    notes = [*built.assumptions, *contents.notes]
    if found.left:
        notes.append(
            f"{len(found.left)} tensors beside the network were left out: {found.left[0]}, ..."
        )
    options = _options(contents, request, built, asked, {**stated, **request.options})
    said = {o.name: o.value for o in options if o.name in {*request.options, "weights"}}
    if request.weights is None:
        said.pop("weights", None)
    if card is not None:
        # What was said since is no longer assumed, and what is assumed stays so until then.
        moot = {o.help for o in options if o.stated and o.name in request.options}
        kept = tuple(s for s in card.assumptions if s not in moot)
        made = replace(card, arguments={**card.arguments, **said}, assumptions=kept)
        return Opened(built.module, made, digest, options)
    facts = {**package.facts, **contents.facts, "in_channels": built.in_channels}
    named = facts.get("classes", ())
    if named and len(named) not in (built.out_channels, built.out_channels + 1):
        del facts["classes"]
    known = replace(
        package,
        architecture=built.family,
        arguments={**built.arguments, **built.options, **said},
        activation=built.activation,
        facts=facts,
        notes=(*package.notes, *notes),
    )
    made, assumed = guessed_card(known, request.stated)
    made = replace(made, classes=made.classes or default_classes(max(2, built.out_channels)))
    # here the family knows the output's activation
    return Opened(built.module, made, digest, options, assumed=assumed - {"activation"})


def _options(
    contents: Contents,
    request: Request,
    built: Built,
    asked: tuple[Option, ...],
    stated: dict[str, Any],
) -> tuple[OptionValue, ...]:
    """Every question that there is for this network, and its answer."""
    found = []
    if contents.weights:
        found.append(
            OptionValue(
                *("weights", "choice", CHOICES, contents.weights, CHOICES[0]),
                stated=request.weights is not None,
                help=TRAINED,
            )
        )
    values = {**built.options, AXES.name: stated.get(AXES.name) or AXES.default}
    for option in asked:
        if option.name not in values:
            continue  # not a question for these arguments
        default = option.default
        default = default(built.arguments) if callable(default) else default
        found.append(
            OptionValue(
                option.name,
                _kind(option, default),
                option.choices,
                values[option.name],
                default,
                stated=option.assumption not in built.assumptions,
                help=option.assumption,
            )
        )
    return tuple(found)


def _kind(option: Option, default: Any) -> str:
    if option.choices:
        return "choice"
    if isinstance(default, list | tuple):
        return "integers"
    return "integer" if isinstance(default, int) else "text"


def _fits(option: Option, value: Any) -> bool:
    """Whether a file's value can be one of an option; a hyper-parameter may only sound like it."""
    if value is None:
        return False
    if option.choices:
        return value in option.choices
    if callable(option.default) or isinstance(option.default, tuple):
        return isinstance(value, int | list | tuple)
    return isinstance(value, type(option.default))


def unknown(contents: Contents, name: str) -> CheckpointError:
    """The error for a network that is not known: what it is most like, and what would work."""
    from .families import FAMILIES
    from .recognise import nearest

    names = ", ".join(family.name for family in FAMILIES)
    some = ", ".join(list(contents.state)[:3])
    return CheckpointError(
        f"'{name}' holds {len(contents.state)} tensors of a network that is not known; the first "
        f"are {some}. Known networks: {names}. {nearest(contents.state)} If you have its Python "
        "class, name it: architecture='package.module:Class', with arguments={...}."
    )
