"""The checkpoints of a training, in the order in which they were saved."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_attention_unet.errors import InputError

_SUFFIXES = (".safetensors", ".pth.tar", ".pth", ".pt", ".ckpt", ".pkl", ".tar", ".bin")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_WORDS = {
    "epoch": "epoch",
    "ep": "epoch",
    "e": "epoch",
    "step": "step",
    "iteration": "iteration",
    "iter": "iteration",
    "it": "iteration",
}
_WORD = re.compile(r"([a-z]+)[^a-z0-9]*$")


@dataclass(frozen=True)
class Series:
    """Checkpoints of one training.

    Attributes
    ----------
    paths : tuple of Path
        In order.
    numbers : tuple of float
        Epoch, step or whatever number orders them.
    word : str
        What the number counts: ``"epoch"``, ``"step"``, ``"iteration"``, or ``"number"`` where
        the names do not say.
    skipped : tuple of (Path, str)
        Files that do not belong to it, and why.
    """

    paths: tuple[Path, ...]
    numbers: tuple[float, ...]
    word: str
    skipped: tuple[tuple[Path, str], ...] = ()


def find_series(source: str | Path | Sequence[str | Path]) -> Series:
    """Find the checkpoints of a training and their order.

    Parameters
    ----------
    source : folder, or sequence of files
        Of a folder, the checkpoints in it (those of its folders where it has none itself). Names
        that differ in numbers alone are a series, ordered by the number that differs; where
        there are several such series, the longest is taken. Files that are listed are ordered by
        that number as well if their names have one, otherwise they stay as they are listed.

    Raises
    ------
    InputError
        If there is no such folder, or no checkpoint in it.
    """
    if isinstance(source, (str, Path)):
        folder = Path(source)
        if not folder.is_dir():
            raise InputError(f"'{folder}' is not a folder; give one with checkpoints, or a list.")
        return _longest(_checkpoints(folder), folder)
    paths = [Path(path) for path in source]
    if not paths:
        raise InputError("No checkpoints were given; name at least one.")
    made = _ordered(paths, [path.name for path in paths])
    return made or Series(tuple(paths), tuple(float(n) for n in range(len(paths))), "number")


def _checkpoints(folder: Path) -> list[Path]:
    for pattern in ("*", "*/*"):
        found = [p for p in folder.glob(pattern) if p.is_file() and _suffix(p.name)]
        if found:
            return sorted(found)
    raise InputError(
        f"'{folder}' has no checkpoints; files that end in {', '.join(_SUFFIXES)} are taken for "
        "such."
    )


def _longest(paths: list[Path], folder: Path) -> Series:
    names = {path: path.relative_to(folder).as_posix() for path in paths}
    groups: dict[str, list[Path]] = defaultdict(list)
    for path, name in names.items():
        groups[_NUMBER.sub("#", _stem(name)) + _suffix(name)].append(path)
    # of series that are equally long, the kind of file that loads fastest
    order = {suffix: index for index, suffix in enumerate(_SUFFIXES)}
    ranked = sorted(groups.values(), key=lambda g: (-len(g), order[_suffix(g[0].name)]))
    made = None
    for chosen in ranked:
        made = _ordered(chosen, [names[path] for path in chosen])
        if made is not None:
            break
    if made is None:
        if len(paths) > 1:
            raise InputError(
                f"The names of the {len(paths)} checkpoints in '{folder}' have no number that "
                "orders them; list the files in order instead."
            )
        made = Series(tuple(paths), (0.0,), "number")
    skipped = tuple((p, "not of the same series") for p in paths if p not in made.paths)
    return Series(made.paths, made.numbers, made.word, skipped)


def _ordered(paths: Sequence[Path], names: Sequence[str]) -> Series | None:
    """The paths by the number in their names that differs; None where there is no such number."""
    stems = [_stem(name) for name in names]
    if len({_NUMBER.sub("#", stem) for stem in stems}) > 1:
        return None
    columns = list(zip(*([*_NUMBER.finditer(stem)] for stem in stems), strict=True))
    best: tuple[int, int, list[float], str] | None = None
    for position, column in enumerate(columns):
        numbers = [float(match.group()) for match in column]
        if len(set(numbers)) < len(numbers):
            continue
        word = _word_before(stems[0], column[0].start())
        whole = all(number.is_integer() for number in numbers)
        rank = 0 if word != "number" else 1 if whole else 2
        if best is None or (rank, position) < best[:2]:
            best = (rank, position, numbers, word)
    if best is None:
        return None
    *_, numbers, word = best
    order = sorted(range(len(paths)), key=lambda i: numbers[i])
    return Series(tuple(paths[i] for i in order), tuple(numbers[i] for i in order), word)


def _word_before(stem: str, position: int) -> str:
    before = _WORD.search(stem[:position].lower())
    return "number" if before is None else _WORDS.get(before.group(1), "number")


def _suffix(name: str) -> str:
    return next((suffix for suffix in _SUFFIXES if name.lower().endswith(suffix)), "")


def _stem(name: str) -> str:
    return name[: len(name) - len(_suffix(name))]
