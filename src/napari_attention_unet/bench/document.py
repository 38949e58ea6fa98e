"""Results of measurements as a JSON file that grows, and as a page to read."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from napari_attention_unet.errors import InputError

from .machine import load, machine
from .results import Comparison, Entry, Row, Timing

#: Grows where a key changes its meaning.
FORMAT = 1


class Document:
    """What was measured on one machine; what is measured again replaces what was.

    Parameters
    ----------
    path : Path or None
        A JSON file to begin with where it exists.

    Raises
    ------
    InputError
        If the file is none of these, or is of another machine or other versions.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.content: dict[str, Any] = {
            "format": FORMAT,
            "machine": machine(),
            "cases": {},
            "comparisons": {},
        }
        if path is None or not path.exists():
            return
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
            form, where = known["format"], known["machine"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"'{path}' holds no benchmark results; choose another file."
            ) from error
        if form != FORMAT or where != self.content["machine"]:
            changed = [k for k, v in self.content["machine"].items() if where.get(k) != v]
            raise InputError(
                f"'{path}' holds results of another machine or other versions "
                f"({', '.join(changed) or 'format'}); choose another file, or remove it."
            )
        self.content = known

    def add(self, result: Row | Comparison, repeats: int) -> None:
        """Keep a result."""
        now = datetime.now().astimezone().isoformat(timespec="minutes")
        kept = {**asdict(result), "repeats": repeats, "measured": now, "load": load()}
        if isinstance(result, Row):
            self.content["cases"][result.case] = kept
        else:
            who = ", ".join(e.contender for e in result.entries)
            size = "×".join(map(str, result.size))
            self.content["comparisons"][f"{result.network}, {size}: {who}"] = kept

    def write(self, path: Path) -> None:
        """Write the JSON file, beside its place first."""
        text = json.dumps(self.content, indent=1, ensure_ascii=False)
        _replace(path, text + "\n")

    def write_markdown(self, path: Path) -> None:
        """Write the page."""
        _replace(path, self.markdown())

    def markdown(self) -> str:
        """The page: the machine, the cases, then each comparison."""
        known = self.content["machine"]
        lines = [
            "# Benchmarks",
            "",
            "Made by `napari-attention-unet bench`. Medians of repeated runs that took turns in "
            "one process, fastest and slowest in brackets.",
            "",
            "## Machine",
            "",
            *(f"- {name.replace('_', ' ')}: {_words(value)}" for name, value in known.items()),
            "",
        ]
        if rows := self.content["cases"]:
            lines += ["## Cases", "", *_table(("case", "what", "aim", "reached"), rows.values())]
        for kept in self.content["comparisons"].values():
            lines += _comparison(kept)
        return "\n".join(lines) + "\n"


def _table(headings: tuple[str, ...], rows: Any) -> list[str]:
    made = [_line(headings), _line(["---"] * len(headings))]
    for row in rows:
        reached = row["text"] if not row["error"] else f"not measured: {row['error']}"
        made.append(_line([f"`{row['case']}`", row["title"], row["aim"], reached]))
    return [*made, ""]


def _line(cells: Any) -> str:
    return "| " + " | ".join(str(c).replace("|", "\\|").replace("\n", " ") for c in cells) + " |"


#: Columns of a comparison.
HEADINGS = (
    "contender",
    "seconds",
    "GFLOP/s, whole run",
    "GFLOP/s, network",
    "of peak",
    "peak memory (before), GiB",
    "error of logits",
    "same labels",
    "error of gates",
)


def cells(entry: Entry) -> list[str]:
    """A contender's row beneath `HEADINGS`."""
    gib = 1 << 30
    memory = "-"
    if entry.memory_peak is not None and entry.memory_before is not None:
        memory = f"{entry.memory_peak / gib:.2f} ({entry.memory_before / gib:.2f})"
    seconds = Timing(tuple(entry.seconds))
    return [
        entry.contender,
        f"{seconds.median:.3g} ({seconds.spread})",
        f"{entry.useful:.3g}",
        "-" if entry.useful_network is None else f"{entry.useful_network:.3g}",
        f"{entry.share:.2f}",
        memory,
        f"{entry.logits_error:.1e}",
        f"{100 * entry.mask_agreement:.2f} %",
        f"{max(entry.gate_errors.values()):.1e}" if entry.gate_errors else "none given",
    ]


def _comparison(kept: dict[str, Any]) -> list[str]:
    fields = ("repeats", "measured", "load")
    entries = [Entry(**entry) for entry in kept["entries"]]
    peaks = ", ".join(f"{dtype} {rate:.0f}" for dtype, rate in kept["peaks"].items())
    size = "×".join(map(str, kept["size"]))
    return [
        f"## {kept['network']}, {size} voxels",
        "",
        f"{kept['timed']}",
        "",
        f"Work of one whole pass: {kept['gflop']:.4g} GFLOP; useful rates count no more than that. "
        f"Peak in GFLOP/s ({kept['peak']}; best of the runs between the others): {peaks}. Peak "
        "memory is that of a process for each contender, over one warm run. Errors are to the "
        "float32 forward of the whole: of logits relative to the largest, of gates absolute.",
        "",
        _line(HEADINGS),
        _line(["---"] * len(HEADINGS)),
        *(_line(cells(entry)) for entry in entries),
        "",
        *(f"- {e.contender}: {'; '.join([e.title, *e.notes])}" for e in entries),
        "- " + ", ".join(f"{name} {kept[name]}" for name in fields),
        "",
    ]


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {inner}" for name, inner in value.items()) or "none"
    return (
        {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)
    )


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)
