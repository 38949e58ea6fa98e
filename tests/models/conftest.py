"""Nothing is trusted or remembered from one test to the next."""

from __future__ import annotations

import shutil

import pytest

from napari_attention_unet.models.trust import trust_file


@pytest.fixture(autouse=True)
def nothing_remembered():
    yield
    shutil.rmtree(trust_file().parent, ignore_errors=True)
