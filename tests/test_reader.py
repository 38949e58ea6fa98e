from __future__ import annotations

import threading
from itertools import permutations, product
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_attention_unet import reader as readers
from napari_attention_unet.errors import InputError
from napari_attention_unet.frame import frame_for
from napari_attention_unet.models.card import ModelCard
from napari_attention_unet.reader import Reader
from napari_attention_unet.volume import Volume

ORIENTATIONS = [
    "".join(word) for order in permutations(("IS", "PA", "LR")) for word in product(*order)
]
CARD = ModelCard(name="m", architecture="none", orientation="IPL")


def reader_of(data: Any, orientation: str = "IPL") -> Reader:
    volume = Volume(data, orientation=orientation)
    return Reader(volume, frame_for(volume, CARD, (1, 1, 1)))


class Counted:
    """A lazy array that counts how often each voxel is read, and on which threads."""

    def __init__(self, array: np.ndarray, chunks: tuple[int, ...]) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.count = np.zeros(array.shape, int)
        self.threads: set[str] = set()
        self.chunks = chunks

    def __getitem__(self, box: Any) -> np.ndarray:
        self.count[box] += 1
        self.threads.add(threading.current_thread().name)
        return self.array[box]


@settings(max_examples=60, deadline=None)
@given(
    orientation=st.sampled_from(ORIENTATIONS),
    shape=st.tuples(*[st.integers(1, 23)] * 3),
    chunks=st.tuples(*[st.integers(1, 9)] * 3),
    step=st.integers(1, 9),
)
def test_planes_are_those_of_the_turned_array(
    orientation: str, shape: Any, chunks: Any, step: int
) -> None:
    """Lazily as in memory, whatever the chunks, the orientation and the ranges."""
    array = np.random.default_rng(0).integers(0, 99, (2, *shape)).astype(np.int16)
    plain = reader_of(array, orientation)
    lazy = reader_of(da.from_array(array, chunks=(1, *chunks)), orientation)
    depth = plain.shape[1]
    try:
        for start in range(0, depth, step):
            stop = min(depth, start + step + 2)  # overlapping, as resampling asks for them
            np.testing.assert_array_equal(lazy.read(start, stop), plain.read(start, stop))
    finally:
        lazy.close()
    assert lazy.shape == plain.shape


@pytest.mark.parametrize("orientation", ["IPL", "SPL", "PIL", "RAS"])
@pytest.mark.parametrize("kept", [0, 1 << 30])
def test_each_voxel_is_read_once_a_pass(
    orientation: str, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "KEPT", kept)
    monkeypatch.setattr(readers, "_SMALLEST_ROW", 1)
    source = Counted(np.zeros((1, 24, 20, 28), np.uint8), (1, 5, 6, 7))
    reader = reader_of(source, orientation)
    for _ in range(2):
        for start in range(0, reader.shape[1], 3):
            reader.read(start, min(start + 3, reader.shape[1]))
    reader.close()
    assert source.count.max() <= (1 if kept else 2)
    assert source.count.min() >= 1
    assert all(name.startswith("attention-unet-reader") for name in source.threads)


def test_the_next_row_is_read_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "_SMALLEST_ROW", 1)
    source = Counted(np.zeros((1, 20, 4, 4), np.uint8), (1, 5, 4, 4))
    reader = reader_of(source)
    reader.read(0, 1)
    reader._rows[1].result()
    reader.close()
    assert (source.count[0, :, 0, 0] == [1] * 10 + [0] * 10).all()


def test_a_row_of_chunks_too_large_is_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "_LARGEST_ROW", 3 * 16)
    monkeypatch.setattr(readers, "_SMALLEST_ROW", 1)
    source = Counted(np.zeros((1, 20, 4, 4), np.uint8), (1, 20, 4, 4))
    reader = reader_of(source)
    reader.read(0, 2)
    reader._rows[1].result()
    reader.close()
    assert (source.count[0, :, 0, 0] == [1] * 6 + [0] * 14).all()


def test_memory_is_bounded(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "KEPT", 10_000)
    monkeypatch.setattr(readers, "_SMALLEST_ROW", 1)
    store = str(tmp_path / "a")
    data = zarr.create_array(store, shape=(1, 400, 16, 16), chunks=(1, 8, 16, 16), dtype="u1")
    reader = reader_of(data)
    for start in range(0, 400, 5):
        reader.read(start, start + 5)
        held = sum(row.result().nbytes for row in reader._rows.values() if row.done())
        assert held <= reader.bytes
    assert reader.bytes < 20_000
    reader.close()


def test_no_thread_for_what_is_in_memory() -> None:
    before = threading.active_count()
    reader = reader_of(np.zeros((1, 4, 4, 4)))
    view = reader.read(1, 3)
    assert view.base is not None
    assert threading.active_count() == before
    assert reader.bytes == 0


@pytest.mark.parametrize(
    ("orientation", "words"),
    [
        ("IPL", "Planes 4 to 7 along z"),
        ("SPL", "Planes 4 to 7 along z"),
        ("PIL", "Planes 3 to 5 along y"),
    ],
)
def test_a_source_that_fails_is_named(
    orientation: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "_SMALLEST_ROW", 1)

    def chunk(block: np.ndarray, block_info: Any = None) -> np.ndarray:
        if block_info[0]["chunk-location"][1:3] == (1, 1):
            raise OSError("disk gone")
        return block

    data = da.from_array(np.zeros((1, 8, 6, 6)), chunks=(1, 4, 3, 6))
    reader = reader_of(data.map_blocks(chunk, dtype=float, meta=np.empty(0)), orientation)
    with pytest.raises(InputError, match=rf"{words} .* OSError: disk gone"):
        reader.read(0, reader.shape[1])
    reader.close()
