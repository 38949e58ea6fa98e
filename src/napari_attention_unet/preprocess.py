"""From a volume to the planes that the network reads.

Statistics are taken first, in float64 over the whole volume, on the network's voxel size, and never
per tile; then planes are normalised as the network asks for them. Both go over the array a few
planes at a time, so that a volume larger than memory will do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_attention_unet.errors import InputError
from napari_attention_unet.frame import Frame, Resampling
from napari_attention_unet.models.card import NORMALIZATIONS, ModelCard, Normalization
from napari_attention_unet.reader import Reader
from napari_attention_unet.volume import Shape3, Volume

T = TypeVar("T")

#: Voxels that are handled between two reports of progress.
SLAB_VOXELS = 2_000_000


def resolve_normalization(option: Any, card: ModelCard) -> Normalization:
    """What the caller's ``normalize`` means.

    Parameters
    ----------
    option : str, (low, high) or Normalization
        ``"card"``, a kind of `Normalization`, or the intensities that map to 0 and 1.
    card : ModelCard
        Of the model.

    Raises
    ------
    InputError
        If it is none of these.
    """
    if isinstance(option, Normalization):
        return option
    if isinstance(option, str):
        if option == "card":
            return card.normalization
        if option == card.normalization.kind:
            return card.normalization
        if option in NORMALIZATIONS and option not in ("window", "linear"):
            return Normalization(option)
    elif isinstance(option, (tuple, list)) and len(option) == 2:
        low, high = (float(v) for v in option)
        if low < high:
            return Normalization("window", low, high)
    raise InputError(
        f"normalize={option!r} is not known; use 'card', 'zscore', 'percentile', 'minmax', 'none', "
        "or a window (low, high) with low < high."
    )


def measure(
    reader: Reader, frame: Frame, normalization: Normalization, *, digest: bool = False
) -> Generator[float, None, Measured]:
    """Go over a volume once, or as often as its normalisation needs, and measure what it needs.

    Parameters
    ----------
    reader : Reader
        Of the volume.
    frame : Frame
        The network's grid in it; statistics are those of the resampled voxels.
    normalization : Normalization
        Of each channel by itself.
    digest : bool
        Whether the voxels themselves are to be told apart from others.

    Yields
    ------
    float
        Share that is done, 0..1.

    Raises
    ------
    InputError
        For NaN or infinite voxels, and where the intensities do not vary enough to be normalised.
    """
    planes = TurnedPlanes(reader, frame.size, frame.to_network())
    needs = normalization.kind not in ("none", "window", "linear")
    ranks = normalization.kind == "percentile"
    first = 1 / 3 if ranks else 1.0
    survey = _Survey(reader, normalization.nonzero, moments=needs, digest=digest)
    if needs or digest or reader.dtype.kind == "f":
        for start, stop in planes.ranges(reader.shape[0]):
            survey.add(planes, start, stop)
            yield first * stop / planes.size[0]
        survey.finish()
    each = (1 - first) / reader.shape[0]
    windows = []
    for channel, moments in enumerate(survey.moments):
        window = _window(planes, channel, normalization, moments)
        windows.append((yield from _portion(window, first + each * channel, each)))
    return Measured(tuple(windows), survey.digest)


@dataclass(frozen=True)
class Window:
    """Intensity that becomes 0, factor after it, and whether to clip to 0..1."""

    zero: float
    factor: float
    clip: bool


@dataclass(frozen=True)
class Measured:
    """What one channel after the other is normalised by.

    Attributes
    ----------
    windows : tuple of Window
        One a channel.
    digest : str
        Hexadecimal, of all voxels in the network's orientation; empty if it was not asked for.
    """

    windows: tuple[Window, ...]
    digest: str = ""


class Prepared:
    """What the network reads of a volume: turned, resampled, normalised and padded planes.

    Parameters
    ----------
    reader : Reader
        Of the volume.
    frame : Frame
        The network's grid in it.
    measured : Measured
        How it is normalised.
    padding_value : float
        Of the padding at the end of each axis, after normalisation.

    Attributes
    ----------
    shape : tuple of int
        (1, channel, z, y, x) on the network's padded grid.
    """

    def __init__(
        self, reader: Reader, frame: Frame, measured: Measured, padding_value: float = 0.0
    ) -> None:
        self.shape = (1, reader.shape[0], *frame.padded)
        self._planes = TurnedPlanes(reader, frame.size, frame.to_network())
        self._windows, self._padding = measured.windows, padding_value

    def read(self, box: tuple[slice, slice, slice]) -> Tensor:
        """The voxels of a box along z, y, x: (1, channel, z, y, x), float32, channels last.

        Raises
        ------
        InputError
            If the source cannot be read, or intensities do not fit float32.
        """
        planes = self._read(box[0].start, box[0].stop)
        return planes[..., box[1], box[2]]

    def _read(self, start: int, stop: int) -> Tensor:
        depth, y, x = self._planes.size
        _, channels, _, *padded = self.shape
        # channels last, as most devices want it: the run then needs no copy
        shape = (1, channels, stop - start, *padded)
        out = torch.empty(shape, memory_format=torch.channels_last_3d)
        if stop > depth or padded != [y, x]:
            out.fill_(self._padding)
        for low, high in slabs((min(stop, depth) - start, y, x)):
            for channel, window in enumerate(self._windows):
                values = self._planes.read(channel, start + low, start + high)
                values = (values - window.zero) * window.factor
                piece = out[0, channel, low:high, :y, :x]
                piece.copy_(values.clamp(0, 1) if window.clip else values)
                if not piece.isfinite().all():
                    raise InputError(
                        f"Intensities of channel {channel} are up to "
                        f"{float(values.abs().max()):.3g} after normalisation, too large for "
                        "float32; use 'zscore', 'percentile' or a window."
                    )
        return out


def prepare(
    volume: Volume, frame: Frame, normalization: Normalization, padding_value: float = 0.0
) -> Generator[float, None, Tensor]:
    """Read, turn, resample, normalise and pad a whole volume; see `measure` and `Prepared`.

    Yields
    ------
    float
        Share that is done, 0..1.

    Returns
    -------
    Tensor, shape (1, channel, z, y, x), float32
        Spatial shape ``frame.padded``.
    """
    reader = Reader(volume, frame)
    try:
        measured = yield from _portion(measure(reader, frame, normalization), 0.0, 0.7)
        planes = Prepared(reader, frame, measured, padding_value)
        out = torch.empty(planes.shape, memory_format=torch.channels_last_3d)
        for start, stop in slabs(frame.padded, reader.shape[0]):
            box = (slice(start, stop), slice(0, frame.padded[1]), slice(0, frame.padded[2]))
            out[:, :, start:stop] = planes.read(box)
            yield 0.7 + 0.3 * stop / frame.padded[0]
    finally:
        reader.close()
    return out


@dataclass(frozen=True)
class TurnedPlanes:
    """The turned array, read as float64 planes of the network's grid."""

    reader: Reader
    size: Shape3
    resampling: Resampling

    def ranges(self, channels: int = 1) -> Iterator[tuple[int, int]]:
        """Ranges of planes, each small enough to be handled at once."""
        return slabs(self.size, channels)

    def read(self, channel: int, start: int, stop: int) -> Tensor:
        """Planes ``start..stop`` of one channel, shape (z, y, x), float64."""
        low, high = self.resampling.reads(start, stop)
        planes = self.reader.read(low, high)[channel : channel + 1]
        # a copy in native byte order: torch knows neither the other order nor negative strides
        source = planes.astype(np.float64, order="C")
        return self.resampling.run(torch.from_numpy(source), start, stop)[0]


