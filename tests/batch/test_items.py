"""Which volumes a batch has."""

from __future__ import annotations

import numpy as np
import pytest

from napari_attention_unet import InputError
from napari_attention_unet.batch.items import collect, item_settings
from napari_attention_unet.settings import Settings


@pytest.fixture
def scans(tmp_path):
    folder = tmp_path / "scans"
    for name in ("b.npy", "a.npy", "deep/a.npy", "deep/c.npy"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(folder / name, np.zeros((3, 4, 5)))
    (folder / "notes.txt").write_text("not a volume")
    (folder / "done").mkdir()
    (folder / "done" / "prediction.json").write_text("{}")
    return folder


def names(*sources):
    return [(item.path.rsplit("/scans/")[-1], item.name) for item in collect(sources)]


def test_a_folder_gives_its_images_in_order(scans):
    assert names(scans) == [("a.npy", "a"), ("b.npy", "b")]


def test_a_pattern_reaches_deeper(scans):
    assert names(f"{scans}/*/a.npy") == [("deep/a.npy", "a")]
    assert names(f"{scans}/**/*.npy") == [
        ("a.npy", "a"),
        ("b.npy", "b"),
        ("deep/a.npy", "a-2"),
        ("deep/c.npy", "c"),
    ]


def test_equal_names_are_told_apart_on_any_file_system(scans):
    np.save(scans / "deep" / "B.npy", np.zeros((3, 4, 5)))
    assert [name for _, name in names(scans, scans / "deep")] == ["a", "b", "B-2", "a-2", "c"]


def test_a_dataset_in_a_file_is_part_of_the_name(scans):
    np.savez(scans / "many.npz", one=np.zeros((3, 4, 5)), two=np.zeros((3, 4, 5)))
    (item,) = collect([f"{scans / 'many.npz'}:two"])
    assert (item.name, item.path) == ("many-two", f"{scans / 'many.npz'}:two")


def test_a_manifest_has_options_for_each(scans):
    table = (
        'volume,name,spacing,threshold,keep_largest\na.npy,first,"2,1,1",0.7,yes\ndeep/c.npy,,,,\n'
    )
    (scans / "list.csv").write_text(table)
    first, second = collect([scans / "list.csv"])
    assert (first.name, second.name) == ("first", "c")
    settings = item_settings(first, Settings(device="cpu"))
    assert settings == Settings(
        device="cpu", spacing=(2.0, 1.0, 1.0), threshold=0.7, keep_largest=True
    )
    assert item_settings(second, Settings(device="cpu")) == Settings(device="cpu")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file\na.npy\n", "columns file; it needs 'volume', and may have activation"),
        ("volume,colour\na.npy,red\n", "columns colour, volume"),
        ("volume,threshold\na.npy,high\n", "Line 2 of .*threshold is 'high'"),
        ("volume,spacing\na.npy,1\n", "spacing is '1'"),
        ("volume,name\n,b\n", "Line 2 of .* names no volume"),
        ("", "columns none"),
    ],
)
def test_a_bad_manifest_says_where(scans, text, message):
    (scans / "list.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        collect([scans / "list.csv"])


def test_sources_that_name_nothing(scans):
    with pytest.raises(InputError, match="matches 1 files and no volume"):
        collect([f"{scans}/*.txt"])
    with pytest.raises(InputError, match="holds results"):
        collect([scans / "done"])
    (scans / "empty").mkdir()
    with pytest.raises(InputError, match="holds no volume"):
        collect([scans / "empty"])
    with pytest.raises(InputError, match="There is no file"):
        collect([scans / "nowhere.csv"])


def test_a_missing_file_waits_for_its_turn(scans):
    (item,) = collect([scans / "gone.nii.gz"])
    assert item.name == "gone"
