"""The report of the latest run: one page, saved and opened in the browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtpy.QtCore import QObject, QUrl
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QAbstractButton, QFileDialog

from . import tasks
from .inspection import Inspection
from .outcome import Said
from .runs import NO_RUN

SUFFIX = ".html"


class ReportControl(QObject):
    """Connects a button with the latest run.

    Parameters
    ----------
    inspection : Inspection
        With the run.
    button : QAbstractButton
        Which asks where to save the report.
    extras : callable
        Gives what else was found of the run, as `inspect.report.Extras` names it.
    """

    def __init__(
        self,
        inspection: Inspection,
        button: QAbstractButton,
        extras: Callable[[], dict[str, Any]],
    ) -> None:
        super().__init__(inspection)
        self._inspection, self._button, self._extras = inspection, button, extras
        inspection.changed.connect(self.refresh)
        button.clicked.connect(self._ask)
        self.refresh()

    def refresh(self) -> None:
        """Say whether there is something to report."""
        problem = NO_RUN if self._inspection.runs.latest is None else self._inspection.busy
        self._button.setEnabled(not problem)
        self._button.setToolTip(
            problem
            or "Save one HTML page with views, measures, plots and provenance, with comparison\n"
            "and ablation where they were made"
        )

    def write(self, path: Path, done: Callable[[Path], object] = lambda path: None) -> None:
        """Write the report to a file; `done` is called with it at the end."""
        run = self._inspection.runs.latest
        if run is None or self._inspection.busy:
            return

        def saved(made: Path) -> Said:
            done(made)
            return Said(f"Saved {made.name}", "good", str(made))

        self._inspection.start(
            "The report",
            saved,
            tasks.report,
            run.predictions,
            run.request.volumes[0] if run.has_image else None,
            self._extras(),
            path,
        )

    def _ask(self) -> None:
        run = self._inspection.runs.latest
        if run is None:
            return
        suggested = str(Path.home() / f"{run.predictions[0].volume.name}-report{SUFFIX}")
        path, _ = QFileDialog.getSaveFileName(
            self._button, "Save the report", suggested, f"Web page (*{SUFFIX})"
        )
        if path:
            self.write(Path(path).with_suffix(SUFFIX), _open)


def _open(path: Path) -> None:
    QDesktopServices.openUrl(QUrl.fromLocalFile(str(path)))
