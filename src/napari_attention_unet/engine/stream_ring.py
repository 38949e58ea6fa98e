"""Planes of a value that are still needed, in a buffer of fixed size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from napari_attention_unet.graph.around import memory_format


class Ring:
    """A window of a value's planes that slides along z; every range of it is one dense view.

    Plane ``p`` lies in slot ``(p + before) % capacity``. The first `mirrored` slots lie once more
    behind the last one, so that a range that goes over the end needs no copy.

    Parameters
    ----------
    shape : sequence of int
        (1, channel, z, y, x) of the value.
    before, after : int
        Planes of zeros kept before the first plane and after the last: the padding of those who
        read it.
    capacity : int
        Planes that are in it at once at most, with these zeros.
    longest : int
        Planes of the longest range that is read or written at once.
    dtype, device
        Of the values.
    file : Path, optional
        Where the planes are kept on disk instead of in memory.
    """

    def __init__(
        self,
        shape: Sequence[int],
        before: int,
        after: int,
        capacity: int,
        longest: int,
        dtype: torch.dtype,
        device: torch.device,
        file: Path | None = None,
    ) -> None:
        _, channels, self.depth, height, width = shape
        self.before, self.after, self.capacity = before, after, capacity
        whole = self.depth + before + after
        self.mirrored = 0 if capacity >= whole else longest - 1
        slots = capacity + self.mirrored
        layout = (1, slots, height, width, channels)
        if memory_format(device) == torch.contiguous_format:
            layout = (slots, 1, channels, height, width)
        if file is None:
            planes = torch.empty(layout, dtype=dtype, device=device)
        else:
            size = slots * height * width * channels
            planes = torch.from_file(str(file), shared=True, size=size, dtype=dtype).view(layout)
        last = memory_format(device) != torch.contiguous_format
        self._planes = planes.permute(0, 4, 1, 2, 3) if last else planes.permute(1, 2, 0, 3, 4)
        if before:
            self.space(-before, 0).zero_()
            self.keep(-before, 0)

    @property
    def nbytes(self) -> int:
        """Bytes of the buffer."""
        return self._planes.numel() * self._planes.element_size()

    def planes(self, start: int, stop: int) -> Tensor:
        """Planes ``start..stop``, (1, channel, z, y, x), the zeros beyond the ends included."""
        return self._planes.narrow(2, (start + self.before) % self.capacity, stop - start)

    space = planes  #: Where to write planes; `keep` follows.

    def keep(self, start: int, stop: int) -> None:
        """Planes ``start..stop`` have been written."""
        self._copy(start, stop)
        if stop == self.depth and start < stop and self.after:
            self.space(stop, stop + self.after).zero_()
            self._copy(stop, stop + self.after)

    def _copy(self, start: int, stop: int) -> None:
        """Write what lies in one copy of the mirrored slots into the other."""
        if not self.mirrored:
            return
        first = (start + self.before) % self.capacity
        last = first + stop - start
        planes, capacity = self._planes, self.capacity
        if first < self.mirrored:
            n = min(last, self.mirrored) - first
            planes.narrow(2, capacity + first, n).copy_(planes.narrow(2, first, n))
        if last > capacity:
            n = last - capacity
            planes.narrow(2, 0, n).copy_(planes.narrow(2, capacity, n))
