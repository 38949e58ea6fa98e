"""What a run is asked for, and what it answers: frozen, and the only things that cross threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from napari_attention_unet.inspect.measures import GateMeasures
from napari_attention_unet.prediction import Prediction, Region, Slices
from napari_attention_unet.settings import Settings
from napari_attention_unet.volume import Vec3, Volume


@dataclass(frozen=True)
class Request:
    """Everything that a run needs to know.

    Attributes
    ----------
    volumes : tuple of Volume
        One a time point, in order.
    model : str
        Bundled name or path of a checkpoint.
    settings : Settings
        How it is run.
    """

    volumes: tuple[Volume, ...]
    model: str
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes
    ----------
    generation : int
        Of the run.
    fraction : float or None
        Share that is done, 0..1; None while it cannot be told.
    message : str
        What is going on.
    seconds_left : float or None
        Estimated time to the end; None while it cannot be told.
    region : Region or None
        What of the result was finished since the last progress that had one.
    index : int
        Of the volume that is run.
    """

    generation: int
    fraction: float | None
    message: str
    seconds_left: float | None = None
    region: Region | None = None
    index: int = 0


@dataclass(frozen=True)
class Answer:
    """How a run ended: with predictions, with an error, or cancelled (neither).

    Attributes
    ----------
    generation : int
        Of the run.
    predictions : tuple of Prediction
        One a time point; empty unless the run came to its end.
    measures : tuple of tuples of GateMeasures
        Every gate's statistics, one tuple a time point.
    error : str
        What went wrong, in one sentence; empty if nothing did.
    details : str
        The traceback of an unexpected error, for a report.
    seconds : float
        How long the run took.
    freed : int
        Bytes of memory that the process gave back when the run was cancelled.
    partial : tuple of Prediction
        What was computed of a run that did not come to its end, one a time point, the last of them
        in parts.
    """

    generation: int
    predictions: tuple[Prediction, ...] = ()
    measures: tuple[tuple[GateMeasures, ...], ...] = ()
    error: str = ""
    details: str = ""
    seconds: float = 0.0
    freed: int = 0
    partial: tuple[Prediction, ...] = ()


def together(earlier: Region | None, later: Region | None) -> Region | None:
    """What two regions of a run, one after the other, say at once."""
    if earlier is None or later is None or earlier.partial is not later.partial:
        return later or earlier
    boxes = dict(earlier.gates)
    for name, box in later.gates.items():
        boxes[name] = _around(boxes[name], box) if name in boxes else box
    mask = later.mask
    if mask is None or earlier.mask is None:
        return Region(later.partial, mask or earlier.mask, boxes)
    return Region(later.partial, _around(earlier.mask, mask), boxes)


def _around(one: Slices, other: Slices) -> Slices:
    z, y, x = (
        slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True)
    )
    return z, y, x


def parse_spacing(text: str) -> Vec3 | None:
    """Read a voxel size: ``"2"`` or ``"3, 1, 1"`` along z, y, x; None for an empty text.

    Raises
    ------
    ValueError
        If it is not one or three positive numbers; the message says so.
    """
    words = text.replace("×", " ").replace("x", " ").replace(",", " ").replace(";", " ").split()
    if not words:
        return None
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3 or not all(0 < n < float("inf") for n in numbers):
        raise ValueError(
            f"The voxel size '{text}' is not understood: give one number, or three as z, y, x."
        )
    return numbers[0], numbers[1], numbers[2]


def duration(seconds: float) -> str:
    """A time as a person says it: ``"0.4 s"``, ``"12 s"``, ``"3 min 20 s"``, ``"2 h 5 min"``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(count: float) -> str:
    """Bytes as a person says them: ``"312 MiB"``, ``"4.2 GiB"``."""
    if count >= 2**30:
        return f"{count / 2**30:.1f} GiB"
    return f"{count / 2**20:.0f} MiB"


def shape_text(shape: Sequence[int]) -> str:
    """``"91 × 109 × 91"``."""
    return " × ".join(str(int(n)) for n in shape)
