"""The inert reader gives tensors and hyper-parameters back, and runs nothing of hostile files."""

from __future__ import annotations

import codecs
import copyreg
import io
import pickle
import struct
import sys
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from napari_attention_unet.errors import CheckpointError
from napari_attention_unet.models.inert import (
    Inert,
    class_name,
    hyper_parameters,
    is_module,
    read_inert,
    state_dict_of,
)
from napari_attention_unet.models.inert.machine import MAX_OPCODES

FORBIDDEN = ("import", "exec", "compile", "os.", "subprocess.", "socket.", "ctypes.", "shutil.")
_seen: list[str] = []
_watching = [False]


def _audit(event: str, arguments: tuple) -> None:
    if _watching[0] and event.startswith(FORBIDDEN):
        _seen.append(f"{event} {arguments[:1]}")


sys.addaudithook(_audit)


class Watched:
    """Notes every import, execution or system call of this process while it is open."""

    def __enter__(self) -> list[str]:
        for codec in ("cp437", "raw_unicode_escape"):  # which Python itself imports when first used
            codecs.lookup(codec)
        _seen.clear()
        _watching[0] = True
        return _seen

    def __exit__(self, *_: object) -> None:
        _watching[0] = False


def refusal(path: Path) -> str | None:
    """What the reader says against a file; None if it takes it."""
    try:
        read_inert(path)
    except CheckpointError as error:
        return str(error)
    return None


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv3d(2, 3, 3, stride=(1, 2, 2)), nn.BatchNorm3d(3))
        self.up = nn.Upsample(scale_factor=2, mode="trilinear", align_corners=True)
        self.mode = "concatenation"
        self.chosen = self.way
        self.register_buffer("hidden", torch.ones(2), persistent=False)

    def way(self) -> None:
        """One way of computing, as some networks choose by an attribute."""


# ---------------------------------------------------------------------------------- honest files


def contents():
    torch.manual_seed(1)
    network = Network()
    state = network.state_dict()
    return {
        "state_dict": state,
        "wrapped": {"state_dict": state, "epoch": 3, "best": np.float64(0.5), "at": Path("x")},
        "half": OrderedDict(
            (k, v.half() if v.is_floating_point() else v) for k, v in state.items()
        ),
        "bfloat16": {k: v.bfloat16() for k, v in state.items()},
        "module": network,
        "views": {
            "a": torch.arange(24.0).reshape(2, 3, 4).permute(2, 0, 1),
            "b": torch.zeros(0, 3),
        },
    }


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", list(contents()))
def test_tensors_come_back_bit_for_bit(tmp_path, zipped, name):
    content = contents()[name]
    path = tmp_path / "file.pkl"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with Watched() as events:
        got = read_inert(path)
    assert events == []
    expected = content.state_dict() if name == "module" else content.get("state_dict", content)
    if name == "module":
        assert is_module(got)
        got = state_dict_of(got)
    got = got.get("state_dict", got)
    assert list(got) == list(expected)
    for key, tensor in expected.items():
        assert got[key].dtype == tensor.dtype
        assert torch.equal(got[key], tensor)


