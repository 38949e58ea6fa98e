from __future__ import annotations

import json

import pytest

from napari_attention_unet.bench.document import HEADINGS, Document, cells
from napari_attention_unet.bench.machine import machine
from napari_attention_unet.bench.results import Comparison, Entry, Row
from napari_attention_unet.errors import InputError

GIB = 1 << 30
ENTRY = Entry(
    "ours-auto", "ours, auto precision", "bfloat16", (3.0, 1.0, 2.0), (1.5, 0.5, 1.0), 50.0, 100.0,
    0.8, GIB, 3 * GIB, 2e-3, 0.999, {"att1": 0.004, "att2": 0.001}, ["plan whole: it fits"],
)  # fmt: skip
COMPARISON = Comparison(
    "blog16", (4, 5, 6), 100.0, {"bfloat16": 125.0}, "Timed so.", "a conv", (ENTRY,)
)


def test_machine_is_named():
    found = json.loads(json.dumps(machine()))
    assert found["cores"] >= 1
    assert found["memory_gib"] > 0
    assert found["cpu"]
    assert found["versions"]["napari-attention-unet"]


def test_results_add_up(tmp_path):
    path = tmp_path / "results" / "bench.json"
    document = Document(path)  # does not exist yet
    document.add(Row("large", "a large one", "≤ 6 GiB", 5.0, "5 GiB"), 5)
    document.write(path)
    again = Document(path)
    again.add(Row("large", "a large one", "≤ 6 GiB", 4.0, "4 GiB"), 3)
    again.add(COMPARISON, 3)
    again.write(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert set(content) == {"format", "machine", "cases", "comparisons"}
    assert content["cases"]["large"]["reached"] == 4.0
    assert content["cases"]["large"]["repeats"] == 3
    assert set(content["cases"]["large"]) == {
        "case", "title", "aim", "reached", "text", "details", "error", "repeats", "measured", "load"
    }  # fmt: skip
    (kept,) = content["comparisons"].values()
    assert kept["entries"][0]["seconds"] == [3.0, 1.0, 2.0]
    assert [p.name for p in path.parent.iterdir()] == ["bench.json"]  # nothing half-written


def test_page(tmp_path):
    document = Document()
    document.add(Row("large", "a | b", "≤ 6 GiB", None, "", error="no room"), 5)
    document.add(COMPARISON, 5)
    document.write_markdown(tmp_path / "bench.md")
    page = (tmp_path / "bench.md").read_text(encoding="utf-8")
    assert "| `large` | a \\| b | ≤ 6 GiB | not measured: no room |" in page
    assert "## blog16, 4×5×6 voxels" in page
    assert "| ours-auto | 2 (1 - 3) | 50 | 100 | 0.80 | 3.00 (1.00) |" in page
    assert "plan whole: it fits" in page
    assert machine()["cpu"] in page
    tables = [line for line in page.splitlines() if line.startswith("| ours-auto")]
    assert tables[0].count("|") == len(HEADINGS) + 1


def test_cells_stand_beneath_their_headings():
    found = dict(zip(HEADINGS, cells(ENTRY), strict=True))
    assert found["error of gates"] == "4.0e-03"
    assert found["same labels"] == "99.90 %"


def test_results_of_another_machine_are_not_mixed(tmp_path):
    path = tmp_path / "bench.json"
    Document().write(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    content["machine"]["cpu"] = "Abacus"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError, match=r"another machine or other versions \(cpu\)"):
        Document(path)
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(InputError, match="holds no benchmark results"):
        Document(path)
