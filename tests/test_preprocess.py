from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
import torch
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_attention_unet import preprocess
from napari_attention_unet.checks import check_size, check_volume
from napari_attention_unet.errors import InputError
from napari_attention_unet.frame import frame_for
from napari_attention_unet.models.card import ModelCard, Normalization
from napari_attention_unet.preprocess import (
    prepare,
    resolve_normalization,
)
from napari_attention_unet.volume import Volume

CARD = ModelCard(name="m", architecture="none")
STRIDE = (4, 4, 4)


def run(volume: Volume, normalization: Normalization, card: ModelCard = CARD) -> torch.Tensor:
    work = prepare(volume, frame_for(volume, card, STRIDE), normalization, card.padding_value)
    seen = [0.0]
    while True:
        try:
            seen.append(next(work))
        except StopIteration as end:
            assert seen == sorted(seen)
            assert seen[-1] <= 1
            return end.value  # type: ignore[no-any-return]


def noise(shape: tuple[int, ...], dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).gamma(2.0, 40.0, shape)
    return np.where(values < 30, 0, values).astype(dtype)


@pytest.mark.parametrize(
    "dtype",
    ["u1", "i2", ">u2", "<u2", ">i4", "u4", ">i8", "f2", ">f4", "f4", ">f8", "f8", "b"],
)
@pytest.mark.parametrize("slab", [60, 10**9])
def test_zscore_of_any_dtype(dtype: str, slab: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocess, "SLAB_VOXELS", slab)
    array = noise((1, 7, 5, 9), dtype)
    truth = array.astype(np.float64)
    truth = (truth - truth.mean()) / truth.std()
    out = run(Volume(array), Normalization("zscore"))
    assert out.shape == (1, 1, 8, 8, 12)
    assert out.dtype == torch.float32
    np.testing.assert_allclose(out[0, :, :7, :5, :9], truth, rtol=0, atol=2e-6)
    assert (out[..., 7:, :, :] == 0).all()
    assert (out[..., 5:, :] == 0).all()
    assert (out[..., 9:] == 0).all()


def test_zscore_of_large_numbers_keeps_its_digits() -> None:
    small = noise((1, 6, 6, 6), np.int64)
    far = small + 2**40
    torch.testing.assert_close(
        run(Volume(far), Normalization("zscore")), run(Volume(small), Normalization("zscore"))
    )


@settings(max_examples=30, deadline=None)
@given(
    low=st.floats(0, 45),
    high=st.floats(55, 100),
    nonzero=st.booleans(),
    seed=st.integers(0, 100),
    scale=st.sampled_from([1e-3, 1.0, -5.0, 1e4]),
)
def test_percentile_is_numpys(
    low: float, high: float, nonzero: bool, seed: int, scale: float
) -> None:
    array = noise((1, 5, 6, 7), np.float32, seed) * np.float32(scale)
    chosen = array[array != 0] if nonzero else array
    a, b = np.percentile(chosen.astype(np.float64), (low, high))
    truth = np.clip((array.astype(np.float64) - a) / (b - a), 0, 1)
    out = run(Volume(array), Normalization("percentile", low, high, nonzero))
    np.testing.assert_allclose(out[0, :, :5, :6, :7], truth, rtol=0, atol=1e-5)


def test_each_channel_by_itself_and_the_other_kinds() -> None:
    array = np.stack([noise((4, 4, 4)), 1000 + 3 * noise((4, 4, 4), seed=1)])
    card = ModelCard(name="m", architecture="none", in_channels=2, padding_value=-1.0)
    for kind, function in {
        "zscore": lambda v: (v - v.mean()) / v.std(),
        "minmax": lambda v: (v - v.min()) / np.ptp(v),
        "none": lambda v: v,
    }.items():
        truth = np.stack([function(c.astype(np.float64)) for c in array])
        out = run(Volume(array), Normalization(kind), card)
        np.testing.assert_allclose(out[0], truth, rtol=1e-6, atol=1e-6)
    window = run(Volume(array), Normalization("window", 20.0, 90.0), card)
    np.testing.assert_allclose(window[0], np.clip((array - 20) / 70, 0, 1), atol=1e-6)


def test_nonzero_statistics() -> None:
    array = noise((1, 6, 6, 6))
    chosen = array[array != 0].astype(np.float64)
    out = run(Volume(array), Normalization("zscore", nonzero=True))
    truth = (array - chosen.mean()) / chosen.std()
    np.testing.assert_allclose(out[0, :, :6, :6, :6], truth, atol=1e-6)


@pytest.mark.parametrize("kind", ["dask", "zarr", "strided"])
def test_lazy_and_strided_sources(
    kind: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preprocess, "SLAB_VOXELS", 100)
    array = noise((1, 13, 6, 5), ">u2")
    data: Any = {
        "dask": lambda: da.from_array(array, chunks=(1, 4, 3, 5)),
        "zarr": lambda: zarr.create_array(
            store=str(tmp_path / "v.zarr"), data=array, chunks=(1, 5, 6, 5)
        ),
        "strided": lambda: np.repeat(array, 2, axis=3)[:, :, :, ::2],
    }[kind]()
    out = run(Volume(data), Normalization("zscore"))
    torch.testing.assert_close(out, run(Volume(array), Normalization("zscore")))