def slabs(shape: Shape3, channels: int = 1) -> Iterator[tuple[int, int]]:
    """Ranges along the first axis of at most `SLAB_VOXELS` values, at least one plane each."""
    step = max(1, SLAB_VOXELS // max(1, channels * shape[1] * shape[2]))
    for start in range(0, shape[0], step):
        yield start, min(start + step, shape[0])


def _portion(
    work: Generator[float, None, T], start: float, share: float
) -> Generator[float, None, T]:
    """Run a part of a larger work that begins at `start`."""
    try:
        while True:
            yield start + share * next(work)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        work.close()


class _Survey:
    """What a single pass over a volume finds out."""

    def __init__(self, reader: Reader, nonzero: bool, *, moments: bool, digest: bool) -> None:
        self._reader, self._nonzero, self._wanted = reader, nonzero, moments
        self.moments = [Moments()] * reader.shape[0]
        self._hashes = [hashlib.blake2b() for _ in self.moments] if digest else []
        self._seen = self._nan = self._infinite = 0

    def add(self, planes: TurnedPlanes, start: int, stop: int) -> None:
        """Take planes of the network's grid, and what is new of the array for them."""
        self._see(planes.resampling.reads(start, stop)[1])
        if self._wanted and not self._nan + self._infinite:
            for channel, moments in enumerate(self.moments):
                values = planes.read(channel, start, stop)
                chosen = values[values != 0] if self._nonzero else values
                self.moments[channel] = moments.merged(chosen)

    def finish(self) -> None:
        """Refuse numbers that are not finite."""
        self._see(self._reader.shape[1])
        if self._nan or self._infinite:
            counts = ((self._nan, "NaN"), (self._infinite, "infinite"))
            found = " and ".join(f"{count} {word}" for count, word in counts if count)
            raise InputError(
                f"The volume has {found} of {prod(self._reader.shape)} voxels; replace them first, "
                "for example with numpy.nan_to_num(volume, posinf=0, neginf=0)."
            )

    @property
    def digest(self) -> str:
        """Of all voxels; empty if it was not asked for."""
        if not self._hashes:
            return ""
        kind = f"{self._reader.shape} {self._reader.dtype.str}"
        whole = hashlib.blake2b(kind.encode(), digest_size=16)
        for each in self._hashes:
            whole.update(each.digest())
        return whole.hexdigest()

    def _see(self, stop: int) -> None:
        if stop <= self._seen:
            return
        values = self._reader.read(self._seen, stop)
        self._seen = stop
        for channel, known in enumerate(self._hashes):
            known.update(np.ascontiguousarray(values[channel]).tobytes())
        if values.dtype.kind == "f":
            good = int(np.isfinite(values).sum())
            if good < values.size:
                nan = int(np.isnan(values).sum())
                self._nan += nan
                self._infinite += values.size - good - nan


def _window(
    planes: TurnedPlanes, channel: int, normalization: Normalization, moments: Moments
) -> Generator[float, None, Window]:
    """What the normalisation says of one channel."""
    kind = normalization.kind
    if kind == "none":
        return Window(0.0, 1.0, False)
    if kind == "window":
        low, high = normalization.low, normalization.high
        if not low < high:
            raise InputError(f"The window {low:g} to {high:g} is empty; low must be below high.")
        return Window(low, 1 / (high - low), True)
    if kind == "linear":
        return Window(normalization.low, 1 / (normalization.high - normalization.low), False)
    if not moments.maximum > moments.minimum:
        what = "non-zero voxel" if normalization.nonzero else "voxel"
        value = f"is {moments.minimum:g}" if moments.count else "is missing"
        raise InputError(
            f"Every {what} of channel {channel} {value}: there is nothing to tell apart, and "
            f"'{kind}' normalisation is not defined. Pass a volume that varies."
        )
    if kind == "zscore":
        return Window(moments.mean, 1 / float(np.sqrt(moments.squares / moments.count)), False)
    if kind == "minmax":
        return Window(moments.minimum, 1 / (moments.maximum - moments.minimum), True)
    ranks = (normalization.low, normalization.high)
    low, high = yield from _percentiles(
        planes, channel, normalization.nonzero, moments.count, ranks
    )
    if not high > low:
        raise InputError(
            f"Percentiles {ranks[0]:g} and {ranks[1]:g} of channel {channel} are both {low:g}; "
            "use 'zscore' or 'minmax' normalisation, or a window (low, high)."
        )
    return Window(low, 1 / (high - low), True)


@dataclass(frozen=True)
class Moments:
    """Number, extremes, mean and sum of squared differences from the mean."""

    count: int = 0
    minimum: float = np.inf
    maximum: float = -np.inf
    mean: float = 0.0
    squares: float = 0.0

    def merged(self, values: Tensor) -> Moments:
        """With more values (Chan, Golub & LeVeque 1983: stable merging of two samples)."""
        if not values.numel():
            return self
        number, mean = values.numel(), float(values.mean())
        count, away = self.count + number, mean - self.mean
        return Moments(
            count=count,
            minimum=min(self.minimum, float(values.min())),
            maximum=max(self.maximum, float(values.max())),
            mean=self.mean + away * number / count,
            squares=self.squares
            + float((values - mean).square().sum())
            + away**2 * self.count * number / count,
        )


def _percentiles(
    planes: TurnedPlanes, channel: int, nonzero: bool, count: int, percents: tuple[float, float]
) -> Generator[float, None, tuple[float, float]]:
    """Percentiles (linear between order statistics, as `numpy.percentile`) of float32 values.

    Two passes of radix selection over the values' bit patterns: exact, in little memory.
    """
    positions = [(count - 1) * percent / 100 for percent in percents]
    ranks = sorted({int(f(p)) for p in positions for f in (np.floor, np.ceil)})
    coarse = np.zeros(1 << 16, np.int64)
    for start, stop in planes.ranges():
        keys = _sortable(planes.read(channel, start, stop), nonzero)
        coarse += np.bincount(keys >> 16, minlength=1 << 16)
        yield 0.5 * stop / planes.size[0]
    below = np.cumsum(coarse)
    buckets = {rank: int(np.searchsorted(below, rank, side="right")) for rank in ranks}
    fine = {bucket: np.zeros(1 << 16, np.int64) for bucket in buckets.values()}
    for start, stop in planes.ranges():
        keys = _sortable(planes.read(channel, start, stop), nonzero)
        for bucket, counts in fine.items():
            counts += np.bincount(keys[keys >> 16 == bucket] & 0xFFFF, minlength=1 << 16)
        yield 0.5 + 0.5 * stop / planes.size[0]
    values = {}
    for rank, bucket in buckets.items():
        first = int(below[bucket] - coarse[bucket])
        low_bits = int(np.searchsorted(np.cumsum(fine[bucket]), rank - first, side="right"))
        values[rank] = _from_sortable(bucket << 16 | low_bits)
    low, high = (float(np.interp(p, ranks, [values[rank] for rank in ranks])) for p in positions)
    return low, high


def _sortable(values: Tensor, nonzero: bool) -> npt.NDArray[np.uint32]:
    """Unsigned integers that order as the float32 values do."""
    flat = values.ravel()
    bits = (flat[flat != 0] if nonzero else flat).float().numpy().view(np.uint32)
    return np.where(bits >> 31 == 1, ~bits, bits | np.uint32(1 << 31))


def _from_sortable(key: int) -> float:
    bits = key & 0x7FFFFFFF if key >> 31 else ~key & 0xFFFFFFFF
    return float(np.uint32(bits).view(np.float32))
