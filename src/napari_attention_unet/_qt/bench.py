"""The panel in an open viewer, measured: ``python -m napari_attention_unet._qt.bench JOB``.

Started by the benchmark's case ``viewer`` as a process of its own.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import numpy as np
from qtpy.QtCore import QEventLoop, QSettings, Qt, QTimer
from qtpy.QtWidgets import QAbstractButton

from napari_attention_unet.bench.children import BenchError, serve

from .demo import PANEL, PLUGIN

#: Milliseconds between ticks of the timer whose delays are measured.
_TICK = 5
#: Milliseconds after the answer in which the results are drawn.
_SETTLE = 300
#: Seconds after which the panel is taken to be stuck.
_PATIENCE = 600


class Ticks:
    """How regularly the event loop comes round."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(lambda: self._times.append(perf_counter()))

    def start(self) -> None:
        """Begin anew."""
        self._times.clear()
        self._timer.start(_TICK)

    def stop(self) -> dict[str, float]:
        """Milliseconds between two ticks: median, 99th percentile and longest."""
        self._timer.stop()
        gaps = 1000 * np.diff(self._times)
        p50, p99 = np.percentile(gaps, (50, 99))
        return {"p50": float(p50), "p99": float(p99), "longest": float(gaps.max())}


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Run a checkpoint over noise in the panel, twice; the second time is measured.

    Parameters
    ----------
    job : dict
        ``"checkpoint"``, ``"size"`` (z, y, x) and ``"threads"``.

    Returns
    -------
    dict
        ``"seconds"`` as the prediction tells them, ``"shown"`` seconds from the click to the answer
        on the GUI thread, and what `Ticks.stop` gives from the click until the results are drawn.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        # the person's own choices and settings are neither read nor changed
        QSettings.setPath(QSettings.Format.IniFormat, QSettings.Scope.UserScope, folder)
        os.environ["NAPARI_CONFIG"] = str(Path(folder) / "napari.yaml")
        import napari
        import torch

        from napari_attention_unet.bench.networks import noise

        from .choices import Choices, save

        torch.set_num_threads(job["threads"])
        save(Choices(model=job["checkpoint"], recent=[job["checkpoint"]]))
        viewer = napari.Viewer()
        try:
            viewer.add_image(noise(job["size"]), name="noise", contrast_limits=(-3, 3))
            _dock, panel = viewer.window.add_plugin_dock_widget(PLUGIN, PANEL)
            _run(panel)
            return _run(panel)
        finally:
            viewer.close()


def _run(panel: Any) -> dict[str, Any]:
    button = panel.findChild(QAbstractButton, "run")
    end = monotonic() + _PATIENCE
    while not button.isEnabled():
        if monotonic() > end:
            raise BenchError("Run was never enabled.")
        _serve_events(50)
    ticks, answers = Ticks(), list[Any]()
    panel.controller.runner.answered.connect(answers.append)
    ticks.start()
    start = perf_counter()
    button.click()
    _serve_events(1000 * _PATIENCE, panel.controller.runner.answered)
    shown = perf_counter() - start
    panel.controller.runner.answered.disconnect(answers.append)
    _serve_events(_SETTLE)
    gaps = ticks.stop()
    if not answers:
        raise BenchError("The run did not end.")
    (answer,) = answers
    if not answer.predictions:
        raise BenchError(f"The run in the panel failed: {answer.error}")
    told = answer.predictions[0].provenance
    return {"seconds": told["seconds"]["total"], "shown": shown, "plan": told["plan"], **gaps}


def _serve_events(milliseconds: int, until: Any = None) -> None:
    """Serve events for a while, or until a signal comes."""
    loop = QEventLoop()
    if until is not None:
        until.connect(loop.quit)
    QTimer.singleShot(milliseconds, loop.quit)
    loop.exec()


if __name__ == "__main__":
    serve({"viewer": measure})
