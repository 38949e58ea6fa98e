"""The first run of a fresh process, imports and preparation apart."""

from __future__ import annotations

from collections.abc import Generator

import torch

from napari_attention_unet.prediction import Step
from napari_attention_unet.volume import Shape3

from .children import CHILD, run_child
from .how import How
from .results import Row, Timing

NAME = "first-run"
AIMS = {NAME: "≥ 5.5×"}
_NETWORK, _SIZE = "blog16", (160, 160, 160)
_OURS, _AGAINST = "ours-auto", "monai-defaults"


def steps(how: How) -> Generator[Step, None, list[Row]]:
    """Ours against MONAI's defaults, each in a process of its own, by turns."""
    size: Shape3 = how.size or _SIZE
    found: dict[str, list[dict[str, float]]] = {_OURS: [], _AGAINST: []}
    for index in range(2 * how.repeats):
        contender = (_OURS, _AGAINST)[index % 2]
        yield Step(index, 2 * how.repeats, f"first run of {contender} in a fresh process")
        job = {
            "job": "first_run",
            "network": _NETWORK,
            "size": size,
            "contender": contender,
            "threads": torch.get_num_threads(),
        }
        found[contender].append(run_child(CHILD, job))

    def timing(contender: str, part: str) -> Timing:
        return Timing(tuple(run[part] for run in found[contender]))

    ours, other = timing(_OURS, "first_run"), timing(_AGAINST, "first_run")
    reached = other.median / ours.median
    parts = " s, ".join(
        f"{part} {timing(_OURS, part).median:.2g}" for part in ("importing", "preparing")
    )
    text = (
        f"{reached:.2f}×: {ours.median:.3g} s ({ours.spread}) against {other.median:.3g} s "
        f"({other.spread}); ours apart: {parts} s"
    )
    title = (
        f"{_NETWORK}, {'×'.join(map(str, size))}, auto precision, first run in a fresh process "
        "(lowering and kernel trials included, import and tracing apart) against MONAI's defaults"
    )
    return [Row(NAME, title, AIMS[NAME], reached, text, found)]
