"""The foot of the panel: Run, Cancel, progress, and one line that says how things stand."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

from napari.utils import cancelable_progress
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QHBoxLayout,
    QProgressBar,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from .form import Note, beside, describe
from .request import Progress, duration
from .style import set_property

_STEPS = 1000


class RunPart(QWidget):
    """Always in sight, whichever tab is in front.

    Attributes
    ----------
    options : QWidget
        What belongs to the settings of a run: whether it replaces earlier results, *copy
        as Python*, and *reset*.
    """

    run = Signal()
    cancel = Signal()
    reset = Signal()
    copy = Signal()

    def __init__(self, replace: bool, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._activity: Activity | None = None

        self.replace_box = QCheckBox("replace earlier results")
        self.replace_box.setChecked(replace)
        describe(
            self.replace_box,
            "replace",
            "Replace the results of an earlier run on the same image, or add to them",
        )
        self.reset_button = QToolButton()
        self.reset_button.setText("reset")
        self.reset_button.setProperty("role", "flat")
        describe(self.reset_button, "reset", "Set every choice back to its default")
        self.reset_button.clicked.connect(self.reset)

        self.copy_button = QToolButton()
        self.copy_button.setText("copy script")
        self.copy_button.setProperty("role", "flat")
        describe(
            self.copy_button,
            "copy_python",
            "Copy a Python script that makes this run without the panel",
        )
        self.copy_button.clicked.connect(self.copy)

        self.run_button = QPushButton("Run")
        describe(self.run_button, "run", "")
        self.run_button.clicked.connect(self.run)
        self.cancel_button = QPushButton("Cancel")
        describe(self.cancel_button, "cancel", "Stop what runs and free its memory (Esc)")
        self.cancel_button.setEnabled(False)
        self.cancel_button.clicked.connect(self.cancel)

        self.bar = QProgressBar()
        describe(self.bar, "progress", "Share of the work that is done")
        self.bar.setRange(0, _STEPS)
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(5)
        policy = self.bar.sizePolicy()
        policy.setRetainSizeWhenHidden(True)
        self.bar.setSizePolicy(policy)
        self.bar.hide()

        self.message = Note(least_lines=2)
        self.message.setObjectName("message")
        self.message.setAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)

        self.options = beside(self.replace_box, self.copy_button, self.reset_button)
        buttons = QHBoxLayout()
        buttons.setContentsMargins(0, 0, 0, 0)
        buttons.setSpacing(6)
        buttons.addWidget(self.run_button, 1)
        buttons.addWidget(self.cancel_button)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addLayout(buttons)
        column.addWidget(self.bar)
        column.addWidget(self.message)

    def say(self, text: str, role: str = "dim", details: str = "") -> None:
        """Show a sentence beneath the buttons; `details` appear in its tip."""
        set_property(self.message, "role", role)
        self.message.setText(text)
        self.message.setToolTip(details or text)

    def set_ready(self, reason: str) -> None:
        """Allow Run, or say in its tip why not."""
        self.run_button.setEnabled(not reason)
        self.run_button.setToolTip(reason or "Run the network on the image (Ctrl+Return)")
        self.run_button.setAccessibleDescription(self.run_button.toolTip())

    def begin(self, text: str = "Running …") -> None:
        """A run or another job starts: show progress here and in napari's activity dock."""
        self.run_button.setEnabled(False)
        self.run_button.setText(text)
        self.cancel_button.setEnabled(True)
        self.bar.setRange(0, 0)
        self.bar.show()
        self._activity = Activity(self.cancel.emit)

    def show_progress(self, progress: Progress) -> None:
        """Move the bars; napari's serves the event loop, so it comes last."""
        if progress.fraction is None:
            self.bar.setRange(0, 0)
            self.say(f"{progress.message} …")
        else:
            self.bar.setRange(0, _STEPS)
            self.bar.setValue(round(progress.fraction * _STEPS))
            left = progress.seconds_left
            words = [f"{progress.fraction:.0%}"]
            if left is not None:
                words.append(f"{duration(left)} left" if left > 9 else f"{ceil(left)} s left")
            if progress.message:
                words.append(progress.message)
            self.say(" · ".join(words))
        if self._activity is not None:
            self._activity.show(progress.fraction)

    def stopping(self) -> None:
        """Cancel was pressed; the run has not answered yet."""
        self.cancel_button.setEnabled(False)
        self.say("Stopping …")

    def end(self) -> None:
        """The run is over, however it ended."""
        self.run_button.setText("Run")
        self.cancel_button.setEnabled(False)
        self.bar.hide()
        self.bar.setRange(0, _STEPS)
        self.bar.reset()
        activity, self._activity = self._activity, None
        if activity is not None:
            activity.close()


class Activity(cancelable_progress):  # type: ignore[misc]
    """The run's line in napari's activity dock, with a Cancel that works at once.

    napari calls back only while a progress object is iterated, which a run on another thread is
    not.
    """

    def __init__(self, on_cancel: Callable[[], None]) -> None:
        self._on_cancel = on_cancel
        # short: the dock has room for little more than the bar and its button
        bar = "{l_bar}{bar}|{remaining}"
        super().__init__(desc="Attention U-Net", total=_STEPS, bar_format=bar)

    def show(self, fraction: float | None) -> None:
        """Move to a share of the run."""
        step = round((fraction or 0.0) * _STEPS) - self.n
        if step > 0:
            self.update(step)

    def cancel(self) -> None:
        """Called by the dock's Cancel."""
        super().cancel()
        self._on_cancel()
