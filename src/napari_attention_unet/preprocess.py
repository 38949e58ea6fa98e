"""From a volume to the tensor that the network reads.

The array is read once, lazily, a few planes at a time; statistics are taken in float64 over the
whole volume, on the network's voxel size, and never per tile. Every function that takes time is
a generator of the share that is done, so that a run can be followed and stopped.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_attention_unet.errors import InputError
from napari_attention_unet.frame import Frame, Resampling
from napari_attention_unet.models.card import NORMALIZATIONS, ModelCard, Normalization
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
        if option in NORMALIZATIONS and option != "window":
            return Normalization(option)
    elif isinstance(option, (tuple, list)) and len(option) == 2:
        low, high = (float(v) for v in option)
        if low < high:
            return Normalization("window", low, high)
    raise InputError(
        f"normalize={option!r} is not known; use 'card', 'zscore', 'percentile', 'minmax', 'none', "
        "or a window (low, high) with low < high."
    )


def prepare(
    volume: Volume, frame: Frame, normalization: Normalization, padding_value: float = 0.0
) -> Generator[float, None, Tensor]:
    """Read, turn, resample, normalise and pad a volume.

    Parameters
    ----------
    volume : Volume
        What to read.
    frame : Frame
        The network's grid in it.
    normalization : Normalization
        Of each channel by itself.
    padding_value : float
        Of the padding at the end of each axis, after normalisation.

    Yields
    ------
    float
        Share that is done, 0..1.

    Returns
    -------
    Tensor, shape (1, channel, z, y, x), float32
        Spatial shape ``frame.padded``.

    Raises
    ------
    InputError
        For NaN or infinite voxels, and where the intensities do not vary enough to be normalised.
    """
    raw = yield from _portion(_load(volume), 0.0, 0.4)
    yield from _portion(_refuse_non_finite(raw), 0.4, 0.5)
    planes = Planes(frame.turn(raw), frame.size, frame.to_network())
    # channels last, as most devices want it: the run then needs no copy
    out = torch.empty(
        (1, volume.channels, *frame.padded), memory_format=torch.channels_last_3d
    ).fill_(padding_value)
    each = 0.5 / volume.channels
    for channel in range(volume.channels):
        start = 0.5 + each * channel
        window = yield from _portion(
            _window(planes, channel, normalization), start, start + each * 0.6
        )
        yield from _portion(
            _normalise(planes, channel, window, out), start + each * 0.6, start + each
        )
    return out


@dataclass(frozen=True)
class Window:
    """Intensity that becomes 0, factor after it, and whether to clip to 0..1."""

    zero: float
    factor: float
    clip: bool


@dataclass(frozen=True)
class Planes:
    """The turned array, read as float64 planes of the network's grid."""

    array: npt.NDArray[Any]
    size: Shape3
    resampling: Resampling

    def ranges(self) -> Iterator[tuple[int, int]]:
        """Ranges of planes, each small enough to be handled at once."""
        return slabs(self.size)

    def read(self, channel: int, start: int, stop: int) -> Tensor:
        """Planes ``start..stop`` of one channel, shape (z, y, x), float64."""
        low, high = self.resampling.reads(start, stop)
        # a copy in native byte order: torch knows neither the other order nor negative strides
        source = self.array[channel : channel + 1, low:high].astype(np.float64, order="C")
        return self.resampling.run(torch.from_numpy(source), start, stop)[0]


