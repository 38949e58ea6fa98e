"""Pieces of a stream of pickles and numbers, never more of it than was promised."""

from __future__ import annotations

from typing import Any, BinaryIO

from .machine import Machine, Named, Rebuild, UnsafePickleError

#: Bytes of pickle, the tensors' numbers not among them; checkpoints have some thousands.
MAX_PICKLE = 64 * 2**20
_LONGEST_LINE = 2**20


def nothing(called: Named, arguments: tuple[Any, ...]) -> Any:
    """Rebuild nothing."""
    return None


def read_pickle(file: BinaryIO, rebuild: Rebuild) -> Any:
    """The next pickle of a stream."""
    return Machine(rebuild).load(Bounded(file))


def exactly(file: BinaryIO, number: int, size: int) -> bytes:
    """The next bytes of a file of `size`, or an error."""
    if number > size:
        raise UnsafePickleError("it says more data than the file holds")
    raw = file.read(number)
    if len(raw) != number:
        raise UnsafePickleError("it is cut short")
    return raw


class Bounded:
    """The next `MAX_PICKLE` bytes of a file, as `pickletools` wants to read them."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left = file, MAX_PICKLE

    def read(self, number: int, /) -> bytes:
        """Up to so many bytes."""
        raw = self._file.read(min(max(number, 0), self._left))
        self._left -= len(raw)
        return raw

    def readline(self) -> bytes:
        """Up to the end of the line, a long one in parts."""
        raw = self._file.readline(min(self._left, _LONGEST_LINE))
        self._left -= len(raw)
        return raw
