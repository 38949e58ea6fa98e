"""Fields of the card that a checkpoint seldom says, as options beside those of its network."""

from __future__ import annotations

from typing import Any

from napari_attention_unet.errors import InputError

from .card import ACTIVATIONS, NORMALIZATIONS, ModelCard, Normalization
from .guess import assumption_about
from .opened import OptionValue

_NONZERO = "-nonzero"
_ACTIVATION = "What makes probabilities of the output; 'none' if the network ends in it itself."
_NORMALIZATION = (
    "How intensities are brought to the network's range; '-nonzero' takes statistics over non-zero "
    "voxels alone."
)


def card_options(card: ModelCard, out_channels: int) -> tuple[OptionValue, ...]:
    """The activation of the output and the normalisation of the input, as options."""
    names = [kind for kind in NORMALIZATIONS if kind != "window"]  # needs two numbers
    names.insert(1, f"zscore{_NONZERO}")
    value = normalization_name(card.normalization)
    made = []
    for name, choices, now, default, tip in (
        (
            "activation",
            ACTIVATIONS,
            card.activation,
            "softmax" if out_channels > 1 else "sigmoid",
            _ACTIVATION,
        ),
        ("normalization", tuple(dict.fromkeys([*names, value])), value, "zscore", _NORMALIZATION),
    ):
        assumption = assumption_about(name, card.assumptions)
        stated = not assumption
        made.append(OptionValue(name, "choice", choices, now, default, stated, assumption or tip))
    return tuple(made)


def normalization_name(normalization: Normalization) -> str:
    """``"zscore"``, ``"zscore-nonzero"``, ``"percentile"``, ...: as `normalization_of` takes it."""
    return normalization.kind + (_NONZERO if normalization.nonzero else "")


def normalization_of(value: Any) -> Normalization:
    """A normalisation by its name, or by the two intensities that become 0 and 1.

    Raises
    ------
    InputError
        If it is neither.
    """
    if isinstance(value, Normalization):
        return value
    if isinstance(value, tuple | list) and len(value) == 2:
        return Normalization("window", float(value[0]), float(value[1]))
    kind = str(value).removesuffix(_NONZERO)
    if kind not in NORMALIZATIONS or kind == "window":
        known = [kind for kind in NORMALIZATIONS if kind != "window"]
        raise InputError(
            f"normalization={value} is not known; {', '.join(known)} are, each also with "
            f"'{_NONZERO}', and two intensities that become 0 and 1, such as -100,240."
        )
    return Normalization(kind, nonzero=str(value).endswith(_NONZERO))
