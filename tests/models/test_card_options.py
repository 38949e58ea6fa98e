"""Activation and normalisation: assumed until somebody says them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from napari_attention_unet.errors import InputError
from napari_attention_unet.models import ModelCard, Normalization
from napari_attention_unet.models.card_options import (
    card_options,
    normalization_name,
    normalization_of,
)
from napari_attention_unet.models.guess import (
    Known,
    assumption_about,
    guessed_card,
    without_stated,
)
from napari_attention_unet.models.option_text import from_text, to_text


def test_what_was_guessed_is_assumed_and_what_a_card_says_is_stated():
    guessed, _fields = guessed_card(Known("x", "X", activation="softmax"), ())
    activation, normalization = card_options(guessed, 3)
    assert not activation.stated
    assert not normalization.stated
    assert activation.help in guessed.assumptions
    assert normalization.help in guessed.assumptions
    assert [o.stated for o in card_options(ModelCard("x", "X"), 3)] == [True, True]


@pytest.mark.parametrize("stated", ["activation", "normalization"])
def test_what_is_stated_is_no_longer_assumed_and_nothing_else(stated: str):
    guessed, _fields = guessed_card(Known("x", "X", activation="sigmoid"), ())
    left = without_stated(guessed.assumptions, {stated})
    assert [a for a in guessed.assumptions if a not in left] == [
        assumption_about(stated, guessed.assumptions)
    ]
    again = card_options(replace(guessed, assumptions=left), 1)
    assert {o.name: o.stated for o in again}[stated]
    assert sum(o.stated for o in again) == 1


def test_the_default_is_what_is_taken_where_nobody_says_anything():
    assert card_options(ModelCard("x", "X"), 1)[0].default == "sigmoid"
    assert card_options(ModelCard("x", "X"), 4)[0].default == "softmax"


@pytest.mark.parametrize(
    "normalization",
    [
        Normalization(),
        Normalization("zscore", nonzero=True),
        Normalization("percentile"),
        Normalization("minmax"),
        Normalization("none"),
    ],
)
def test_every_choice_is_a_normalization_that_has_its_name(normalization: Normalization):
    card = ModelCard("x", "X", normalization=normalization)
    option = card_options(card, 2)[1]
    assert option.value == normalization_name(normalization)
    assert option.value in option.choices
    assert normalization_of(option.value) == normalization
    for choice in option.choices:
        assert normalization_name(normalization_of(choice)) == choice


def test_a_window_is_two_numbers():
    assert normalization_of((-100, 240)) == Normalization("window", -100, 240)
    card = ModelCard("x", "X", normalization=Normalization("window", 0, 5))
    assert card_options(card, 2)[1].value in card_options(card, 2)[1].choices


@pytest.mark.parametrize("value", ["window", "zcore", "", 3, (1, 2, 3)])
def test_what_is_no_normalization_is_refused_with_what_would_work(value: object):
    with pytest.raises(InputError, match="zscore"):
        normalization_of(value)


@pytest.mark.parametrize("value", [True, 8, (2, 2, 1), (2,), ((1, 2, 2), (2, 2, 2)), "nearest"])
def test_what_is_written_is_read_back(value: object):
    assert from_text(to_text(value)) == value
