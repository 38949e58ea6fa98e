from __future__ import annotations

import json

import pytest

from napari_attention_unet._qt import choices as kept
from napari_attention_unet._qt.choices import Choices


@pytest.fixture(autouse=True)
def _own_settings(qapp):
    """The checks of every test keep Qt's settings in a folder of the test."""


def test_defaults_where_nothing_is_kept():
    assert kept.load() == Choices()


def test_choices_come_back():
    made = Choices(
        model="/a/b.pth",
        recent=["/a/b.pth"],
        window=[-100.0, 300.0],
        slab=7,
        mask=False,
        memory=2.5,
    )
    kept.save(made)
    assert kept.load() == made


@pytest.mark.parametrize("text", ["not json", "[1, 2]", "null", '{"unknown": 1}'])
def test_what_cannot_be_read_is_left_aside(text):
    kept._store().setValue(kept._KEY, text)
    assert kept.load() == Choices()


def test_values_of_another_type_are_left_aside():
    kept._store().setValue(kept._KEY, json.dumps({"slab": "thick", "mask": 1, "plan": "tiles"}))
    assert kept.load() == Choices(plan="tiles")
