"""Hostile programs, bundles, packages and indexes: nothing runs unasked, memory stays bounded."""

from __future__ import annotations

import io
import json
import os
import pickle
import stat
import sys
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file
from small_networks import gated, known
from test_inert import ROUTES
from test_tar import parts, written

from napari_attention_unet.errors import AttentionUNetError, TrustRequired
from napari_attention_unet.models import open_checkpoint
from napari_attention_unet.models.card_file import card_path

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated:DeprecationWarning")

#: What no hostile file may take, beside what an honest one of its size does.
BOUND = 160 * 2**20
COMMAND = "touch executed"
_ran: list[str] = []
_watching = [False]


def _audit(event: str, arguments: tuple) -> None:
    if _watching[0] and event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn"):
        _ran.append(f"{event} {arguments[:1]}")


sys.addaudithook(_audit)

Maker = Callable[[Path], Path]
FILES: dict[str, Maker] = {}


def hostile(name: str) -> Callable[[Maker], Maker]:
    def keep(maker: Maker) -> Maker:
        FILES[name] = maker
        return maker

    return keep


# Bundles.


def bundle(folder: Path, config=None, text: str = "", weights=None, suffix="json") -> Path:
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / f"inference.{suffix}").write_text(text or json.dumps(config or {}))
    state = gated().state_dict() if weights is None else weights
    if isinstance(state, bytes):
        (folder / "models" / "model.pt").write_bytes(state)
    else:
        torch.save(state, folder / "models" / "model.pt")
    return folder


CALL = f"$__import__('os').system({COMMAND!r})"
CONFIGS = {
    "network_def is an expression": {"network_def": CALL},
    "network_def is os.system": {"network_def": {"_target_": "os.system", "command": COMMAND}},
    "an argument is an expression": {"network_def": {"_target_": "AttentionUnet", "strides": CALL}},
    "imports": {"imports": [CALL], "network_def": {}},
    "preprocessing": {
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": "Spacingd", "pixdim": CALL}],
        }
    },
    "_requires_": {"network_def": {"_target_": "AttentionUnet", "_requires_": [CALL]}},
    "run": {"run": [CALL], "initialize": [CALL]},
}
for _name, _config in CONFIGS.items():
    for _weights in ("known", "unknown"):
        FILES[f"bundle: {_name}, {_weights}"] = lambda p, c=_config, w=_weights: bundle(
            p / "b", c, weights=known().state_dict() if w == "known" else None
        )
for _route, _payload in ROUTES.items():
    FILES[f"bundle: weights with {_route}"] = lambda p, raw=_payload: bundle(p / "b", weights=raw)

YAMLS = {
    "apply": f"network_def: !!python/object/apply:os.system ['{COMMAND}']",
    "new": "x: !!python/object/new:subprocess.Popen [['touch', 'executed']]",
    "module": "x: !!python/module:antigravity",
    "aliases": "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    + "preprocessing: {transforms: *a11}",
    "deep": "preprocessing: " + "[" * 5000,
    "itself": "preprocessing: &p {transforms: [*p]}",
    "long": "x: " + "y" * (5 * 2**20),
}
for _name, _text in YAMLS.items():
    FILES[f"bundle: yaml {_name}"] = lambda p, t=_text: bundle(p / "b", text=t, suffix="yaml")


@hostile("bundle: a link out of it")
def _(path: Path) -> Path:
    folder = bundle(path / "b")
    (folder / "models" / "secret").symlink_to("/etc/passwd")
    return folder


@hostile("bundle: deep metadata")
def _(path: Path) -> Path:
    folder = bundle(path / "b")
    (folder / "configs" / "metadata.json").write_text("[" * 200_000)
    return folder


# Indexes of shards.

PLACES = [
    "../x.safetensors",
    "/etc/passwd",
    "a/../../x.safetensors",
    "C:\\x.safetensors",
    "\0.safetensors",
    "x" * 5000,
]
for _place in PLACES:

    def _index(path: Path, place: str = _place) -> Path:
        save_file(known().state_dict(), path / "x.safetensors")
        (path / "in").mkdir()
        index = path / "in" / "m.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": {"a": place}}))
        return index

    FILES[f"index: {_place[:30]!r}"] = _index


