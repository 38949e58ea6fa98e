"""A local Dask cluster gives what this process gives, a killed worker included."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from distributed import Client, LocalCluster

from napari_attention_unet import InputError, load_model, predict
from napari_attention_unet.batch.blocks import block_steps
from napari_attention_unet.batch.cluster import cluster_steps, connected
from napari_attention_unet.batch.items import collect
from napari_attention_unet.batch.run import batch_steps
from napari_attention_unet.batch.work import Order
from napari_attention_unet.graph.lower import finished
from napari_attention_unet.settings import Settings

EXACT = Settings(device="cpu", precision="float32")


@pytest.fixture(scope="module")
def client():
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def results(folder: Path) -> dict[str, bytes]:
    """Content of every result file; of the tables, too."""
    kept = (".nii.gz", ".ome.tif", ".csv", ".parquet")
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.name.endswith(kept)
    }


@pytest.mark.slow
def test_volumes_on_workers_are_equal_to_the_bit(client, scans, checkpoint, tmp_path):
    items = collect([scans(8)])
    orders = [
        Order(checkpoint, settings=EXACT, output=str(tmp_path / where))
        for where in ("here", "there")
    ]
    here = finished(batch_steps(orders[0], items))
    there = finished(cluster_steps(client, orders[1], items))
    assert [(o.item, o.status) for o in here] == [(o.item, o.status) for o in there]
    assert sum(o.status == "done" for o in there) == 8
    assert results(tmp_path / "here") == results(tmp_path / "there")
    again = finished(cluster_steps(client, orders[1], items))
    assert all(o.status == "failed" for o in again)  # never replaced without being asked


@pytest.mark.slow
def test_a_killed_worker_is_survived(client, scans, checkpoint, tmp_path):
    items = collect([scans(12, bad=False)])
    order = Order(checkpoint, settings=EXACT, output=str(tmp_path / "out"))
    victim = next(iter(client.run(os.getpid).values()))
    killed, outcomes = False, ()
    steps = cluster_steps(client, order, items)
    try:
        while True:
            step = next(steps)
            if not killed and step.outcome is not None:
                os.kill(victim, signal.SIGKILL)
                killed = True
    except StopIteration as end:
        outcomes = end.value
    assert killed
    assert [o.status for o in outcomes] == ["done"] * 12
    expected = Order(checkpoint, settings=EXACT, output=str(tmp_path / "expected"))
    finished(batch_steps(expected, items))
    assert results(tmp_path / "out") == results(tmp_path / "expected")


@pytest.mark.slow
def test_a_cancelled_batch_leaves_the_cluster_free(client, scans, checkpoint, tmp_path):
    items = collect([scans(12, bad=False)])
    steps = cluster_steps(client, Order(checkpoint, output=str(tmp_path / "out")), items)
    while next(steps).outcome is None:
        pass
    steps.close()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(client.processing().values()):
        time.sleep(0.1)
    assert not any(client.processing().values())
    assert len(list((tmp_path / "out").glob("*/prediction.json"))) < 12


def test_nobody_answers():
    with (
        pytest.raises(InputError, match="No Dask scheduler answers at 'nonsense'"),
        connected("nonsense"),
    ):
        pass


# --- one large volume ---------------------------------------------------------------------------


@pytest.fixture
def large(tmp_path):
    data = np.random.default_rng(0).normal(100, 20, (70, 52, 45)).astype(np.float32)
    zarr.save(str(tmp_path / "large.zarr"), data)
    return tmp_path / "large.zarr", data


@pytest.mark.slow
def test_blocks_of_one_volume_are_the_whole(client, checkpoint, large, tmp_path):
    path, data = large
    order = Order(checkpoint, settings=EXACT)
    steps = list(block_steps(client, order, str(path), str(tmp_path / "out.zarr"), block=24))
    assert [s.done for s in steps] == sorted(s.done for s in steps)
    assert steps[-1].done == steps[-1].total == 3 * 3 * 2
    group = zarr.open_group(tmp_path / "out.zarr")
    assert group.attrs["attention_unet"]["complete"]
    expected = predict(load_model(checkpoint), data, EXACT)
    np.testing.assert_array_equal(group["mask"][:], expected.mask)
    for gate in expected.gates:
        found = group[f"gates/{gate.name}"]
        np.testing.assert_allclose(found[:], gate.coefficients, atol=1e-6)
        np.testing.assert_allclose(found.attrs["scale"], gate.scale)


@pytest.mark.slow
def test_blocks_go_on_where_they_stopped(client, checkpoint, large, tmp_path):
    path, _ = large
    out = str(tmp_path / "out.zarr")
    steps = block_steps(client, Order(checkpoint, settings=EXACT), str(path), out, block=24)
    while next(steps).done < 4:
        pass
    steps.close()
    group = zarr.open_group(out)
    assert not group.attrs["attention_unet"]["complete"]
    order = Order(checkpoint, settings=EXACT, resume=True)
    rest = list(block_steps(client, order, str(path), out, block=24))
    assert rest[1].done >= 4  # what was written is not run again
    whole = str(tmp_path / "whole.zarr")
    list(block_steps(client, Order(checkpoint, settings=EXACT), str(path), whole, block=24))
    for name in ("mask", "gates/att1", "gates/att2"):
        np.testing.assert_array_equal(group[name][:], zarr.open_group(whole)[name][:])
