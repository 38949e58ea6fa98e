"""The cases by name, what each aims at, and running them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from napari_attention_unet.errors import AttentionUNetError, InputError
from napari_attention_unet.prediction import Step
from napari_attention_unet.volume import Shape3

from . import exact, first_run, lazy, viewer
from .compare import compare_steps
from .contenders import CONTENDERS
from .how import How
from .results import Comparison, Row, Timing

#: Volumes of the comparisons, voxels (z, y, x).
SIZES: dict[str, Shape3] = {
    "blog16": (160, 160, 160),
    "blog64": (128, 128, 96),
    "monai": (160, 160, 160),
}
#: Where a network has no size of its own.
SIZE: Shape3 = (160, 160, 160)


@dataclass(frozen=True)
class Versus:
    """A case of a comparison: ours against another, or against the peak of the machine.

    Attributes
    ----------
    name, network : str
    ours, against : str
        Contenders; `against` is empty for the share of the peak.
    least : float or None
        What is aimed at.
    """

    name: str
    network: str
    ours: str
    against: str
    least: float | None

    @property
    def aim(self) -> str:
        """In words; empty where nothing is aimed at."""
        unit = "×" if self.against else ""
        return "" if self.least is None else f"≥ {self.least:g}{unit}"

    def row(self, comparison: Comparison) -> Row:
        """What was reached."""
        ours = comparison.entry(self.ours)
        title = f"{comparison.network}, {'×'.join(map(str, comparison.size))}, {ours.title}"
        if not self.against:
            seconds = Timing(ours.network or ours.seconds)
            rate = ours.useful_network or ours.useful
            return Row(
                self.name,
                f"{title}: useful rate of the network over the {ours.dtype} peak",
                self.aim,
                ours.share,
                f"{ours.share:.2f}: {rate:.0f} of {comparison.peaks[ours.dtype]:.0f} GFLOP/s "
                f"({seconds.median:.3g} s, {seconds.spread})",
                {"seconds": list(seconds.seconds)},
            )
        other = comparison.entry(self.against)
        reached = comparison.ratio(self.ours, self.against)
        return Row(
            self.name,
            f"{title}, against {other.title}",
            self.aim,
            reached,
            f"{reached:.2f}×: {ours.timing.median:.3g} s ({ours.timing.spread}) against "
            f"{other.timing.median:.3g} s ({other.timing.spread})",
            {"ours": list(ours.seconds), "against": list(other.seconds)},
        )


_AUTO, _FLOAT32, _DEFAULTS, _BEST = "ours-auto", "ours-float32", "monai-defaults", "monai-best"
COMPARISONS: tuple[Versus, ...] = (
    Versus("blog16-auto", "blog16", _AUTO, _DEFAULTS, 7.5),
    Versus("blog16-float32", "blog16", _FLOAT32, _DEFAULTS, 3.7),
    Versus("blog16-autocast", "blog16", _AUTO, "monai-autocast", 2.5),
    Versus("blog16-best", "blog16", _AUTO, _BEST, 1.75),
    Versus("blog16-nnunet", "blog16", _AUTO, "nnunet", 24),
    Versus("blog64-auto", "blog64", _AUTO, _DEFAULTS, 6),
    Versus("blog64-best", "blog64", _AUTO, _BEST, 2.4),
    Versus("monai-auto", "monai", _AUTO, _DEFAULTS, 6.5),
    Versus("monai-best", "monai", _AUTO, _BEST, 2.4),
    Versus("monai-float32", "monai", _FLOAT32, _DEFAULTS, 3.4),
    Versus("blog16-rate-auto", "blog16", _AUTO, "", 0.78),
    Versus("blog64-rate-auto", "blog64", _AUTO, "", 0.88),
    Versus("blog16-rate-float32", "blog16", _FLOAT32, "", 0.77),
    Versus("blog64-rate-float32", "blog64", _FLOAT32, "", 0.90),
    # three quarters of an hour, and nothing is aimed at: only where it is asked for by name
    Versus("nnunet-mirroring", "blog16", _AUTO, "nnunet-mirroring", None),
)
#: The other cases: aims by name, and what measures them together.
OTHERS: tuple[tuple[dict[str, str], Callable[[How], Generator[Step, None, list[Row]]]], ...] = (
    (first_run.AIMS, first_run.steps),
    (lazy.FLAT_AIMS, lazy.flat_steps),
    (lazy.LARGE_AIMS, lazy.large_steps),
    (exact.BLOG_AIMS, exact.blog_steps),
    (exact.FAMILY_AIMS, exact.families_steps),
    (exact.BUNDLED_AIMS, exact.bundled_steps),
    (viewer.AIMS, viewer.steps),
)
Measuring = Generator[Step | Row | Comparison, None, None]


def names() -> list[str]:
    """Of all cases."""
    return [*(case.name for case in COMPARISONS), *(name for aims, _ in OTHERS for name in aims)]


def chosen(wanted: Sequence[str]) -> list[str]:
    """The cases that are meant: by name, or all whose names begin with ``"wanted-"``.

    Raises
    ------
    InputError
        If there is none.
    """
    found: list[str] = []
    for word in wanted:
        named = [n for n in names() if n == word] or [
            n for n in names() if n.startswith(f"{word}-")
        ]
        if not named:
            raise InputError(f"There is no case '{word}'; the cases are {', '.join(names())}.")
        found.extend(named)
    return list(dict.fromkeys(found))


def aimed_at() -> list[str]:
    """The cases with an aim."""
    without = {case.name for case in COMPARISONS if case.least is None}
    return [name for name in names() if name not in without]


def measure_steps(wanted: Sequence[str], how: How) -> Measuring:
    """Measure cases; those of one network together, interleaved in this process.

    Parameters
    ----------
    wanted : sequence of str
        Names of cases.
    how : How

    Yields
    ------
    Step, Row or Comparison
        Progress, and results as they come. A case that fails gives a row that says why, and the
        others go on.
    """
    for network in dict.fromkeys(case.network for case in COMPARISONS if case.name in wanted):
        cases = [c for c in COMPARISONS if c.network == network and c.name in wanted]
        contenders = dict.fromkeys(
            name for pick in ("ours", "against") for c in cases if (name := getattr(c, pick))
        )
        steps = compare_steps(
            network, how.size or SIZES.get(network, SIZE), list(contenders), how.repeats
        )
        try:
            comparison = yield from steps
        except Exception as error:  # whatever it is, the other cases are worth having
            yield from (_failed(c.name, c.aim, error) for c in cases)
        else:
            yield comparison
            yield from (case.row(comparison) for case in cases)
    for aims, measure in OTHERS:
        if not set(aims) & set(wanted):
            continue
        try:
            yield from (yield from measure(how))
        except Exception as error:
            yield from (_failed(name, aim, error) for name, aim in aims.items())


def _failed(name: str, aim: str, error: Exception) -> Row:
    known = isinstance(error, AttentionUNetError)
    why = str(error) if known else f"{type(error).__name__}: {error}"
    return Row(name, name, aim, None, "", error=why)


def compare_all(network: str, how: How) -> Measuring:
    """Compare all contenders but the mirroring one over one network; see `measure_steps`."""
    contenders = [name for name in CONTENDERS if name != "nnunet-mirroring"]
    size = how.size or SIZES.get(network, SIZE)
    yield (yield from compare_steps(network, size, contenders, how.repeats))
