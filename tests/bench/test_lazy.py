from __future__ import annotations

import numpy as np
import pytest
import zarr

from napari_attention_unet.bench import lazy
from napari_attention_unet.bench.how import How
from napari_attention_unet.graph.lower import finished


def test_volumes_on_disk_are_seeded_and_vary(tmp_path):
    for name in ("a", "b"):
        lazy.write_noise(tmp_path / name, (20, 30, 40))
    a, b = (zarr.open_array(tmp_path / name, mode="r")[:] for name in ("a", "b"))
    assert a.shape == (20, 30, 40)
    assert a.dtype == np.uint16
    np.testing.assert_array_equal(a, b)
    assert np.abs(a.astype(float).mean() - 2000) < 800
    assert a.std() > 200


def test_blocks_lie_inside():
    size = (512, 1024, 1000)
    for corner in lazy._corners(size):
        assert all(c % 16 == 0 and c + 32 <= n for c, n in zip(corner, size, strict=True))


@pytest.mark.slow
def test_a_large_volume_is_checked_block_by_block(tmp_path, monkeypatch):
    """As the command does it, with a volume that is not large; then with a spoiled result."""
    monkeypatch.setattr(lazy.tempfile, "TemporaryDirectory", lambda: Kept(tmp_path))
    (row,) = finished(lazy.large_steps(How(size=(48, 64, 48))))
    assert 0.1 < row.reached < 6
    blocks = row.details["blocks"]
    assert [b["corner"] for b in blocks] == [[0, 0, 0], [0, 16, 0], [16, 32, 16]]
    assert all(b["labels"] == 0 for b in blocks)
    assert all(max(b["gates"].values()) < 1e-5 for b in blocks)
    result = zarr.open_group(tmp_path / "large" / "result.zarr", mode="r+")
    result["mask"][0, 0, 0] = 1 - result["mask"][0, 0, 0]
    result["gates/att2"][1, 1, 1] += 0.5
    spoiled = lazy.check_block(tmp_path / "large", row.details["gates"], (0, 0, 0))
    assert spoiled["labels"] == 1
    assert spoiled["gates"]["att2"] == pytest.approx(0.5, abs=1e-4)
    assert spoiled["gates"]["att1"] < 1e-5


class Kept:
    """A temporary directory that stays."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        return str(self.path)

    def __exit__(self, *_):
        pass
