"""Where executors take their input from, and where their results go: a few planes at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from napari_attention_unet.volume import Shape3

Box = tuple[slice, slice, slice]

#: Takes a part of a result as soon as it is made: the name of its node; the index (z, y, x) of its
#: first sample on that node's grid; and values (1, channel, z, y, x), float32 on the CPU, which
#: may be overwritten after the call. Parts of one node ascend along z.
Sink = Callable[[str, Shape3, Tensor], None]


class Planes(Protocol):
    """Where input comes from, on the network's own padded grid.

    Attributes
    ----------
    shape : tuple of int
        (1, channel, z, y, x).
    """

    shape: tuple[int, int, int, int, int]

    def read(self, box: Box) -> Tensor:
        """The voxels of a box along z, y, x: (1, channel, z, y, x), float32, on the CPU."""
        ...


class Part:
    """Planes ``start..stop`` of others along z."""

    def __init__(self, planes: Planes, start: int, stop: int) -> None:
        one, channels, _, y, x = planes.shape
        self.shape = (one, channels, stop - start, y, x)
        self._planes, self._start = planes, start

    def read(self, box: Box) -> Tensor:
        """Counted from the part's first plane."""
        z, y, x = box
        return self._planes.read((slice(self._start + z.start, self._start + z.stop), y, x))


class Gathered:
    """Results as a whole, 0 in the beginning.

    Parameters
    ----------
    shapes : dict of str to tuple of int
        Of each result.
    on_disk : bool
        Whether they lie in temporary files instead of in memory.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], *, on_disk: bool) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="attention-unet-") if on_disk else None
        self._values = {
            name: self._empty(torch.Size(shape), str(index))
            for index, (name, shape) in enumerate(shapes.items())
        }

    def _empty(self, shape: torch.Size, name: str) -> Tensor:
        if self._folder is None:
            return torch.zeros(shape)
        path = Path(self._folder.name) / name
        return torch.from_file(str(path), True, shape.numel()).view(shape)

    def __call__(self, name: str, start: Shape3, values: Tensor) -> None:
        """A `Sink`."""
        z, y, x = (slice(a, a + n) for a, n in zip(start, values.shape[2:], strict=True))
        self._values[name][:, :, z, y, x] = values

    def results(self) -> dict[str, Tensor]:
        """All of them, by name."""
        return self._values

    def close(self) -> None:
        """Free the memory, or remove the files."""
        self._values = {}
        if self._folder is not None:
            self._folder.cleanup()
