"""The scripts of the gallery run, and their pictures show something."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

SCRIPTS = sorted((Path(__file__).parents[1] / "docs" / "gallery").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_writes_its_picture(script, tmp_path, monkeypatch):
    picture = tmp_path / "picture.png"
    monkeypatch.setattr(sys, "argv", [str(script), str(picture)])
    runpy.run_path(str(script), run_name="__main__")
    pixels = imread(picture)[..., :3]
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
