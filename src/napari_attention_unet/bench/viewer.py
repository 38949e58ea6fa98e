"""Speed inside napari with a viewer open, and how long its event loop has to wait.

The viewer is a process of its own that is only started from here (`_qt.bench`): nothing below the
panel imports Qt.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from statistics import median
from typing import Any

import torch

from napari_attention_unet.models import ModelCard, save_checkpoint
from napari_attention_unet.prediction import Step
from napari_attention_unet.volume import Shape3

from .children import CHILD, BenchError, run_child
from .how import How
from .networks import network
from .results import Row, Timing

SPEED, GAPS = "viewer-speed", "viewer-gaps"
AIMS = {SPEED: "≥ 0.88×", GAPS: "≤ 25 ms"}
_VIEWER = "napari_attention_unet._qt.bench"
_SIZE: Shape3 = (256, 192, 192)
_SCREEN = "-screen 0 1280x800x24"


def steps(how: How) -> Generator[Step, None, list[Row]]:
    """The same run without and with a viewer, by turns, each in a fresh process, both warm."""
    size = how.size or _SIZE
    wrapper = _screen()
    bare: list[float] = []
    shown: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = save_checkpoint(Path(folder) / "blog16.safetensors", network("blog16"), _card())
        job = {"checkpoint": str(path), "size": size, "threads": torch.get_num_threads()}
        for index in range(how.repeats):
            yield Step(2 * index, 2 * how.repeats, "without a viewer")
            bare.append(run_child(CHILD, {"job": "headless", **job})["seconds"])
            yield Step(2 * index + 1, 2 * how.repeats, "in the panel of an open viewer")
            shown.append(run_child(_VIEWER, {"job": "viewer", **job}, wrapper))
    without, within = Timing(tuple(bare)), Timing(tuple(run["seconds"] for run in shown))
    reached = without.median / within.median
    title = f"blog16, {'×'.join(map(str, size))}, auto precision, in the panel of an open viewer"
    details = {"headless": bare, "viewer": shown, "screen": list(wrapper)}
    speed = (
        f"{reached:.2f}×: {within.median:.3g} s ({within.spread}) against "
        f"{without.median:.3g} s ({without.spread})"
    )
    p50, p99, longest = (median(r[part] for r in shown) for part in ("p50", "p99", "longest"))
    gaps = (
        f"p99 {p99:.1f} ms, p50 {p50:.1f} ms, longest {longest:.0f} ms "
        f"(medians of {how.repeats} runs; between ticks of a timer of 5 ms)"
    )
    return [
        Row(SPEED, f"{title}: speed of that without", AIMS[SPEED], reached, speed, details),
        Row(GAPS, f"{title}: gaps of the event loop, p99 in ms", AIMS[GAPS], p99, gaps, details),
    ]


def _card() -> ModelCard:
    return ModelCard(
        name="blog16",
        architecture="AttentionUNet3D",
        arguments={"in_channels": 1, "out_channels": 2, "widths": [16, 32, 64, 128]},
    )


def _screen() -> list[str]:
    """What makes a screen where there is none."""
    if sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        return []
    runner = shutil.which("xvfb-run")
    if runner is None:
        raise BenchError("There is no display, and no xvfb-run to make a virtual one.")
    return [runner, "-a", "-s", _SCREEN]
