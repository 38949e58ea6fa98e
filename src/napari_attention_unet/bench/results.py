"""What a measurement gives, in forms that go to JSON and back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from napari_attention_unet.volume import Shape3


@dataclass(frozen=True)
class Timing:
    """Seconds of repeated runs."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return median(self.seconds)

    @property
    def spread(self) -> str:
        """The fastest and the slowest."""
        return f"{min(self.seconds):.3g} - {max(self.seconds):.3g}"


@dataclass(frozen=True)
class Entry:
    """One contender of a comparison.

    Attributes
    ----------
    contender, title, dtype : str
        Who, and in which dtype it computes.
    seconds : tuple of float
        Of each repeat, in order.
    network : tuple of float
        Of the network's part in each repeat (reading planes and labelling them as they come
        included); empty where it is not told.
    useful : float
        GFLOP/s: the work of one whole pass over the median time of the whole.
    useful_network : float or None
        The same over the median time of the network's part.
    share : float
        `useful_network`, or `useful` where there is none, over the peak of the dtype.
    memory_before, memory_peak : int or None
        Bytes that a process of its own held before, and at most during, one warm run.
    logits_error : float
        Largest difference to the float32 forward of the whole, over the largest magnitude of that.
    mask_agreement : float
        Share of voxels with the same label as the float32 forward of the whole gives.
    gate_errors : dict of str to float
        Largest difference of each gate's coefficients; empty where none are given.
    notes : list of str
        How it ran.
    """

    contender: str
    title: str
    dtype: str
    seconds: tuple[float, ...]
    network: tuple[float, ...]
    useful: float
    useful_network: float | None
    share: float
    memory_before: int | None
    memory_peak: int | None
    logits_error: float
    mask_agreement: float
    gate_errors: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def timing(self) -> Timing:
        """Of the repeats."""
        return Timing(self.seconds)


@dataclass(frozen=True)
class Comparison:
    """Contenders over one network and volume, in one process, interleaved.

    Attributes
    ----------
    network : str
    size : tuple of int
        Voxels (z, y, x).
    gflop : float
        Work of one whole pass.
    peaks : dict of str to float
        GFLOP/s of the peak convolution by dtype, best of those between the repeats.
    timed, peak : str
        What was timed; what the peak is.
    entries : tuple of Entry
    """

    network: str
    size: Shape3
    gflop: float
    peaks: dict[str, float]
    timed: str
    peak: str
    entries: tuple[Entry, ...]

    def entry(self, contender: str) -> Entry:
        """That of a contender."""
        return next(e for e in self.entries if e.contender == contender)

    def ratio(self, ours: str, against: str) -> float:
        """How many times the median of `ours` the other one's is."""
        return self.entry(against).timing.median / self.entry(ours).timing.median


@dataclass(frozen=True)
class Row:
    """A case: what was reached, beside what is aimed at.

    Attributes
    ----------
    case, title : str
    aim : str
        What is to be reached, in words; empty where nothing is.
    reached : float or None
        None where the measurement failed.
    text : str
        It in words, with unit and spread.
    details : dict
        Plain JSON types.
    error : str
        Why it failed; empty where it did not.
    """

    case: str
    title: str
    aim: str
    reached: float | None
    text: str
    details: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    def as_json(self) -> dict[str, Any]:
        """In plain JSON types."""
        return asdict(self)
