"""The command line of the benchmarks."""

from __future__ import annotations

import json
import sys

import pytest

from napari_attention_unet import cli
from napari_attention_unet.bench import cases, compare, contenders
from napari_attention_unet.prediction import Step

pytest.importorskip("monai")


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["napari-attention-unet", "bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return call


@pytest.fixture
def small(monkeypatch):
    """Windows of 16, and no process for the memory."""
    monkeypatch.setattr(contenders, "WINDOW", (16, 16, 16))
    monkeypatch.setattr(compare, "run_child", lambda *_: {"before": 1 << 30, "peak": 2 << 30})


@pytest.mark.usefixtures("small")
def test_cases_are_measured_shown_and_kept(run, tmp_path):
    results, page = tmp_path / "bench.json", tmp_path / "bench.md"
    options = ("--size", "16,32,16", "--repeats", 2, "--json", results, "--markdown", page)
    status, out, _ = run("--case", "blog16-float32", "--case", "blog16-rate-float32", *options)
    assert status == 0
    assert "blog16-float32" in out
    assert "≥ 3.7×" in out
    content = json.loads(results.read_text(encoding="utf-8"))
    row = content["cases"]["blog16-float32"]
    assert row["aim"] == "≥ 3.7×"
    assert row["reached"] > 0
    assert row["repeats"] == 2
    assert len(row["details"]["ours"]) == len(row["details"]["against"]) == 2
    (kept,) = content["comparisons"].values()
    assert kept["network"] == "blog16"
    assert kept["size"] == [16, 32, 16]
    by_name = {e["contender"]: e for e in kept["entries"]}
    assert list(by_name) == ["ours-float32", "monai-defaults"]
    assert by_name["ours-float32"]["logits_error"] < 1e-5
    assert by_name["ours-float32"]["memory_peak"] == 2 << 30
    assert "## Machine" in page.read_text(encoding="utf-8")


@pytest.mark.usefixtures("small")
def test_without_cases_all_run_over_one_network(run):
    status, out, _ = run("--network", "blog2", "--size", "16,16,16", "--repeats", 1)
    assert status == 0
    for name in contenders.CONTENDERS:
        assert (name in out) == (name != "nnunet-mirroring")


def test_a_case_that_fails_is_said_and_the_status_tells(run, monkeypatch, tmp_path):
    def breaks(_how):
        yield Step(0, 1, "")
        raise OSError("no space left")

    monkeypatch.setattr(cases, "OTHERS", (({"large": "≤ 6 GiB"}, breaks),))
    status, out, _ = run("--case", "large", "--json", tmp_path / "bench.json")
    assert status == 1
    assert "no space left" in " ".join(out.split())
    content = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    assert content["cases"]["large"]["reached"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--case", "speed"), "There is no case 'speed'; the cases are blog16-auto"),
        (("--size", "16,16"), "--size is '16,16'; three whole numbers are needed"),
        (("--size", "16,0,16"), "each has to be 1 or more"),
        (("--network", "unet"), "There is no network 'unet' to measure"),
    ],
)
def test_what_cannot_be_used_is_one_line(run, options, message):
    status, _, err = run(*options)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1


def test_threads_are_set_for_the_run_alone(run, monkeypatch):
    import torch

    seen = []

    def look(_how):
        seen.append(torch.get_num_threads())
        yield Step(0, 1, "")
        return []

    monkeypatch.setattr(cases, "OTHERS", (({"large": ""}, look),))
    before = torch.get_num_threads()
    assert run("--case", "large", "--threads", 1)[0] == 0
    assert seen == [1]
    assert torch.get_num_threads() == before
