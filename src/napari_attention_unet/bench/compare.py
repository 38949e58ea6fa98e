"""Contenders over the same volume, in one process, one after the other again and again."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from napari_attention_unet.graph.evaluate import run as evaluate
from napari_attention_unet.model import load_model
from napari_attention_unet.prediction import Step
from napari_attention_unet.volume import Shape3

from .children import CHILD, run_child
from .contenders import CONTENDERS, TIMED, Contender, Outcome, Run
from .networks import flops, network, noise
from .peak import PEAK, Peak
from .results import Comparison, Entry


@dataclass(frozen=True)
class Truth:
    """The float32 forward of the module over the whole volume, and the gates of its plain graph."""

    logits: npt.NDArray[np.float32]
    gates: dict[str, npt.NDArray[np.float32]]

    def error(self, logits: npt.NDArray[np.float32]) -> float:
        """Largest difference over the largest magnitude."""
        return float(np.abs(logits - self.logits).max() / np.abs(self.logits).max())

    def agreement(self, mask: npt.NDArray[np.uint8]) -> float:
        """Share of voxels with the same label."""
        return float((mask == self.logits.argmax(0)).mean())

    def gate_errors(self, gates: dict[str, npt.NDArray[np.float32]]) -> dict[str, float]:
        """Largest difference of each."""
        return {
            name: float(np.abs(values - self.gates[name]).max()) for name, values in gates.items()
        }


def truth(module: nn.Module, voxels: npt.NDArray[np.float32]) -> Truth:
    """Run a module as it is over a whole volume, padded with zeros to its stride.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode.
    voxels : array, shape (z, y, x), float32
        Normalised.
    """
    graph = load_model(module).graph
    pads = [(0, -n % s) for n, s in zip(voxels.shape, graph.stride, strict=True)]
    x = torch.from_numpy(np.pad(voxels, pads))[None, None]
    with torch.inference_mode():
        z, y, x_ = voxels.shape
        logits = module(x)[0, :, :z, :y, :x_].numpy()
        _, gates = evaluate(graph, x)
    return Truth(logits, {name: values.numpy() for name, values in gates.items()})


@dataclass
class _Record:
    contender: Contender
    run: Run
    checked: Outcome
    seconds: list[float] = field(default_factory=list)
    network: list[float] = field(default_factory=list)


def compare_steps(
    name: str, size: Shape3, contenders: Sequence[str], repeats: int
) -> Generator[Step, None, Comparison]:
    """Compare contenders.

    Each runs once to be warm, which is checked against the float32 forward of the whole; then all
    run once a repeat, in the same order, the peak convolution between them. Memory is measured
    last, in a process for each.

    Parameters
    ----------
    name : str
        Of the network; see `network`.
    size : tuple of int
        Of the volume, voxels (z, y, x).
    contenders : sequence of str
        Keys of `CONTENDERS`.
    repeats : int
        Timed runs of each.

    Returns
    -------
    Comparison
    """
    total = 1 + len(contenders) * (repeats + 2)
    done = 0

    def step(message: str) -> Step:
        nonlocal done
        done += 1
        return Step(done - 1, total, f"{name}: {message}")

    yield step("the float32 forward of the whole")
    module, voxels = network(name), noise(size)
    true = truth(module, voxels)
    records = []
    for key in contenders:
        contender = CONTENDERS[key]
        yield step(f"{contender.title}, to be warm")
        run = contender.prepare(module)
        records.append(_Record(contender, run, run(voxels, True)))
    peaks = {dtype: Peak(dtype) for dtype in {r.contender.dtype for r in records}}
    for repeat in range(repeats):
        for record in records:
            yield step(f"{record.contender.title}, {repeat + 1} of {repeats}")
            peaks[record.contender.dtype].measure()
            _time(record, voxels)
    work = flops(module, size)
    entries = []
    for record in records:
        yield step(f"{record.contender.title}, memory")
        job = {
            "job": "memory",
            "network": name,
            "size": size,
            "contender": record.contender.name,
            "threads": torch.get_num_threads(),
        }
        memory = run_child(CHILD, job)
        best = peaks[record.contender.dtype].best
        entries.append(_entry(record, true, work, best, memory))
    return Comparison(
        network=name,
        size=size,
        gflop=work / 1e9,
        peaks={_name(dtype): peak.best / 1e9 for dtype, peak in peaks.items()},
        timed=TIMED,
        peak=PEAK,
        entries=tuple(entries),
    )


def _time(record: _Record, voxels: npt.NDArray[np.float32]) -> None:
    start = perf_counter()
    outcome = record.run(voxels, False)
    record.seconds.append(perf_counter() - start)
    if outcome.network is not None:
        record.network.append(outcome.network)


def _entry(record: _Record, true: Truth, work: float, best: float, memory: dict[str, int]) -> Entry:
    checked = record.checked
    assert checked.logits is not None
    useful = work / median(record.seconds)
    alone = work / median(record.network) if record.network else None
    return Entry(
        contender=record.contender.name,
        title=record.contender.title,
        dtype=_name(record.contender.dtype),
        seconds=tuple(record.seconds),
        network=tuple(record.network),
        useful=useful / 1e9,
        useful_network=None if alone is None else alone / 1e9,
        share=(alone or useful) / best,
        memory_before=memory["before"],
        memory_peak=memory["peak"],
        logits_error=true.error(checked.logits),
        mask_agreement=true.agreement(checked.mask),
        gate_errors=true.gate_errors(dict(checked.gates)),
        notes=checked.notes,
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
