"""A batch: every good volume done, every bad one reported, killed and resumed without a trace."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from batch_cases import BAD

from napari_attention_unet import InputError, load_model
from napari_attention_unet.batch.items import collect
from napari_attention_unet.batch.run import BatchStep, batch_steps
from napari_attention_unet.batch.work import Order, content_hash, is_finished
from napari_attention_unet.graph.lower import finished
from napari_attention_unet.settings import Settings

#: How long it took, and the memory that was free.
VARYING = ("seconds", "plan_reason")


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content; of the summaries what does not tell time."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = path.read_bytes()
        if path.name == "prediction.json":
            summary = json.loads(content)
            content = json.dumps({k: v for k, v in summary.items() if k not in VARYING}).encode()
        found[path.relative_to(folder).as_posix()] = content
    return found


def test_bad_volumes_are_reported_and_the_others_done(scans, checkpoint, tmp_path):
    order = Order(checkpoint, output=str(tmp_path / "out"), settings=Settings(device="cpu"))
    outcomes = finished(batch_steps(order, collect([scans(4)])))
    status = {Path(o.item.path).name: o for o in outcomes}
    for name, reason in BAD.items():
        assert status[name].status == "failed"
        assert status[name].bad_input, status[name].message
        assert re.search(reason, status[name].message), status[name].message
        assert not (Path(status[name].folder) / "prediction.json").exists()
    good = [o for o in outcomes if o.status == "done"]
    assert len(good) == 4
    table = pd.read_csv(tmp_path / "out" / "results.csv")
    assert set(table["name"]) == {o.item.name for o in good}
    assert len(table.groupby(["name", "gate", "label"])) == len(table) == 4 * 2 * 2
    pd.testing.assert_frame_equal(table, pd.read_parquet(tmp_path / "out" / "results.parquet"))


def test_steps_say_where_a_batch_is(scans, checkpoint, tmp_path):
    order = Order(checkpoint, output=str(tmp_path / "out"))
    steps = list(batch_steps(order, collect([scans(2, bad=False)])))
    places = [step.index + step.share for step in steps]
    assert places == sorted(places)
    assert [s.outcome.status for s in steps if s.outcome] == ["done", "done"]
    assert all(isinstance(s, BatchStep) and s.count == 2 for s in steps)


def test_results_are_kept_resumed_or_replaced_as_asked(scans, checkpoint, tmp_path):
    folder, model = scans(2, bad=False), load_model(checkpoint)
    items = collect([folder])

    def run(**options):
        order = Order(checkpoint, output=str(tmp_path / "out"), **options)
        return [o.status for o in finished(batch_steps(order, items, model))]

    assert run() == ["done", "done"]
    assert run() == ["failed", "failed"]  # never replaced without being asked
    assert run(resume=True) == ["skipped", "skipped"]
    assert run(overwrite=True) == ["done", "done"]
    assert run(resume=True, settings=Settings(normalize="minmax")) == ["done", "done"]
    (tmp_path / "out" / "v00" / "mask.ome.tif").unlink()  # no longer complete
    assert run(resume=True, settings=Settings(normalize="minmax")) == ["done", "skipped"]
    np.save(folder / "v01.npy", np.ones((6, 7, 8)))
    changed = (folder / "v01.nii.gz").read_bytes()
    (folder / "v01.nii.gz").write_bytes(changed + b"\0" * 8)  # another content
    assert run(resume=True, settings=Settings(normalize="minmax")) == ["skipped", "done"]


def test_a_finished_folder_is_told_by_content(scans, checkpoint, tmp_path):
    assert not is_finished(tmp_path, {})
    (tmp_path / "prediction.json").write_text("{half")
    assert not is_finished(tmp_path, {})
    folder = scans(2, bad=False)
    assert content_hash(folder / "v00.tif") != content_hash(folder / "v01.nii.gz")
    before = content_hash(folder)
    (folder / "v00.tif").rename(folder / "w00.tif")
    assert content_hash(folder) != before
    with pytest.raises(InputError, match="There is no file"):
        content_hash(folder / "gone.tif")


@pytest.mark.slow
def test_sixty_volumes_killed_twice_and_resumed_give_the_same_files(scans, checkpoint, tmp_path):
    folder = scans(53)
    program = [sys.executable, "-m", "napari_attention_unet", "predict", str(folder)]
    program += ["-m", checkpoint, "--device", "cpu", "--resume", "-o"]

    whole = subprocess.run([*program, str(tmp_path / "whole")], capture_output=True, text=True)
    assert whole.returncode == 2, whole.stderr
    assert "60 volumes: 53 done, 7 failed" in whole.stderr
    for name in BAD:
        assert name in whole.stderr

    out = tmp_path / "killed"
    for enough in (8, 30):
        running = subprocess.Popen(
            [*program, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while len(list(out.glob("*/prediction.json"))) < enough and running.poll() is None:
            time.sleep(0.02)
        running.send_signal(signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL
        assert len(list(out.glob("*/prediction.json"))) < 53
    rest = subprocess.run([*program, str(out)], capture_output=True, text=True)
    assert rest.returncode == 2
    assert re.search(r"60 volumes: \d+ done, \d+ skipped, 7 failed", rest.stderr)
    assert files(out).keys() == files(tmp_path / "whole").keys()
    assert files(out) == files(tmp_path / "whole")
