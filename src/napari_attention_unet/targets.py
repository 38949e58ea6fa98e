"""Where results go, plane by plane: arrays in memory, or arrays of a zarr group.

A target is filled along the network's first axis, which may be any axis of the caller's array, in
either direction. Each voxel is written once; into zarr in whole rows of chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_attention_unet.errors import OutputError
from napari_attention_unet.frame import Frame
from napari_attention_unet.volume import Shape3

#: Largest chunk of a zarr array: planes along the network's first axis, voxels along the others.
CHUNK = (16, 128)
#: Coefficients 0..1 that are kept as bytes are these steps of one.
STEPS = 255

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Kind:
    """What a target holds.

    Attributes
    ----------
    name : str
        Path in a zarr group, e.g. ``"mask"`` or ``"gates/att4"``.
    turned : tuple of int
        Spatial shape in the network's orientation.
    dtype : numpy dtype
        In which it is kept.
    channels : int or None
        Length of a leading axis; None without one.
    scaled : bool
        Whether values 0..1 are kept as integers 0..`STEPS`.
    attributes : dict
        Of a zarr array.
    """

    name: str
    turned: Shape3
    dtype: np.dtype[Any]
    channels: int | None = None
    scaled: bool = False
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def shape(self, frame: Frame) -> tuple[int, ...]:
        """On the caller's axes."""
        leading = () if self.channels is None else (self.channels,)
        return (*leading, *frame.shape_back(self.turned))

    def encoded(self, values: Array) -> Array:
        """Values as they are kept."""
        if self.scaled:
            values = np.rint(np.clip(values, 0, 1) * STEPS)
        return values.astype(self.dtype, copy=False)

    def decoded(self, kept: Any) -> Any:
        """What is kept as values again, lazily where it is scaled."""
        if not self.scaled:
            return kept
        import dask.array as da

        lazy = kept
        if not isinstance(kept, da.Array):
            lazy = da.from_array(_Filled(kept), name=False)  # type: ignore[no-untyped-call]
        return lazy.astype(np.float32) / np.float32(STEPS)


class _Filled:
    """A numpy array that is still filled: dask would copy a plain one."""

    def __init__(self, array: Array) -> None:
        self._array = array
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __getitem__(self, box: Any) -> Array:
        return np.asarray(self._array[box])


class ArrayTarget:
    """A numpy array, 0 where it is not written yet.

    Attributes
    ----------
    kind : Kind
        What it holds.
    done : int
        Planes that are written for good.
    """

    def __init__(self, kind: Kind, frame: Frame) -> None:
        self.kind, self.done = kind, 0
        self._array = np.zeros(kind.shape(frame), kind.dtype)
        spatial = self._array if kind.channels is not None else self._array[None]
        self._turned = frame.turn(spatial)

    @property
    def array(self) -> Any:
        """The values on the caller's axes, as they are written."""
        return self.kind.decoded(self._array)

    def write(self, start: int, values: Array) -> None:
        """Planes from `start` on, shape (channel, n, y, x), turned; they follow one another."""
        stop = start + values.shape[1]
        self._turned[:, start:stop] = self.kind.encoded(values)
        self.done = stop


class ZarrTarget:
    """An array of a zarr group, written in whole rows of chunks.

    Parameters
    ----------
    kind : Kind
        What it holds.
    frame : Frame
        How the network's axes lie on the caller's.
    array : zarr.Array
        On the caller's axes.
    done : int
        Planes that an earlier run wrote; the end of a row of chunks.
    on_written : callable
        Called after each row that is written.
    """

    def __init__(
        self, kind: Kind, frame: Frame, array: Any, done: int, on_written: Callable[[], None]
    ) -> None:
        self.kind, self.done = kind, done
        self._frame, self._array, self._on_written = frame, array, on_written
        leading = 0 if kind.channels is None else 1
        planes = kind.turned[0]
        row = array.chunks[leading + frame.axes[0]]
        edges = {*range(0, planes, row), planes}
        if frame.flipped[0]:
            edges = {planes - edge for edge in edges}
        self._edges = sorted(edges)
        self._waiting: list[Array] = []

    @property
    def array(self) -> Any:
        """The values on the caller's axes, read from the group when they are asked for."""
        import dask.array as da

        return self.kind.decoded(
            da.from_array(self._array, chunks=self._array.chunks, name=False)  # type: ignore[no-untyped-call]
        )

    @property
    def next(self) -> int:
        """The plane that is awaited."""
        return self.done + sum(int(values.shape[1]) for values in self._waiting)

    def write(self, start: int, values: Array) -> None:
        """Planes from `start` on, shape (channel, n, y, x), turned; those it has are left out.

        Raises
        ------
        OutputError
            If the group cannot be written to.
        """
        values = values[:, self.next - start :]
        if values.shape[1]:
            self._waiting.append(self.kind.encoded(values).copy())
        reached = max(edge for edge in self._edges if edge <= self.next)
        if reached <= self.done:
            return
        together = np.concatenate(self._waiting, 1)
        count = reached - self.done
        try:
            self._store(reached, together[:, :count])
            self._waiting = [together[:, count:].copy()] if together.shape[1] > count else []
            self.done = reached
            self._on_written()
        except OSError as error:
            raise OutputError(
                f"'{self.kind.name}' could not be written: {error}. What was computed so far is "
                "kept, marked as incomplete; make room and run again into the same group, and the "
                "run goes on from there."
            ) from error

    def _store(self, stop: int, values: Array) -> None:
        box = self._frame.planes_back(self.kind.turned, self.done, stop)
        back = self._frame.turn_back(values)
        if self.kind.channels is None:
            self._array[box] = back[0]
        else:
            self._array[(slice(None), *box)] = back


Target = ArrayTarget | ZarrTarget


def chunks_for(kind: Kind, frame: Frame) -> tuple[int, ...]:
    """Chunks of the zarr array that holds a result."""
    planes, across = CHUNK
    z, y, x = (min(n, most) for n, most in zip(kind.turned, (planes, across, across), strict=True))
    leading = () if kind.channels is None else (1,)
    return (*leading, *frame.shape_back((z, y, x)))


def bytes_of(kind: Kind) -> int:
    """Memory that a result takes."""
    size: int = prod(kind.turned) * (kind.channels or 1) * kind.dtype.itemsize
    return size
