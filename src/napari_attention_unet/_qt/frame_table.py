"""A pandas table on the screen: read, copied as CSV, saved."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from qtpy.QtCore import QAbstractTableModel, QModelIndex, QPersistentModelIndex, Qt
from qtpy.QtGui import QKeyEvent, QKeySequence
from qtpy.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QFileDialog,
    QHeaderView,
    QSizePolicy,
    QTableView,
    QToolButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QElidingLabel

from .form import beside, describe

_Index = QModelIndex | QPersistentModelIndex
#: Rows in sight; more are scrolled.
MOST_ROWS = 9


class Column(NamedTuple):
    """How a column is shown.

    Attributes
    ----------
    title : str
        Short, with the unit if there is one.
    tip : str
        What the numbers mean.
    digits : int
        Decimal places of floating-point numbers; -1 for four significant digits.
    """

    title: str
    tip: str = ""
    digits: int = -1


class FrameModel(QAbstractTableModel):
    """A table of rows and columns; the columns that say what a row is stand at its left edge."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._frame = pd.DataFrame()
        self._columns: list[str] = []
        self._about: dict[str, Column] = {}
        self._rows: list[str] = []
        self._cells: list[list[Any]] = []

    @property
    def frame(self) -> pd.DataFrame:
        """What is shown, whole."""
        return self._frame

    def set_frame(
        self, frame: pd.DataFrame, about: Mapping[str, Column], rows: Sequence[str]
    ) -> None:
        """Show a table.

        Parameters
        ----------
        frame : DataFrame
            With a row a line.
        about : mapping of str to Column
            The columns to show, in this order; those that the table lacks are left out.
        rows : sequence of str
            Columns that together name a row.
        """
        self.beginResetModel()
        self._frame = frame
        self._about = {name: column for name, column in about.items() if name in frame.columns}
        self._columns = [name for name in self._about if name not in rows]
        self._cells = [frame[name].tolist() for name in self._columns]  # pandas is slow by the cell
        names = [
            [cell_text(value, -1) for value in frame[name].tolist()]
            for name in rows
            if name in frame.columns
        ]
        self._rows = [" · ".join(parts) for parts in zip(*names, strict=True)] if names else []
        self.endResetModel()

    def rowCount(self, parent: _Index | None = None) -> int:  # noqa: N802
        """Lines of the table."""
        return len(self._frame) if parent is None or not parent.isValid() else 0

    def columnCount(self, parent: _Index | None = None) -> int:  # noqa: N802
        """Columns that are shown."""
        return len(self._columns) if parent is None or not parent.isValid() else 0

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """A cell."""
        column = self._columns[index.column()]
        value = self._cells[index.column()][index.row()]
        if role == Qt.ItemDataRole.DisplayRole:
            return cell_text(value, self._about[column].digits)
        if role == Qt.ItemDataRole.ToolTipRole:
            said = value if isinstance(value, str) else f"{value:g}"
            return f"{self._about[column].title}: {said}\n{self._about[column].tip}".strip()
        if role == Qt.ItemDataRole.TextAlignmentRole:
            side = Qt.AlignmentFlag.AlignLeft if isinstance(value, str) else _RIGHT
            return side | Qt.AlignmentFlag.AlignVCenter
        return None

    def headerData(  # noqa: N802
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        """Titles of the columns and names of the rows."""
        if orientation == Qt.Orientation.Vertical:
            shown = role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.ToolTipRole)
            if shown:
                return self._rows[section] if self._rows else str(section + 1)
            return None
        about = self._about[self._columns[section]]
        if role == Qt.ItemDataRole.DisplayRole:
            return about.title
        return about.tip if role == Qt.ItemDataRole.ToolTipRole else None


_RIGHT = Qt.AlignmentFlag.AlignRight


