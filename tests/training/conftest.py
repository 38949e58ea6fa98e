"""Heads to train on in tests."""

from __future__ import annotations

import pytest
from made_up_head import ball_head

from napari_attention_unet.training.heads import Head


@pytest.fixture(scope="session")
def head() -> Head:
    return ball_head()


@pytest.fixture(scope="session")
def brain_only() -> Head:
    return ball_head(tissues=False, name="brain only")