def slabs(shape: Shape3, channels: int = 1) -> Iterator[tuple[int, int]]:
    """Ranges along the first axis of at most `SLAB_VOXELS` values, at least one plane each."""
    step = max(1, SLAB_VOXELS // max(1, channels * shape[1] * shape[2]))
    for start in range(0, shape[0], step):
        yield start, min(start + step, shape[0])


def _portion(
    work: Generator[float, None, T], start: float, stop: float
) -> Generator[float, None, T]:
    """Run a part of a larger work that goes from `start` to `stop`."""
    try:
        while True:
            yield start + (stop - start) * next(work)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        work.close()


def _load(volume: Volume) -> Generator[float, None, npt.NDArray[Any]]:
    """The whole array in memory, in its own dtype; a numpy array is not copied."""
    data = volume.data
    if isinstance(data, np.ndarray):
        yield 1.0
        return data
    planes = volume.shape[0]
    chunks = getattr(data, "chunks", None)
    along = chunks[1] if chunks is not None and len(chunks) == 4 else 1
    chunk = max(along) if isinstance(along, tuple) else int(along)
    voxels = volume.channels * volume.shape[1] * volume.shape[2]
    step = chunk * max(1, SLAB_VOXELS // (voxels * chunk))
    raw = np.empty(data.shape, data.dtype)
    for start in range(0, planes, step):
        stop = min(start + step, planes)
        try:
            raw[:, start:stop] = np.asarray(data[:, start:stop])
        except MemoryError:
            raise
        except Exception as error:  # whatever a lazy source may raise
            raise InputError(
                f"Planes {start} to {stop - 1} of the volume could not be read: "
                f"{type(error).__name__}: {error}. Check the source that the array reads from."
            ) from error
        yield stop / planes
    return raw


def _refuse_non_finite(raw: npt.NDArray[Any]) -> Generator[float, None, None]:
    if raw.dtype.kind != "f":
        return
    nan = infinite = 0
    shape = (raw.shape[1], raw.shape[2], raw.shape[3])
    for start, stop in slabs(shape, raw.shape[0]):
        planes = raw[:, start:stop]
        good = int(np.isfinite(planes).sum())
        if good < planes.size:
            missing = int(np.isnan(planes).sum())
            nan += missing
            infinite += planes.size - good - missing
        yield stop / shape[0]
    if nan or infinite:
        found = " and ".join(
            f"{count} {word}" for count, word in ((nan, "NaN"), (infinite, "infinite")) if count
        )
        raise InputError(
            f"The volume has {found} of {raw.size} voxels; replace them first, for example with "
            "numpy.nan_to_num(volume, posinf=0, neginf=0)."
        )


def _window(
    planes: Planes, channel: int, normalization: Normalization
) -> Generator[float, None, Window]:
    """Measure what the normalisation needs of one channel."""
    kind = normalization.kind
    if kind == "none":
        return Window(0.0, 1.0, False)
    if kind == "window":
        low, high = normalization.low, normalization.high
        if not low < high:
            raise InputError(f"The window {low:g} to {high:g} is empty; low must be below high.")
        return Window(low, 1 / (high - low), True)
    portion = 1 / 3 if kind == "percentile" else 1.0
    moments = yield from _portion(_measure(planes, channel, normalization.nonzero), 0.0, portion)
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
    low, high = yield from _portion(
        _percentiles(planes, channel, normalization.nonzero, moments.count, ranks), portion, 1.0
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


def _measure(planes: Planes, channel: int, nonzero: bool) -> Generator[float, None, Moments]:
    moments = Moments()
    for start, stop in planes.ranges():
        values = planes.read(channel, start, stop)
        moments = moments.merged(values[values != 0] if nonzero else values)
        yield stop / planes.size[0]
    return moments


def _percentiles(
    planes: Planes, channel: int, nonzero: bool, count: int, percents: tuple[float, float]
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


def _normalise(
    planes: Planes, channel: int, window: Window, out: Tensor
) -> Generator[float, None, None]:
    _, y, x = planes.size
    for start, stop in planes.ranges():
        values = (planes.read(channel, start, stop) - window.zero) * window.factor
        piece = out[0, channel, start:stop, :y, :x]
        piece.copy_(values.clamp(0, 1) if window.clip else values)
        if not piece.isfinite().all():
            raise InputError(
                f"Intensities of channel {channel} are up to {float(values.abs().max()):.3g} after "
                "normalisation, too large for float32; use 'zscore', 'percentile' or a window."
            )
        yield stop / planes.size[0]
