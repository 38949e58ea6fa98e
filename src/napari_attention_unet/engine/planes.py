"""Where executors take their input from, and where their results go: a few planes at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor

#: Takes planes of a result: name of its node, first plane, values of shape (1, channel, n, y, x),
#: float32, on the CPU. Planes of a name come in order; they may be overwritten after the call.
Sink = Callable[[str, int, Tensor], None]


class Planes(Protocol):
    """The network's input on its own padded grid.

    Attributes
    ----------
    shape : tuple of int
        (1, channel, z, y, x).
    """

    shape: tuple[int, int, int, int, int]

    def read(self, start: int, stop: int) -> Tensor:
        """Planes ``start..stop`` along z, shape (1, channel, n, y, x), float32, on the CPU."""
        ...


class Held:
    """Planes of a volume that is in memory.

    Parameters
    ----------
    x : Tensor, shape (1, channel, z, y, x), float32
        The network's input.
    """

    def __init__(self, x: Tensor) -> None:
        self.shape = (x.shape[0], x.shape[1], x.shape[2], x.shape[3], x.shape[4])
        self._x = x

    def read(self, start: int, stop: int) -> Tensor:
        """A view."""
        return self._x[:, :, start:stop]


class Part:
    """Planes ``start..stop`` of others."""

    def __init__(self, planes: Planes, start: int, stop: int) -> None:
        one, channels, _, y, x = planes.shape
        self.shape = (one, channels, stop - start, y, x)
        self._planes, self._start = planes, start

    def read(self, start: int, stop: int) -> Tensor:
        """Counted from the part's first plane."""
        return self._planes.read(self._start + start, self._start + stop)
