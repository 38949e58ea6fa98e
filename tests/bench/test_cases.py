from __future__ import annotations

import pytest

from napari_attention_unet.bench import cases
from napari_attention_unet.bench.cases import COMPARISONS, OTHERS, aimed_at, chosen, measure_steps
from napari_attention_unet.bench.contenders import CONTENDERS
from napari_attention_unet.bench.how import How
from napari_attention_unet.bench.results import Comparison, Entry, Row
from napari_attention_unet.errors import InputError
from napari_attention_unet.prediction import Step


def test_names_are_unique_and_lead_to_contenders():
    names = cases.names()
    assert len(set(names)) == len(names)
    for case in COMPARISONS:
        assert case.ours in CONTENDERS
        assert CONTENDERS[case.ours].ours
        assert not case.against or not CONTENDERS[case.against].ours
    assert "nnunet-mirroring" not in aimed_at()
    assert len(aimed_at()) == len(names) - 1


def test_cases_by_name_or_beginning():
    assert chosen(["blog64-best"]) == ["blog64-best"]
    assert chosen(["viewer", "large", "viewer-gaps"]) == ["viewer-speed", "viewer-gaps", "large"]
    assert "nnunet-mirroring" not in chosen(["blog16"])
    with pytest.raises(InputError, match=r"no case 'blog'; the cases are blog16-auto, "):
        chosen(["blog"])


def made(network, size, contenders, repeats):
    """A comparison in which ours takes 1 s and the others 10, without measuring."""
    yield Step(0, 1, "comparing")
    entries = tuple(
        Entry(
            name,
            name,
            "float32",
            (1.0 if name.startswith("ours") else 10.0,) * repeats,
            (0.5,) * repeats if name.startswith("ours") else (),
            100.0,
            200.0 if name.startswith("ours") else None,
            0.25,
            1,
            2,
            0.0,
            1.0,
        )
        for name in contenders
    )
    return Comparison(network, size, 100.0, {"float32": 800.0}, "", "", entries)


def test_cases_of_a_network_share_one_comparison(monkeypatch):
    asked = []

    def compared(*arguments):
        asked.append(arguments)
        return made(*arguments)

    monkeypatch.setattr(cases, "compare_steps", compared)
    wanted = ["blog16-auto", "blog16-rate-float32", "monai-best"]
    results = list(measure_steps(wanted, How(repeats=2)))
    rows = {r.case: r for r in results if isinstance(r, Row)}
    assert list(rows) == wanted
    assert asked[0] == (
        "blog16",
        (160, 160, 160),
        ["ours-auto", "ours-float32", "monai-defaults"],
        2,
    )
    assert [a[0] for a in asked] == ["blog16", "monai"]
    assert rows["blog16-auto"].reached == 10
    assert rows["blog16-auto"].aim == "≥ 7.5×"
    assert rows["blog16-auto"].text == "10.00×: 1 s (1 - 1) against 10 s (10 - 10)"
    assert rows["blog16-rate-float32"].reached == 0.25
    assert rows["blog16-rate-float32"].text == "0.25: 200 of 800 GFLOP/s (0.5 s, 0.5 - 0.5)"
    assert sum(isinstance(r, Comparison) for r in results) == 2


def test_a_case_that_fails_does_not_take_the_others_along(monkeypatch):
    def breaks(*_):
        yield Step(0, 1, "")
        raise RuntimeError("the disk is full")

    def works(_how):
        yield Step(0, 1, "")
        return [Row("large", "a large one", "≤ 6 GiB", 5.0, "5 GiB")]

    monkeypatch.setattr(cases, "compare_steps", breaks)
    monkeypatch.setattr(
        cases, "OTHERS", (({"viewer-gaps": "≤ 25 ms"}, breaks), ({"large": ""}, works))
    )
    wanted = ["blog64-auto", "viewer-gaps", "large"]
    rows = [r for r in measure_steps(wanted, How()) if isinstance(r, Row)]
    assert [(r.case, r.reached, r.error) for r in rows] == [
        ("blog64-auto", None, "RuntimeError: the disk is full"),
        ("viewer-gaps", None, "RuntimeError: the disk is full"),
        ("large", 5.0, ""),
    ]
    assert [r.aim for r in rows] == ["≥ 6×", "≤ 25 ms", "≤ 6 GiB"]


def test_every_other_case_names_what_it_aims_at():
    aims = {name: aim for group, _ in OTHERS for name, aim in group.items()}
    assert aims["first-run"] == "≥ 5.5×"
    assert all(aim[0] in "≤≥" for aim in aims.values())