def test_hyper_parameters_of_a_whole_model(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(Network(), path)
    model = read_inert(path)
    assert class_name(model).endswith("test_inert.Network")
    found = hyper_parameters(model)
    assert found["up"]["align_corners"] is True
    assert found["body.0"]["stride"] == (1, 2, 2)
    assert found["body.0"]["class"] == "torch.nn.modules.conv.Conv3d"
    assert found[""]["mode"] == "concatenation"
    assert found[""]["chosen"] == "way"


def test_what_is_not_a_tensor_stays_a_record(tmp_path):
    path = tmp_path / "file.pt"
    torch.save({"at": Path("/somewhere"), "value": np.float32(2)}, path)
    got = read_inert(path)
    assert all(isinstance(value, Inert) for value in got.values())
    assert "Path" in str(got["at"].made_by)


def test_a_bare_pickle_of_tensors(tmp_path):
    path = tmp_path / "file.pkl"
    state = Network().state_dict()
    path.write_bytes(pickle.dumps(state))
    got = read_inert(path)
    assert all(torch.equal(got[key], value) for key, value in state.items())


# --------------------------------------------------------------------------------- hostile files


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def routes(command: str) -> dict[str, bytes]:
    """Pickles that would run `command`, one for each way in which opcodes can call something."""
    arg, one = text(command), b"\x85"
    system = b"cos\nsystem\n"
    evil = pickle.dumps
    made = b"cargparse\nNamespace\n)\x81"
    return {
        "REDUCE": system + arg + one + b"R.",
        "REDUCE of eval": b"cbuiltins\neval\n"
        + text(f"__import__('os').system({command!r})")
        + one
        + b"R.",
        "REDUCE of exec": b"cbuiltins\nexec\n"
        + text(f"import os; os.system({command!r})")
        + one
        + b"R.",
        "INST": b"(" + arg + b"ios\nsystem\n.",
        "OBJ": b"(" + system + arg + b"o.",
        "NEWOBJ": system + arg + one + b"\x81.",
        "NEWOBJ_EX": system + arg + one + b"}\x92.",
        "BUILD": made + b"}" + text("__setstate__") + system + b"sb" + arg + b"b.",
        "BUILD of slots": made + b"N}" + text("__class__") + system + b"s\x86b.",
        "STACK_GLOBAL": b"\x80\x04" + text("os") + text("system") + b"\x93" + arg + one + b"R.",
        "STACK_GLOBAL dotted": b"\x80\x04"
        + text("builtins")
        + text("__import__.__call__")
        + b"\x93"
        + text("os")
        + one
        + b"R.",
        "getattr": b"cbuiltins\ngetattr\ncbuiltins\n__import__\n"
        + text("os")
        + one
        + b"R"
        + text("system")
        + b"\x86R"
        + arg
        + one
        + b"R.",
        "EXT1": b"\x82\xf0" + arg + one + b"R.",
        "EXT2": b"\x83\xf0\x00" + arg + one + b"R.",
        "EXT4": b"\x84\xf0\x00\x00\x00" + arg + one + b"R.",
        "PERSID": b"Pos.system\n.",
        "BINPERSID": text("module") + system + arg + arg + b"(" + b"0" + b"t\x87Q.",
        "BINPERSID of a module": b"("
        + text("module")
        + system
        + arg
        + arg
        + b"tQ"
        + arg
        + one
        + b"R.",
        "key": b"}" + system + arg + one + b"RNs.",
        "within torch": b"ctorch._utils\n_rebuild_parameter\n"
        + system
        + arg
        + one
        + b"R\x89}\x87R.",
        "within bytes": b"ctorch.storage\n_load_from_bytes\nB"
        + struct.pack("<I", len(system + arg) + 3)
        + system
        + arg
        + one
        + b"R."
        + one
        + b"R.",
        "subprocess": evil(["x"])[:-1] + b"csubprocess\nPopen\n" + arg + one + b"Ra.",
        "torch.load": b"ctorch.serialization\nload\n" + arg + one + b"R.",
        "runpy": b"crunpy\nrun_path\n" + arg + one + b"R.",
    }


ROUTES = routes("touch executed")


def bare(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def zipped(path: Path, data: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", data)
        archive.writestr("model/data/0", bytes(16))


def stream(path: Path, data: bytes) -> None:
    head = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {})]
    path.write_bytes(b"".join(head) + data + pickle.dumps([], 2))


@pytest.mark.parametrize("write", [bare, zipped, stream])
@pytest.mark.parametrize("route", ROUTES)
def test_no_route_runs_anything(tmp_path, monkeypatch, write, route):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(copyreg._inverted_registry, 0xF0, ("os", "system"))
    monkeypatch.setitem(copyreg._extension_cache, 0xF0, __import__("os").system)
    path = tmp_path / "hostile.pt"
    write(path, ROUTES[route])
    with Watched() as events:
        message = refusal(path)
    assert events == []
    assert message is None or "Nothing of it was run" in message
    assert not (tmp_path / "executed").exists()


def test_the_routes_are_real(tmp_path, monkeypatch):
    """Python's own unpickler does run them: the payloads are not duds."""
    ran = []
    monkeypatch.setattr("os.system", ran.append)
    for route in ("REDUCE", "INST", "OBJ", "STACK_GLOBAL", "BUILD"):
        pickle.loads(ROUTES[route])
    assert ran == ["touch executed"] * 5


def repeated_tuple(depth: int) -> bytes:
    return b")" + b"2\x86" * depth


def storage_zip(path: Path, pickled: bytes, data: bytes, **how) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", pickled)
        archive.writestr(zipfile.ZipInfo("m/data/0"), data, **how)


def tensor_pickle(numel: int, size: str, stride: str, key: str = "0", copies: int = 1) -> bytes:
    one = (
        "ctorch._utils\n_rebuild_tensor_v2\n("
        f"(Vstorage\nctorch\nFloatStorage\nV{key}\nVcpu\nI{numel}\ntQ"
        f"I0\n({size}t({stride}tI00\n}}tR"
    )
    return ("(" + one * copies + "l.").encode()


def deflate_bomb(path: Path) -> None:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("m/data.pkl", "w", force_zip64=True) as part,
    ):
        for _ in range(400):
            part.write(bytes(2**20))