def cell_text(value: Any, digits: int) -> str:
    """``"0.62"``, ``"12 040"``, ``"–"`` for nan."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        return str(value)
    number = float(value)
    if math.isnan(number):
        return "–"
    if number == int(number) and not isinstance(value, float):
        return f"{int(number):,}".replace(",", "\u202f")
    if digits >= 0:
        text = f"{number:.{digits}f}"
    else:
        text = f"{number:,.0f}".replace(",", "\u202f") if abs(number) >= 1e4 else f"{number:.4g}"
    return text.replace("-", "\u2212") if number < 0 else text


class _View(QTableView):
    """Copies what is selected with the usual key."""

    def __init__(self, copy: Callable[[], None]) -> None:
        super().__init__()
        self._copy = copy

    def keyPressEvent(self, event: QKeyEvent | None) -> None:  # noqa: N802
        """Copy, or move about."""
        if event is not None and event.matches(QKeySequence.StandardKey.Copy):
            self._copy()
        else:
            super().keyPressEvent(event)


class FrameTable(QWidget):
    """A table with its heading and the buttons *copy* and *save*; hidden while it is empty.

    Parameters
    ----------
    name : str
        Object name of the table; ``copy_<name>`` and ``save_<name>`` are those of the buttons.
    title : str
        Heading.
    tip : str
        What the table is.
    """

    def __init__(self, name: str, title: str, tip: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._name = name
        self._csv: Callable[[pd.DataFrame], str] = plain_csv
        self.model = FrameModel(self)
        self.heading = QElidingLabel(title)
        self.heading.setMinimumWidth(60)
        self.heading.setProperty("role", "heading")
        self.heading.setToolTip(tip)
        self.copy_button, self.save_button = QToolButton(), QToolButton()
        for button, text, about in (
            (self.copy_button, "copy", "Copy the whole table as CSV (Ctrl+C in the table)"),
            (self.save_button, "save …", "Save the whole table as a CSV file"),
        ):
            button.setText(text)
            describe(button, f"{text.split()[0]}_{name}", about)
        self.copy_button.clicked.connect(self.copy)
        self.save_button.clicked.connect(self.save)
        self.view = _View(self.copy)
        describe(self.view, name, tip)
        self.view.setModel(self.model)
        self.view.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.view.setShowGrid(False)
        self.view.setWordWrap(False)
        self.view.setTabKeyNavigation(False)
        self.view.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.view.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        across, down = self.view.horizontalHeader(), self.view.verticalHeader()
        if across is not None and down is not None:
            across.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
            across.setResizeContentsPrecision(MOST_ROWS)  # of thousands of rows, those in sight
            down.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
            for header in (across, down):
                header.setHighlightSections(False)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addWidget(beside(self.heading, self.copy_button, self.save_button))
        column.addWidget(self.view)
        self.clear()

    def show_frame(
        self,
        frame: pd.DataFrame,
        about: Mapping[str, Column],
        rows: Sequence[str],
        csv: Callable[[pd.DataFrame], str] | None = None,
    ) -> None:
        """Show a table; see `FrameModel.set_frame`. `csv` writes it out, the whole of it."""
        self._csv = csv or plain_csv
        self.model.set_frame(frame, about, rows)
        self.setVisible(True)
        self._fit()

    def clear(self) -> None:
        """Show nothing."""
        self.model.set_frame(pd.DataFrame(), {}, ())
        self.setVisible(False)

    def copy(self) -> None:
        """Put the table into the clipboard, as CSV."""
        clipboard = QApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(self._csv(self.model.frame))

    def save(self) -> None:
        """Ask for a file and write the table to it."""
        suggested = str(Path.home() / f"{self._name}.csv")
        path, _ = QFileDialog.getSaveFileName(self, "Save the table", suggested, "CSV (*.csv)")
        if path:
            self.write(Path(path))

    def write(self, path: Path) -> None:
        """Write the table to a CSV file."""
        path.write_text(self._csv(self.model.frame), encoding="utf-8")

    def _fit(self) -> None:
        """As high as its rows, up to `MOST_ROWS`."""
        across, down = self.view.horizontalHeader(), self.view.verticalHeader()
        if across is None or down is None:
            return
        down.setDefaultSectionSize(self.fontMetrics().height() + 6)
        rows = down.defaultSectionSize() * min(MOST_ROWS, self.model.rowCount())
        bar = self.view.horizontalScrollBar()
        beneath = bar.sizeHint().height() if bar is not None else 0
        self.view.setFixedHeight(across.sizeHint().height() + rows + beneath + 8)


def plain_csv(frame: pd.DataFrame) -> str:
    """A table as CSV, with six significant digits."""
    text: str = frame.to_csv(index=False, float_format="%.6g")
    return text
