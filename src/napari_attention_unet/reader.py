"""Planes of an array that may be larger than memory, in the network's orientation.

numpy arrays are looked at in place. Of dask and zarr arrays whole rows of chunks are read along the
axis that becomes the network's first, so that each chunk is decoded once a pass; a few rows stay in
memory, and the next one is read on a thread while the network works on this one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_attention_unet.errors import InputError
from napari_attention_unet.frame import Frame
from napari_attention_unet.volume import Volume

#: Bytes of rows that are kept after they were used; an array this small is read once.
KEPT = 64 << 20
#: Bytes of a row of chunks beyond which it is read in parts.
_LARGEST_ROW = 256 << 20
#: Bytes below which rows of chunks are read together.
_SMALLEST_ROW = 4 << 20

Array = npt.NDArray[Any]


class Reader:
    """Reads planes of a volume, turned to the network's orientation, in their own dtype.

    Parameters
    ----------
    volume : Volume
        What to read.
    frame : Frame
        How the network's axes lie in it.

    Attributes
    ----------
    shape : tuple of int
        (channel, z, y, x) of the turned array.
    """

    def __init__(self, volume: Volume, frame: Frame) -> None:
        self._data, self._frame = volume.data, frame
        self.shape = (volume.channels, *frame.turned)
        self.dtype: np.dtype[Any] = np.dtype(volume.data.dtype)
        self._axis, self._flipped = 1 + frame.axes[0], frame.flipped[0]
        self._lazy = not isinstance(volume.data, np.ndarray)
        self._edges = _row_edges(volume.data, self._axis) if self._lazy else []
        self._rows: OrderedDict[int, Future[Array]] = OrderedDict()
        self._thread: ThreadPoolExecutor | None = None

    def read(self, start: int, stop: int) -> Array:
        """Planes ``start..stop``, shape (channel, n, y, x); a view where that is possible.

        Raises
        ------
        InputError
            If the source fails; the message names the planes and what the source said.
        """
        if not self._lazy:
            return self._frame.turn(self._data)[:, start:stop]
        low, high = start, stop
        if self._flipped:
            low, high = self.shape[1] - stop, self.shape[1] - start
        rows = range(bisect_right(self._edges, low) - 1, bisect_right(self._edges, high - 1))
        pieces = []
        for row in rows:
            first, values = self._edges[row], self._row(row)
            box: list[Any] = [slice(None)] * 4
            box[self._axis] = slice(max(0, low - first), high - first)
            pieces.append(values[tuple(box)])
        latest = rows[0] if self._flipped else rows[-1]
        following = latest - 1 if self._flipped else latest + 1
        self._forget((latest, following))
        self._fetch(following)
        whole = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, self._axis)
        return self._frame.turn(whole)

    def close(self) -> None:
        """Stop reading ahead."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown(cancel_futures=True)
        self._rows.clear()

    @property
    def bytes(self) -> int:
        """Memory that it takes at most, beyond an array that is in memory anyway."""
        if not self._lazy:
            return 0
        plane = prod(self._data.shape) // self._data.shape[self._axis] * self.dtype.itemsize
        row = plane * max(int(n) for n in np.diff(self._edges))
        whole = prod(self._data.shape) * self.dtype.itemsize
        # of rows: one that is used, one that is read, one that is cut out
        return int(min(whole, KEPT + 3 * row))

    def _row(self, row: int) -> Array:
        self._fetch(row)
        try:
            return self._rows[row].result()
        except MemoryError:
            raise
        except Exception as error:  # whatever a lazy source may raise
            del self._rows[row]
            low, high = self._edges[row], self._edges[row + 1]
            axis = "zyx"[self._axis - 1]
            raise InputError(
                f"Planes {low} to {high - 1} along {axis} of the volume could not be read: "
                f"{type(error).__name__}: {error}. Check the source that the array reads from."
            ) from error

    def _fetch(self, row: int) -> None:
        """Begin to read a row that is not in memory."""
        if row in self._rows:
            self._rows.move_to_end(row)
        elif 0 <= row < len(self._edges) - 1:
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="attention-unet-reader")
            self._rows[row] = self._thread.submit(self._load, row)

    def _load(self, row: int) -> Array:
        box: list[Any] = [slice(None)] * 4
        box[self._axis] = slice(self._edges[row], self._edges[row + 1])
        return np.asarray(self._data[tuple(box)])

    def _forget(self, needed: tuple[int, ...]) -> None:
        """Let go of the rows that were used longest ago, as far as there are too many."""
        sizes = {
            row: values.result().nbytes
            for row, values in self._rows.items()
            if values.done() and values.exception() is None
        }
        held = sum(sizes.values())
        for row, size in sizes.items():
            if held > KEPT and row not in needed:
                held -= size
                del self._rows[row]


def _row_edges(data: Any, axis: int) -> list[int]:
    """Where rows of chunks begin and end along an axis, large enough to be worth a read."""
    length = int(data.shape[axis])
    plane = max(1, prod(data.shape) // length * np.dtype(data.dtype).itemsize)
    chunks = getattr(data, "chunks", None)
    along = chunks[axis] if chunks is not None and len(chunks) == 4 else 1
    shards = getattr(data, "shards", None)
    if shards is not None:
        along = shards[axis]
    if isinstance(along, tuple):
        marks = np.cumsum((0, *along)).tolist()
    else:
        marks = [*range(0, length, int(along)), length]
    most = max(1, _LARGEST_ROW // plane)
    edges = [0]
    for mark, following in zip(marks[1:], [*marks[2:], length], strict=True):
        while mark - edges[-1] > most:
            edges.append(edges[-1] + most)
        large = (mark - edges[-1]) * plane >= _SMALLEST_ROW
        if mark > edges[-1] and (mark == length or large or following - edges[-1] > most):
            edges.append(mark)
    return edges