def test_a_lazy_source_is_read_once() -> None:
    reads = []

    def chunk(block_info: Any = None) -> np.ndarray:
        reads.append(block_info[None]["chunk-location"])
        return noise((1, 4, 6, 6))

    data = da.map_blocks(
        chunk, chunks=((1,), (4, 4), (6,), (6,)), dtype=np.float32, meta=np.empty(0)
    )
    run(Volume(data), Normalization("percentile"))
    assert sorted(reads) == [(0, 0, 0, 0), (0, 1, 0, 0)]


def test_resampled_statistics_are_those_of_the_networks_grid() -> None:
    array = noise((1, 16, 12, 10))
    volume = Volume(array, (1.0, 1.0, 1.0), units="mm")
    card = ModelCard(name="m", architecture="none", voxel_size=(2.0, 2.0, 2.0))
    out = run(volume, Normalization("zscore"), card)
    assert out.shape == (1, 1, 8, 8, 8)
    inner = out[0, 0, :8, :6, :5].double()
    assert abs(inner.mean()) < 1e-6
    assert inner.std(correction=0) == pytest.approx(1, abs=1e-6)


def failing(array: np.ndarray) -> da.Array:
    def chunk(block: np.ndarray) -> np.ndarray:
        raise OSError("disk gone")

    return da.from_array(array, chunks=(1, 4, 6, 6)).map_blocks(chunk, dtype=array.dtype)


def with_bad(nan: int, infinite: int) -> np.ndarray:
    array = noise((1, 6, 6, 6))
    array.flat[:nan] = np.nan
    array.flat[nan : nan + infinite] = np.inf
    return array


@pytest.mark.parametrize(
    ("array", "kind", "message"),
    [
        (with_bad(3, 0), "zscore", r"has 3 NaN of 216 voxels.*nan_to_num"),
        (with_bad(2, 4), "none", r"has 2 NaN and 4 infinite of 216 voxels"),
        (np.full((1, 5, 5, 5), 7), "zscore", r"Every voxel of channel 0 is 7: "),
        (np.zeros((1, 5, 5, 5)), "percentile", r"Every voxel of channel 0 is 0: "),
        (np.full((1, 5, 5, 5), 0.5), "minmax", r"Every voxel of channel 0 is 0.5: "),
        (np.eye(5)[None, :, :, None].repeat(5, 3) / 1e3, "percentile", r"are both 0"),
        (failing(noise((1, 8, 6, 6))), "zscore", r"Planes 0 to 7 .* OSError: disk gone"),
    ],
)
def test_volumes_that_cannot_be_prepared(array: Any, kind: str, message: str) -> None:
    normalization = Normalization(kind, 1.0, 50.0)
    with pytest.raises(InputError, match=message):
        run(Volume(array), normalization)


def test_nonzero_of_an_empty_volume() -> None:
    with pytest.raises(InputError, match="non-zero voxel of channel 0 is missing"):
        run(Volume(np.zeros((1, 5, 5, 5))), Normalization("zscore", nonzero=True))


def test_constant_volume_runs_where_no_statistics_are_needed() -> None:
    out = run(Volume(np.full((1, 4, 4, 4), 7)), Normalization("none"))
    assert (out == 7).all()


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((2, 9, 9, 9), "f4", r"reads 1 channel\(s\); this volume has 2 .*shape \(1, z, y, x\)"),
        ((9, 9, 9, 3), "u1", r"looks like colours: convert to grey"),
        ((9, 9, 9, 1), "f4", r"move it to the front"),
        ((1, 1, 9, 9), "f4", r"has 1 voxel\(s\) along z .* at least 2"),
        ((1, 9, 9, 1), "f4", r"has 1 voxel\(s\) along x"),
        ((1, 9, 9, 9), "c8", r"type complex64 have no intensity order"),
        ((1, 9, 9, 9), "O", r"type object"),
    ],
)
def test_volumes_that_no_model_reads(shape: tuple[int, ...], dtype: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_volume(Volume(np.zeros(shape, dtype)), CARD)


def test_a_volume_of_mostly_padding_is_refused() -> None:
    def check(shape: tuple[int, int, int]) -> None:
        check_size(frame_for(Volume(np.zeros((1, *shape))), CARD, (8, 8, 8)), (8, 8, 8))

    check((3, 8, 5))
    with pytest.raises(InputError, match=r"too small: 7×5×3 .* coarsest level is 8×8×8"):
        check((7, 5, 3))


def test_normalization_options() -> None:
    percentile = Normalization("percentile", 2.0, 98.0, nonzero=True)
    card = ModelCard(name="m", architecture="none", normalization=percentile)
    assert resolve_normalization("card", card) is percentile
    assert resolve_normalization("percentile", card) is percentile
    assert resolve_normalization("zscore", card) == Normalization("zscore")
    assert resolve_normalization((-100, 240), card) == Normalization("window", -100.0, 240.0)
    for wrong in ("z-score", "window", (3, 1), 5, None):
        with pytest.raises(InputError, match="use 'card', 'zscore'"):
            resolve_normalization(wrong, card)
