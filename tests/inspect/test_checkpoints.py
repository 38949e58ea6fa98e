"""The checkpoints of a training are found and ordered by their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_attention_unet.errors import InputError
from napari_attention_unet.inspect.checkpoints import find_series


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("names", "numbers", "word"),
    [
        (("000_net_S.pth", "010_net_S.pth", "002_net_S.pth"), (0, 2, 10), "number"),
        (("epoch=9.ckpt", "epoch=10.ckpt"), (9, 10), "epoch"),
        (("epoch=2-step=900.ckpt", "epoch=10-step=4500.ckpt"), (2, 10), "epoch"),
        (("step-000100.safetensors", "step-000030.safetensors"), (30, 100), "step"),
        (("unet3d_iter_500.pth", "unet3d_iter_1000.pth"), (500, 1000), "iteration"),
        (("dice0.91_epoch12.pt", "dice0.88_epoch3.pt"), (3, 12), "epoch"),
        (("0.91-7.pt", "0.88-8.pt"), (7, 8), "number"),  # whole numbers rather than a score
        (("model_ep5.pth.tar", "model_ep40.pth.tar"), (5, 40), "epoch"),
        (("checkpoint-100/model.bin", "checkpoint-20/model.bin"), (20, 100), "number"),
        (("only.pth",), (0,), "number"),
    ],
)
def test_order(tmp_path, names, numbers, word):
    series = find_series(touch(tmp_path, *names))
    assert series.numbers == numbers
    assert series.word == word
    assert {path.relative_to(tmp_path).as_posix() for path in series.paths} == set(names)
    assert not series.skipped


def test_the_longest_series_is_taken_and_the_rest_named(tmp_path):
    touch(tmp_path, "epoch1.pth", "epoch2.pth", "epoch3.pth", "best.pth", "old_1.pth", "notes.txt")
    series = find_series(tmp_path)
    assert [path.name for path in series.paths] == ["epoch1.pth", "epoch2.pth", "epoch3.pth"]
    assert sorted(path.name for path, _ in series.skipped) == ["best.pth", "old_1.pth"]


def test_of_equal_series_the_kind_that_loads_fastest(tmp_path):
    touch(tmp_path, "step-1.pt", "step-2.pt", "step-1.safetensors", "step-2.safetensors")
    assert {p.suffix for p in find_series(tmp_path).paths} == {".safetensors"}


def test_listed_files_keep_their_order_where_names_do_not_tell(tmp_path):
    touch(tmp_path, "first.pth", "last.pth", "e2.pth", "e10.pth")
    given = [tmp_path / "last.pth", tmp_path / "first.pth"]
    series = find_series(given)
    assert list(series.paths) == given
    assert series.numbers == (0, 1)
    by_number = find_series([tmp_path / "e10.pth", str(tmp_path / "e2.pth")])
    assert [path.name for path in by_number.paths] == ["e2.pth", "e10.pth"]


def test_folders_without_a_series_say_so(tmp_path):
    with pytest.raises(InputError, match="not a folder"):
        find_series(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"\.safetensors"):
        find_series(touch(tmp_path / "a", "notes.txt"))
    with pytest.raises(InputError, match="no number"):
        find_series(touch(tmp_path / "b", "best.pth", "last.pth"))
    with pytest.raises(InputError, match="at least one"):
        find_series([])
