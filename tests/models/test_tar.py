"""The tar archives of torch before 0.2: read as torch reads them, and nothing of them run."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from small_networks import known
from test_inert import ROUTES

from napari_attention_unet.errors import CheckpointError
from napari_attention_unet.models import open_checkpoint
from napari_attention_unet.models.inert import read_inert


class _ByKey(pickle.Pickler):
    """Refers to tensors by their keys, as torch did."""

    def __init__(self, file, keys) -> None:
        super().__init__(file, 2)
        self._keys = keys

    def persistent_id(self, item):
        known = isinstance(item, torch.Tensor) and id(item) in self._keys
        return str(self._keys[id(item)]) if known else None


def parts(content: dict) -> dict[str, bytes]:
    """Members of the archive for a dict of float tensors (and others, by other names)."""
    tensors = [value for value in content.values() if isinstance(value, torch.Tensor)]
    keys = {id(t): 10_000 + i for i, t in enumerate(tensors)}
    kinds = {torch.float32: torch.FloatStorage, torch.int64: torch.LongStorage}
    storages, listed = io.BytesIO(), io.BytesIO()
    for file in (storages, listed):
        pickle.dump(len(tensors), file, 2)
    for i, tensor in enumerate(tensors):
        kind = kinds[tensor.dtype]
        pickle.dump((i, "cpu", kind), storages, 2)
        storages.write(struct.pack("<q", tensor.numel()))
        storages.write(tensor.contiguous().numpy().tobytes())
        pickle.dump((keys[id(tensor)], i, torch.FloatTensor), listed, 2)
        listed.write(struct.pack("<i", tensor.ndim) + bytes(4))
        listed.write(struct.pack(f"<{tensor.ndim}q", *tensor.shape))
        listed.write(struct.pack(f"<{tensor.ndim}q", *tensor.contiguous().stride()))
        listed.write(struct.pack("<q", 0))
    pickle.dump([], storages, 2)
    main = io.BytesIO()
    _ByKey(main, keys).dump(content)
    return {
        "sys_info": pickle.dumps({"protocol_version": 1000, "little_endian": True}, 2),
        "storages": storages.getvalue(),
        "tensors": listed.getvalue(),
        "pickle": main.getvalue(),
    }


def written(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, raw in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    return path


def test_they_are_read_as_torch_reads_them(tmp_path):
    network = known()
    path = written(tmp_path / "old.pth", parts(dict(network.state_dict())))
    ours, theirs = read_inert(path), torch.load(path, weights_only=False)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    opened = open_checkpoint(path)
    assert all(
        torch.equal(v, network.state_dict()[k]) for k, v in opened.module.state_dict().items()
    )


@pytest.mark.parametrize("member", ["storages", "tensors", "pickle"])
@pytest.mark.parametrize("route", ROUTES)
def test_no_route_runs_anything(tmp_path, monkeypatch, route, member):
    monkeypatch.chdir(tmp_path)
    members = {**parts({"a": torch.ones(2)}), member: ROUTES[route]}
    with suppress(CheckpointError):
        read_inert(written(tmp_path / "hostile.pth", members))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m | {"storages": m["storages"][:-20]},
        lambda m: m | {"tensors": m["tensors"][:-9]},
        lambda m: m | {"tensors": m["tensors"].replace(b"\2\0\0\0\0\0\0\0", b"\xff" * 8)},
        lambda m: m | {"storages": pickle.dumps(2**40, 2)},
        lambda m: m | {"storages": pickle.dumps(-1, 2)},
        lambda m: (
            m | {"storages": m["storages"].replace(struct.pack("<q", 6), struct.pack("<q", 2**40))}
        ),
        lambda m: m | {"pickle": b""},
        lambda m: {k: v for k, v in m.items() if k != "tensors"},
        lambda m: m | {"storages": m["storages"][:-4] + pickle.dumps([(9, 8, 0, 4)], 2)},
    ],
)
def test_what_is_damaged_is_refused(tmp_path, change):
    members = change(parts({"a": torch.ones(2, 3)}))
    with pytest.raises(CheckpointError, match="Copy or download it again"):
        read_inert(written(tmp_path / "bad.pth", members))


def test_links_are_not_followed(tmp_path):
    members = parts({"a": torch.ones(2)})
    (tmp_path / "pickle").write_bytes(members.pop("pickle"))
    path = written(tmp_path / "bad.pth", members)
    with tarfile.open(path, "a") as archive:
        link = tarfile.TarInfo("pickle")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "pickle")
        archive.addfile(link)
    with pytest.raises(CheckpointError, match="no 'pickle'"):
        read_inert(path)
