from __future__ import annotations

from statistics import median

import pytest
import torch

from napari_attention_unet.bench import compare, contenders
from napari_attention_unet.bench.compare import compare_steps
from napari_attention_unet.bench.contenders import CONTENDERS
from napari_attention_unet.bench.networks import flops, network
from napari_attention_unet.bench.peak import Peak
from napari_attention_unet.bench.results import Comparison, Entry
from napari_attention_unet.graph.lower import finished

pytest.importorskip("monai")


def entry(contender: str, *seconds: float) -> Entry:
    return Entry(contender, contender, "float32", seconds, (), 1.0, None, 0.5, 1, 2, 0.0, 1.0)


def test_ratios_are_of_medians():
    made = Comparison(
        "blog2",
        (1, 1, 1),
        1.0,
        {},
        "",
        "",
        (entry("ours-auto", 1, 9, 2), entry("monai-defaults", 30, 8, 7)),
    )
    assert made.ratio("ours-auto", "monai-defaults") == 4
    assert made.entry("ours-auto").timing.spread == "1 - 9"


def test_contenders_take_turns(monkeypatch):
    order = []
    monkeypatch.setattr(contenders, "WINDOW", (16, 16, 16))
    monkeypatch.setattr(compare, "run_child", lambda module, job: {"before": 10, "peak": 30})

    def noted(name, prepare):
        def prepared(module):
            run = prepare(module)

            def noting(voxels, logits):
                order.append((name, logits))
                return run(voxels, logits)

            return noting

        return prepared

    names = ["ours-float32", "monai-defaults"]
    for name in names:
        contender = CONTENDERS[name]
        monkeypatch.setitem(
            CONTENDERS,
            name,
            contenders.Contender(name, contender.title, noted(name, contender.prepare)),
        )
    size = (16, 32, 16)
    steps = compare_steps("blog2", size, names, 3)
    seen = []
    try:
        while True:
            seen.append(next(steps))
    except StopIteration as end:
        made = end.value
    warm, timed = order[:2], order[2:]
    assert warm == [(name, True) for name in names]
    assert timed == [(name, False) for name in names] * 3
    assert [s.done for s in seen] == list(range(seen[0].total))
    ours, other = made.entries
    work = flops(network("blog2"), size)
    assert made.gflop == work / 1e9
    assert len(ours.seconds) == len(ours.network) == 3
    assert ours.useful == pytest.approx(work / median(ours.seconds) / 1e9)
    assert ours.useful_network == pytest.approx(work / median(ours.network) / 1e9)
    assert ours.share == pytest.approx(ours.useful_network / made.peaks["float32"])
    assert other.share == pytest.approx(other.useful / made.peaks["float32"])
    assert ours.logits_error < 1e-5
    assert max(ours.gate_errors.values()) < 1e-5
    assert list(ours.gate_errors) == ["att4", "att3", "att2", "att1"]
    assert other.gate_errors == {}
    assert (other.memory_before, other.memory_peak) == (10, 30)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_peak_is_the_best_of_all_runs(dtype):
    peak = Peak(dtype)
    found = [peak.measure(1) for _ in range(3)]
    assert peak.best == max(found) > 1e9


def test_memory_is_measured_in_a_process_of_its_own():
    job = {
        "job": "memory",
        "network": "blog2",
        "size": (64, 64, 64),
        "contender": "ours-float32",
        "threads": 1,
    }
    found = compare.run_child(compare.CHILD, job)
    voxels = 64**3
    # at the finest level two values of two channels are alive at once, in float32
    assert found["peak"] - found["before"] > 2 * 2 * 4 * voxels
    assert found["peak"] < 2 << 30


def test_unknown_networks_are_refused_before_anything_runs():
    from napari_attention_unet.errors import InputError

    with pytest.raises(InputError, match="no network 'unet'"):
        finished(compare_steps("unet", (16, 16, 16), ["ours-auto"], 1))