def data_bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", tensor_pickle(2**26, f"I{2**26}\n", "I1\n"))
        archive.writestr("m/data/0", bytes(2**28), zipfile.ZIP_DEFLATED)


def lying_zip(path: Path) -> None:
    """An archive whose headers say that a short entry is four gigabytes long."""
    storage_zip(path, tensor_pickle(2**29, f"I{2**29}\n", "I1\n"), bytes(64))
    raw = path.read_bytes().replace(struct.pack("<II", 64, 64), struct.pack("<II", 2**31, 2**31))
    path.write_bytes(raw)


def two_pickles(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"N.")
        archive.writestr("b/data.pkl", b"N.")


def oversized_directory(path: Path) -> None:
    zipped(path, b"N.")
    raw = bytearray(path.read_bytes())
    raw[-12:-4] = struct.pack("<II", 2**32 - 2, 2**31)
    path.write_bytes(raw)


BOMBS = {
    "endless opcodes": lambda p: bare(p, b"N0" * (MAX_OPCODES // 2 + 5) + b"N."),
    "huge memo index": lambda p: bare(p, b"Nr\xff\xff\xff\x7f" * 9 + b"\x8d" + b"\xff" * 7),
    "bytes of 2**60": lambda p: bare(p, b"\x8e" + struct.pack("<Q", 2**60) + b"x."),
    "bytearray of 2**60": lambda p: bare(p, b"\x96" + struct.pack("<Q", 2**60) + b"x."),
    "text of 2**31": lambda p: bare(p, b"X" + struct.pack("<I", 2**31) + b"x."),
    "integer of 2**31 bytes": lambda p: bare(p, b"\x8b" + struct.pack("<i", 2**31 - 1) + b"x."),
    "integer of a million digits": lambda p: bare(p, b"I" + b"9" * 10**6 + b"\n."),
    "line without an end": lambda p: bare(p, b"c" + b"x" * 2**24),
    "deflated pickle": deflate_bomb,
    "deflated data": data_bomb,
    "headers that lie": lying_zip,
    "several pickles": two_pickles,
    "oversized directory": oversized_directory,
    "more data than there is": lambda p: storage_zip(
        p, tensor_pickle(2**40, f"I{2**40}\n", "I1\n"), bytes(64)
    ),
    "tensor larger than its data": lambda p: storage_zip(
        p, tensor_pickle(16, f"I{2**40}\n", "I0\n"), bytes(64)
    ),
    "tensor beyond its data": lambda p: storage_zip(
        p, tensor_pickle(16, "I4\nI4\n", "I1000\nI1\n"), bytes(64)
    ),
    "negative size": lambda p: storage_zip(p, tensor_pickle(16, "I-4\n", "I1\n"), bytes(64)),
    "data shared a million times": lambda p: storage_zip(
        p, tensor_pickle(2**14, f"I{2**14}\n", "I1\n", copies=3000), bytes(2**16)
    ),
    "path traversal by key": lambda p: storage_zip(
        p, tensor_pickle(4, "I4\n", "I1\n", key="../../../../etc/passwd"), bytes(64)
    ),
    "absolute path by key": lambda p: storage_zip(
        p, tensor_pickle(4, "I4\n", "I1\n", key="/etc/passwd"), bytes(64)
    ),
    "stack underflow": lambda p: bare(p, b"0000."),
    "reduce of nothing": lambda p: bare(p, b"R."),
    "buffers from outside": lambda p: bare(p, b"\x97."),
    "no end": lambda p: bare(p, b"\x80\x02}q\x00"),
    "nested in bytes": lambda p: bare(p, nested_bytes(40)),
}


def nested_bytes(depth: int) -> bytes:
    data = b"N."
    for _ in range(depth):
        size = struct.pack("<I", len(data))
        data = b"ctorch.storage\n_load_from_bytes\nB" + size + data + b"\x85R."
    return data


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_refused_in_bounded_memory(tmp_path, bomb):
    path = tmp_path / "bomb.pt"
    BOMBS[bomb](path)
    tracemalloc.start()
    try:
        with Watched() as events, pytest.raises(CheckpointError, match="Nothing of it was run"):
            read_inert(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert events == []
    assert peak < 220e6, f"{peak / 1e6:.0f} MB"


#: These are odd but harmless: they must end soon, and take little memory.
HARMLESS = {
    "key that takes for ever to hash": b"}" + repeated_tuple(100) + b"Ns.",
    "deep lists": b"]" * 100_000 + b"a" * 99_999 + b".",
    "deep calls": b"cx\ny\n" + b")R" * 100_000 + b".",
    "list within itself": b"]2a.",
}


@pytest.mark.parametrize("name", HARMLESS)
def test_odd_pickles_end_soon(tmp_path, name):
    path = tmp_path / "odd.pkl"
    path.write_bytes(HARMLESS[name])
    with Watched() as events:
        read_inert(path)
    assert events == []


def test_modules_within_each_other_without_end_are_refused(tmp_path):
    module = b"cx\nModule\n)\x81"
    inner = module + b"}" + text("_modules") + b"}" + b"sb"
    data = inner
    for _ in range(40):  # each holds the one before it twice
        children = b"q\x000" + module + b"}" + text("_modules") + b"}(" + text("a") + b"h\x00"
        data = data + children + text("b") + b"h\x00" + b"usb"
    path = tmp_path / "doubling.pkl"
    path.write_bytes(data + b".")
    model = read_inert(path)
    assert is_module(model)
    with pytest.raises(ValueError, match="without end"):
        state_dict_of(model)


@pytest.fixture(scope="module")
def honest(tmp_path_factory) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("honest") / "file.pt"
    files = {}
    for name, flag in (("zip", True), ("legacy", False)):
        torch.save(Network(), path, _use_new_zipfile_serialization=flag)
        files[name] = path.read_bytes()
    return files


def read_bytes(folder: Path, data: bytes) -> None:
    path = folder / "file.pt"
    path.write_bytes(data)
    with Watched() as events:
        message = refusal(path)
    assert events == []
    assert message is None or "'file.pt' looks like a PyTorch checkpoint, but" in message


FUZZ = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@FUZZ
@given(kind=st.sampled_from(["zip", "legacy"]), part=st.floats(0, 1, exclude_max=True))
def test_truncated_files(tmp_path, honest, kind, part):
    data = honest[kind]
    read_bytes(tmp_path, data[: int(part * len(data))])


@FUZZ
@given(
    kind=st.sampled_from(["zip", "legacy"]),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
)
def test_altered_files(tmp_path, honest, kind, edits):
    data = bytearray(honest[kind])
    for place, value in edits:
        data[int(place * len(data))] = value
    read_bytes(tmp_path, bytes(data))


@FUZZ
@given(data=st.binary(max_size=300), start=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"("]))
def test_random_bytes(tmp_path, data, start):
    read_bytes(tmp_path, start + data)


@FUZZ
@given(data=st.binary(max_size=300), write=st.sampled_from([zipped, stream]))
def test_random_pickles_inside(tmp_path, data, write):
    buffer = io.BytesIO()
    path = tmp_path / "inside.pt"
    write(path, data)
    buffer.write(path.read_bytes())
    read_bytes(tmp_path, buffer.getvalue())
