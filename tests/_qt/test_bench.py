"""The measurement inside a viewer, as the benchmark starts it: in a process of its own."""

from __future__ import annotations

import numpy as np
import pytest

from napari_attention_unet.bench import viewer
from napari_attention_unet.bench.how import How
from napari_attention_unet.graph.lower import finished


@pytest.mark.slow
def test_the_panel_runs_and_its_event_loop_is_watched():
    speed, gaps = finished(viewer.steps(How(size=(32, 48, 32), repeats=1)))
    (run,) = speed.details["viewer"]
    assert speed.reached == pytest.approx(speed.details["headless"][0] / run["seconds"])
    assert 0 < run["seconds"] < run["shown"]
    # a timer of 5 ms does not come sooner, give or take
    assert 3 < run["p50"] <= run["p99"] <= run["longest"]
    assert gaps.reached == run["p99"]


def test_ticks_see_what_blocks_the_loop(qtbot):
    from time import sleep

    from napari_attention_unet._qt.bench import Ticks, _serve_events

    ticks = Ticks()
    ticks.start()
    _serve_events(300)
    sleep(0.2)
    _serve_events(100)
    found = ticks.stop()
    assert found["longest"] > 190
    assert found["p50"] < 60
    assert np.isfinite(found["p99"])
