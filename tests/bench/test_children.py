from __future__ import annotations

import sys

import pytest

from napari_attention_unet.bench.child import peak_memory, start_peak
from napari_attention_unet.bench.children import CHILD, BenchError, run_child


def test_a_process_that_fails_says_why():
    with pytest.raises(BenchError, match=r"for 'dance' ended with status 1: .*KeyError: 'dance'"):
        run_child(CHILD, {"job": "dance", "threads": 1})


def test_errors_for_people_come_as_they_are():
    job = {"job": "memory", "network": "unet", "size": (8, 8, 8), "contender": "ours-auto"}
    with pytest.raises(BenchError, match=r"^There is no network 'unet' to measure"):
        run_child(CHILD, {**job, "threads": 1})


def test_a_fresh_process_tells_its_parts():
    job = {"job": "first_run", "network": "blog2", "size": (16, 16, 16), "threads": 1}
    found = run_child(CHILD, {**job, "contender": "ours-auto"})
    assert set(found) == {"importing", "preparing", "first_run"}
    assert all(seconds > 0 for seconds in found.values())


@pytest.mark.skipif(sys.platform != "linux", reason="the peak can be forgotten on Linux alone")
def test_the_peak_is_of_the_measured_part():
    bytearray(300 << 20)  # gone before the measurement
    before = start_peak()
    block = bytearray(100 << 20)
    assert 95 << 20 < peak_memory() - before < 200 << 20
    del block