@hostile("index: too long")
def _(path: Path) -> Path:
    index = path / "m.safetensors.index.json"
    with index.open("wb") as file:
        file.truncate(2**33)
    return index


# Archives.


def entry(name: str, mode: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


PROGRAMS = {
    "torchscript": ("m/constants.pkl", "m/code/a.py", "m/data.pkl"),
    "exported": ("m/models/model.json", "m/data/weights/model.pt"),
    "package": ("rdf.yaml",),
}
for _kind, _names in PROGRAMS.items():
    for _bad in (
        "../../escaped",
        "/tmp/escaped-by-test",
        "a/../../escaped",
        "C:\\escaped",
        "..\\escaped",
    ):

        def _traversal(path: Path, names=_names, bad: str = _bad) -> Path:
            with zipfile.ZipFile(path / "a.zip", "w") as archive:
                for name in names:
                    archive.writestr(name, "type: model")
                archive.writestr(entry(bad), "x")
            return path / "a.zip"

        FILES[f"{_kind}: {_bad}"] = _traversal

    def _link(path: Path, names=_names) -> Path:
        with zipfile.ZipFile(path / "a.zip", "w") as archive:
            for name in names:
                archive.writestr(name, "x")
            archive.writestr(entry("link", stat.S_IFLNK | 0o777), "/etc")
        return path / "a.zip"

    def _bomb(path: Path, names=_names) -> Path:
        with zipfile.ZipFile(path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                archive.writestr(name, "x")
            with archive.open("bomb", "w") as part:
                for _ in range(512):
                    part.write(bytes(2**20))
        return path / "a.zip"

    def _liar(path: Path, names=_names) -> Path:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                archive.writestr(name, "x")
            archive.writestr("bomb", bytes(2**26))
        raw = stream.getvalue().replace((2**26).to_bytes(4, "little"), (9).to_bytes(4, "little"))
        (path / "a.zip").write_bytes(raw)
        return path / "a.zip"

    def _many(path: Path, names=_names) -> Path:
        with zipfile.ZipFile(path / "a.zip", "w") as archive:
            for name in (*names, *(f"f{i}" for i in range(20_001))):
                archive.writestr(name, "")
        return path / "a.zip"

    FILES |= {f"{_kind}: a link": _link, f"{_kind}: a bomb": _bomb}
    FILES |= {f"{_kind}: a bomb that lies": _liar, f"{_kind}: many files": _many}

for _route, _payload in ROUTES.items():

    def _script(path: Path, raw: bytes = _payload) -> Path:
        with zipfile.ZipFile(path / "a.ts", "w") as archive:
            for name in ("m/constants.pkl", "m/data.pkl"):
                archive.writestr(name, raw)
            archive.writestr("m/code/__torch__.py", f"import os\nos.system({COMMAND!r})")
        return path / "a.ts"

    def _program(path: Path, raw: bytes = _payload) -> Path:
        with zipfile.ZipFile(path / "a.pt2", "w") as archive:
            archive.writestr("m/archive_format", "pt2")
            archive.writestr("m/models/model.json", "{}")
            for name in ("weights/model.pt", "constants/model.pt", "sample_inputs/model.pt"):
                archive.writestr(f"m/data/{name}", raw)
        return path / "a.pt2"

    FILES |= {f"torchscript: {_route}": _script, f"exported: {_route}": _program}
    for _member in ("storages", "tensors", "pickle", "sys_info"):
        FILES[f"tar: {_member} with {_route}"] = lambda p, m=_member, raw=_payload: written(
            p / "a.pth", {**parts({"a": torch.ones(2)}), m: raw}
        )


@hostile("tar: names that lead elsewhere")
def _(path: Path) -> Path:
    return written(
        path / "a.pth",
        {**parts({"a": torch.ones(2)}), "../../escaped": b"x", "/tmp/escaped-by-test": b"x"},
    )


@hostile("tar: a member that claims a terabyte")
def _(path: Path) -> Path:
    raw = bytearray(written(path / "a.pth", parts({"a": torch.ones(2)})).read_bytes())
    at = raw.index(b"storages")
    raw[at + 124 : at + 136] = b"\x80\0\0\0\0\0\1\0\0\0\0\0"
    (path / "a.pth").write_bytes(raw)
    return path / "a.pth"


@hostile("tar: devices and links")
def _(path: Path) -> Path:
    with tarfile.open(path / "a.pth", "w") as archive:
        for name, kind in (
            ("pickle", tarfile.CHRTYPE),
            ("storages", tarfile.LNKTYPE),
            ("tensors", tarfile.SYMTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/dev/zero"
            archive.addfile(info)
    return path / "a.pth"


# Packages.

PACKAGES = {
    "apply": f"type: model\nname: !!python/object/apply:os.system ['{COMMAND}']",
    "no model": "type: model\nformat_version: 0.5.4",
    "aliases": YAMLS["aliases"],
    "deep": "[" * 5000,
    "long": YAMLS["long"],
    "a version from nowhere": "type: model\nformat_version: ../../../x\nname: [1]",
}
for _name, _text in PACKAGES.items():

    def _package(path: Path, text: str = _text) -> Path:
        (path / "p").mkdir()
        (path / "p" / "rdf.yaml").write_text(text)
        return path / "p"

    FILES[f"package: {_name}"] = _package

# Cards that were put beside honest weights.

CARDS = {
    "os:system": {"name": "x", "architecture": "os:system", "arguments": {"command": COMMAND}},
    "subprocess:run": {
        "name": "x",
        "architecture": "subprocess:run",
        "arguments": {"args": ["touch", "executed"]},
    },
    "a shift": {
        "name": "x",
        "architecture": "AttU_Net",
        "arguments": {"upsample": CALL, "axes": CALL},
    },
    "sizes": {
        "name": "x",
        "architecture": "AttU_Net",
        "arguments": {"in_channels": 2**60, "widths": [2**40]},
    },
}
for _name, _card in CARDS.items():

    def _carded(path: Path, card=_card) -> Path:
        torch.save(known().state_dict(), path / "a.pth")
        card_path(path / "a.pth").write_text(json.dumps(card))
        return path / "a.pth"

    FILES[f"card: {_name}"] = _carded


@hostile("card: deep")
def _(path: Path) -> Path:
    torch.save(known().state_dict(), path / "a.pth")
    card_path(path / "a.pth").write_text("[" * 200_000)
    return path / "a.pth"


def attempt(folder: Path, name: str) -> tuple[str, int]:
    """What came of one file, and the peak of memory that Python allocated."""
    path = FILES[name](folder)
    before = set(folder.rglob("*"))
    tracemalloc.start()
    _ran.clear()
    _watching[0] = True
    try:
        open_checkpoint(path)
        came = "opened"
    except TrustRequired:
        came = "asked"
    except AttentionUNetError:
        came = "refused"
    finally:
        _watching[0] = False
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert _ran == [], _ran
    assert set(folder.rglob("*")) == before
    assert not Path("/tmp/escaped-by-test").exists()
    return came, peak


@pytest.mark.parametrize("name", FILES)
def test_nothing_runs_unasked(tmp_path, monkeypatch, name, record_property):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "files"
    folder.mkdir()
    came, peak = attempt(folder, name)
    record_property("came", came)
    record_property("peak", peak)
    assert peak < BOUND
    assert not list(tmp_path.rglob("executed"))
    assert not list(tmp_path.parent.glob("escaped"))
    # what opens is honest weights with hostile words beside them, or lifeless tensors
    assert came != "opened" or name.startswith(("bundle", "card", "tar"))


def test_a_canary_would_be_seen(tmp_path, monkeypatch):
    """The payloads are no duds, and the watch is no dud either."""
    monkeypatch.chdir(tmp_path)
    _ran.clear()
    _watching[0] = True
    pickle.loads(ROUTES["REDUCE"])
    _watching[0] = False
    assert _ran
    assert (tmp_path / "executed").exists()
    assert yaml.unsafe_load(YAMLS["apply"]) == {"network_def": 0}


if __name__ == "__main__":
    import tempfile

    found: dict[str, int] = {}
    largest = 0
    for each in FILES:
        with tempfile.TemporaryDirectory() as name:
            os.chdir(name)
            (Path(name) / "files").mkdir()
            came, peak = attempt(Path(name) / "files", each)
            assert not list(Path(name).rglob("executed")), each
            found[came] = found.get(came, 0) + 1
            largest = max(largest, peak)
    print(f"{len(FILES)} tried, 0 executed: {found}; peak {largest / 2**20:.0f} MiB")
