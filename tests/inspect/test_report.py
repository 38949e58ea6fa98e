"""The report is one complete page that says what the tables say and needs nothing from outside."""

from __future__ import annotations

import base64
import csv
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from inspect_cases import gate_of, prediction_of
from PIL import Image

from napari_attention_unet.inspect.reference import compare_with_reference
from napari_attention_unet.inspect.report import Extras, report, report_steps, save_report
from napari_attention_unet.inspect.table import COLUMNS, measures_table
from napari_attention_unet.volume import Volume

VOID = {"meta", "img", "br", "link"}


class Page(HTMLParser):
    """What a page has: tags with their attributes, tables as lists of rows, all its text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.headings: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == [], "a tag is not closed"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "h2":
            self.headings.append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" in self._open:
            return
        self.text += data
        if self._open and self._open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data
        if "h2" in self._open:
            self.headings[-1] += data


def made(rng, mask, *more, **geometry):
    gates = [
        gate_of(rng.random((4, 5, 6)), (2.0, 2.0, 2.0), (0.5, 0.5, 0.5), "att2"),
        gate_of(0.1 + 0.8 * (mask > 0) * rng.random(mask.shape), name="att1"),
    ]
    return prediction_of(mask, *gates, *more, classes=3, units="mm", **geometry)


@pytest.fixture(scope="module")
def mask():
    mask = np.zeros((8, 10, 12), np.uint8)
    mask[2:5, 3:7, 2:6] = 1
    mask[5:7, 5:9, 6:11] = 2
    return mask


@pytest.fixture(scope="module")
def prediction(mask):
    return made(np.random.default_rng(0), mask, spacing=(2.0, 1.0, 1.0), orientation="IPL")


@pytest.fixture(scope="module")
def image(mask):
    return Volume.from_array(np.random.default_rng(1).random(mask.shape).astype(np.float32))


@pytest.fixture(scope="module")
def page(prediction, image):
    return report(prediction, image)


def numbers(cells):
    return [float(cell.replace("\u202f", "")) for cell in cells if re.match(r"^[-\d]", cell)]


def test_the_page_is_complete_and_fetches_nothing(page):
    parsed = Page(page)
    assert page.startswith("<!DOCTYPE html>")
    assert page.rstrip().endswith("</html>")
    links = [a[k] for _, a in parsed.tags for k in ("src", "href", "srcset", "data") if a.get(k)]
    assert links
    assert all(link.startswith("data:") for link in links)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in parsed.tags}
    assert "@import" not in page
    assert not re.search(r"url\(", page)
    assert not re.search(r"https?:", page)
    policies = [a["content"] for t, a in parsed.tags if t == "meta" and "http-equiv" in a]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_pictures_are_whole_have_words_and_their_stated_shape(page, prediction):
    parsed = Page(page)
    pictures = [a for tag, a in parsed.tags if tag == "img"]
    assert all(a["alt"] for a in pictures)
    views = [a for a in pictures if "width" in a]
    assert len(views) == 1 + len(prediction.gates)
    for picture in views:
        data = base64.b64decode(picture["src"].split(",")[1])
        size = Image.open(io.BytesIO(data)).size
        assert size == (int(picture["width"]) * 1.5, int(picture["height"]) * 1.5)
    drawn = [a["src"] for a in pictures if "width" not in a]
    assert len(drawn) == 6  # three plots, light and dark
    for source in drawn:
        kind, _, data = source.partition(";base64,")
        assert kind == "data:image/svg+xml"
        assert b"</svg>" in base64.b64decode(data)


def test_the_measures_are_those_of_the_table(page, prediction):
    table = measures_table(prediction)
    parsed = Page(page)
    header, *rows = parsed.tables[0]
    assert header[:5] == ["Region", "Gate", "Grid", "Volume (mm³)", "Mean inside"]
    assert "Remark" not in header  # nothing to remark
    expected = [
        table[(table["region"] == region) & (table["gate"] == gate)].iloc[0]
        for region in ("class 1", "class 2")
        for gate in ("att2", "att1")
    ]
    assert [row[0] for row in rows] == ["class 1", "", "class 2", ""]
    shown = ["volume", "inside", "outside", "ratio", "auc"]
    for cells, row in zip(rows, expected, strict=True):
        assert cells[1] == row["gate"]
        np.testing.assert_allclose(numbers(cells[3:8]), row[shown].astype(float), atol=6e-4)
    (link,) = [a for tag, a in parsed.tags if tag == "a"]
    text = base64.b64decode(link["href"].split(",")[1]).decode()
    whole = list(csv.reader(io.StringIO(text)))
    assert len(whole) == 1 + len(table)
    assert len(whole[0]) == len([c for c in COLUMNS if not c.name.startswith("time")])


def test_it_says_what_was_found_and_where_it_came_from(prediction, image):
    found = {
        "model": "brain-t1",
        "sha256": "ab" * 32,
        "precision": "float32",
        "plan": "whole",
        "plan_reason": "it fits",
        "assumptions": ["Softmax is assumed."],
        "notes": ["Ran twice."],
        "network_grid": {"shape": [8, 16, 16], "voxel_size": [1.5, 1.5, 1.5]},
        "seconds": {"total": 3.25},
        "versions": {"torch": "2.13"},
    }
    known = {**vars(prediction), "provenance": found}
    text = Page(report(type(prediction)(**known), image)).text
    for words in (
        "volume: where brain-t1 looks", "class 1 96 mm³", "class 2 80 mm³", "AUC 1.00", "ab" * 32,
        "Softmax is assumed.", "Ran twice.", "8 × 16 × 16 voxels of 1.5 × 1.5 × 1.5",
        "whole: it fits", "3.2 s", "torch 2.13", "A anterior",
    ):  # fmt: skip
        assert words in text, words


def test_gates_that_select_nothing_are_warned_of(mask, image):
    rng = np.random.default_rng(0)
    dead = gate_of(rng.random((4, 5, 6)) * 0.01, (2.0, 2.0, 2.0), name="att9")
    parsed = Page(report(made(rng, mask, dead)))
    assert "att9 is dead. Closed everywhere" in parsed.text
    assert "Remark" in parsed.tables[0][0]
    assert "The image was not at hand" in parsed.text
    assert "The image was not at hand" not in Page(report(made(rng, mask, dead), image)).text


def test_reference_ablation_history_and_time_have_sections_of_their_own(prediction, mask):
    reference = compare_with_reference(prediction, np.roll(mask, 1, 2))
    ablation = pd.DataFrame(
        [
            {"gate": g, "switch": "closed", "class": c, "dice": 0.25, "change_percent": np.nan,
             "gained": 12345, "lost": 3}
            for g in ("att2", "att1")
            for c in ("foreground", "class 1")
        ]
    )  # fmt: skip
    ablation.attrs["volume"] = "mm³"
    table = measures_table(prediction)
    history = pd.concat([table.assign(epoch=e) for e in range(3)])
    extras = Extras(reference, ablation, history, {"Limits": "adults alone"})
    parsed = Page(report([prediction, prediction], None, extras))
    for title in ("Against the reference", "Does it matter?", "Over the training", "Over time"):
        assert any(heading.startswith(title) for heading in parsed.headings), title
    _, overlap, attention, ablated = parsed.tables
    dice = reference.classes["dice"].round(3)
    column = overlap[0].index("Dice")
    assert [float(row[column]) for row in overlap[1:]] == list(dice)
    assert [row[0] for row in attention[1:]] == ["class 1", "", "class 2", "", "foreground", ""]
    captions = [a["alt"] for tag, a in parsed.tags if tag == "img"]
    assert {"Dice of foreground.", "Dice of class 1."} <= set(captions)
    assert ablated[1] == ["att2", "closed", "foreground", "0.250", "–", "12\u202f345", "3"]
    assert "adults alone" in parsed.text
    assert "the first of 2 time points" in parsed.text


def test_a_network_without_gates_has_a_report(mask):
    parsed = Page(report(prediction_of(mask, classes=3)))
    assert "no attention gates" in parsed.text
    assert "Measures" not in parsed.headings


def test_names_cannot_break_the_page(mask, image):
    evil = '<script>alert("1")</script>&amp;'
    gate = gate_of(np.random.default_rng(0).random((4, 5, 6)), (2.0, 2.0, 2.0), name=evil)
    parsed = Page(report(prediction_of(mask, gate, classes=3, name=evil), image, title=evil))
    assert "script" not in {tag for tag, _ in parsed.tags}
    assert evil in parsed.text


def test_it_goes_step_by_step_and_is_saved_whole_or_not_at_all(prediction, tmp_path, monkeypatch):
    steps = list(report_steps(prediction))
    done = [step.done / step.total for step in steps]
    assert done == sorted(done)
    assert done[-1] == 1
    target = save_report("<p>µ</p>", tmp_path / "new" / "a.html")
    assert target.read_text(encoding="utf-8") == "<p>µ</p>"
    with pytest.raises(UnicodeEncodeError):
        save_report("\ud800", target)
    assert [path.name for path in target.parent.iterdir()] == ["a.html"]
    assert target.read_text(encoding="utf-8") == "<p>µ</p>"


# --- in a browser -------------------------------------------------------------------------------

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)


@pytest.fixture(scope="module")
def browse(page, tmp_path_factory):
    if BROWSER is None:
        pytest.skip("there is no Chromium")
    folder = tmp_path_factory.mktemp("browser")
    (folder / "report.html").write_text(page, encoding="utf-8")

    def run(*options):
        command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                   f"--user-data-dir={folder / 'profile'}", *options,
                   (folder / "report.html").as_uri()]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=120, cwd=folder)
        return folder

    return run


@pytest.mark.parametrize(("scheme", "ground"), [("1", (255, 255, 255)), ("0", (23, 24, 28))])
def test_a_browser_shows_it_light_and_dark(browse, scheme, ground):
    folder = browse(
        "--window-size=1040,1400", "--screenshot=page.png",
        f"--blink-settings=preferredColorScheme={scheme}",
    )  # fmt: skip
    shown = np.asarray(Image.open(folder / "page.png").convert("RGB")).astype(int)
    assert tuple(shown[5, 5]) == ground
    # The views are there, black between them, as wide as the page.
    black = (shown == 0).all(-1)
    assert black.any(1).sum() > 300
    text = abs(shown[:120, :500] - ground).max(-1) > 120
    assert text.sum() > 500  # a title that stands out


def test_a_browser_prints_it_on_a4(browse):
    folder = browse("--no-pdf-header-footer", "--print-to-pdf=page.pdf")
    data = (folder / "page.pdf").read_bytes()
    assert data.startswith(b"%PDF")
    sizes = re.findall(rb"/MediaBox\s*\[0 0 ([\d.]+) ([\d.]+)\]", data)
    assert 2 <= len(sizes) <= 8
    for width, height in sizes:
        assert float(width) == pytest.approx(595, abs=1.5)
        assert float(height) == pytest.approx(842, abs=1.5)
