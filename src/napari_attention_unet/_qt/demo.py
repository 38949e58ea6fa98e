"""The demonstration: napari on the bundled volume, with the bundled model already run."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from qtpy.QtCore import QEventLoop, QSettings, QTimer

from napari_attention_unet.errors import AttentionUNetError
from napari_attention_unet.io import save
from napari_attention_unet.prediction import Prediction

from .models import ModelFacts
from .request import Answer

PLUGIN, SAMPLE, PANEL = "napari-attention-unet", "t1-head", "Attention U-Net"
#: Pictures of the viewer, one a theme of napari.
SCREENSHOTS = {"dark": "viewer.png", "light": "viewer-light.png"}
_SIZE = 1280, 800
#: Milliseconds in which a new window gets its layout and its first drawing.
_SETTLE = 1500


def run_demo(output: Path | None) -> Prediction | None:
    """Open napari on the bundled volume, dock the panel and press Run.

    The panel starts with its default choices; the person's own are neither read nor changed.

    Parameters
    ----------
    output : Path or None
        Folder for the results (in a folder of the volume's name) and screenshots of the viewer,
        ``viewer.png`` and, in napari's light theme, ``viewer-light.png``; napari closes when they
        are written. None leaves napari to the person.

    Returns
    -------
    Prediction or None
        None if the person closed napari before the run was done.

    Raises
    ------
    AttentionUNetError
        If the run fails and nobody is there to read it in the panel.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        ini, user = QSettings.Format.IniFormat, QSettings.Scope.UserScope
        QSettings.setPath(ini, user, folder)
        if output is not None:  # nobody's window: it leaves no size and place behind
            os.environ["NAPARI_CONFIG"] = str(Path(folder) / "napari.yaml")
        import napari

        viewer = napari.Viewer()
        viewer.window.resize(*_SIZE)
        viewer.open_sample(PLUGIN, SAMPLE)
        _dock, panel = viewer.window.add_plugin_dock_widget(PLUGIN, PANEL)
        answers: list[Answer] = []
        panel.controller.runner.answered.connect(answers.append)
        _run_when_ready(panel)
        if output is None:
            napari.run()
        else:
            _wait_for(panel.controller.runner.answered)
            try:
                _write(viewer, answers[0], output)
            finally:
                viewer.close()
    return answers[0].predictions[0] if answers and answers[0].predictions else None


def _run_when_ready(panel: Any) -> None:
    """Press Run as soon as the panel has read the model."""
    described = panel.controller.prefetch.described

    def press(facts: ModelFacts) -> None:
        described.disconnect(press)  # the next model is the person's choice
        if facts.error:  # Run never gets enabled
            panel.controller.runner.answered.emit(Answer(0, error=facts.error))
        else:
            panel.controller.run()

    described.connect(press)


def _wait_for(signal: Any) -> None:
    """Serve events until the signal comes."""
    loop = QEventLoop()
    signal.connect(loop.quit)
    loop.exec()


def _write(viewer: Any, answer: Answer, output: Path) -> None:
    """Save the results and, once the layers are drawn, the screenshots."""
    if not answer.predictions:
        raise AttentionUNetError(answer.error)
    output.mkdir(parents=True, exist_ok=True)
    save(answer.predictions, output / answer.predictions[0].volume.name)
    for theme, name in SCREENSHOTS.items():
        viewer.theme = theme
        loop = QEventLoop()
        QTimer.singleShot(_SETTLE, loop.quit)
        loop.exec()
        viewer.screenshot(output / name, canvas_only=False, flash=False)
