"""What opening a checkpoint gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_attention_unet.volume import Shape3

from .card import ModelCard

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class OptionValue:
    """An option of a checkpoint's network, and what it is set to.

    Attributes
    ----------
    name : str
        Keyword of `load_model`.
    kind : str
        ``"choice"`` (one of `choices`), ``"integer"``, ``"integers"`` (a row of them, or rows
        within a row) or ``"text"``.
    choices : tuple
        Allowed values; empty where `kind` is not ``"choice"``.
    value, default : object
        What is used, and what is taken where nobody says anything.
    stated : bool
        Whether the caller, the card or the file said it; otherwise it is assumed.
    help : str
        What taking the default means.
    """

    name: str
    kind: str
    choices: tuple[Any, ...]
    value: Any
    default: Any
    stated: bool
    help: str


@dataclass(frozen=True)
class Request:
    """What the caller says of a checkpoint; see `model.load_model`.

    Attributes
    ----------
    trust : bool
        Whether code of the checkpoint may run.
    architecture : str
        ``"package.module:Class"`` of the network; empty if the tensors are to tell.
    arguments : dict
        Keyword arguments of that class.
    weights : str or None
        ``"trained"`` or ``"ema"``.
    extent : tuple of int or None
        One extent (z, y, x) that the network takes.
    stated : frozenset of str
        Fields of the card that the caller states.
    options : dict
        What names and shapes of the tensors do not say.
    """

    trust: bool = False
    architecture: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    weights: str | None = None
    extent: Shape3 | None = None
    stated: frozenset[str] = frozenset()
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Opened:
    """A checkpoint that was opened.

    Attributes
    ----------
    module : nn.Module
        The network, in float32 on the CPU and in evaluation mode.
    card : ModelCard
        What is known of it, with all that was assumed listed in ``assumptions``.
    sha256 : str
        Of the content, of all files of a folder; hexadecimal.
    options : tuple of OptionValue
        What the file does not say, in the order in which to ask for it.
    code : str
        What ran of it with the user's yes, e.g. ``"a TorchScript program"``; empty if nothing.
    extent : tuple of int or None
        One extent (z, y, x) that the network is known to take; None if none is.
    assumed : frozenset of str
        Fields of the card that nobody stated. What the network itself tells of ``"in_channels"``
        and ``"activation"`` wins over them.
    """

    module: nn.Module
    card: ModelCard
    sha256: str
    options: tuple[OptionValue, ...] = ()
    code: str = ""
    extent: Shape3 | None = None
    assumed: frozenset[str] = frozenset()
