"""The files that `torch.save` has written: zip archives, and the older stream of pickles."""

from __future__ import annotations

import io
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from napari_attention_unet.errors import CheckpointError

from .machine import Machine, Named, UnsafePickleError
from .stream import MAX_PICKLE, Bounded, exactly, nothing, read_pickle
from .tar import read_tar
from .tensors import Storage, TensorRebuilder, storage_of

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_NESTING = 2


def read_inert(path: Path) -> Any:
    """Content of a file that `torch.save` or `pickle.dump` wrote, nothing of it run.

    Returns
    -------
    object
        Dicts, lists, tuples and plain values as they were, tensors on the CPU, and `Inert`
        records in the place of everything else.

    Raises
    ------
    CheckpointError
        If the file is damaged, or does what no checkpoint does; the message says which.
    """
    try:
        with path.open("rb") as file:
            return _read(file, path.stat().st_size)
    except (UnsafePickleError, zipfile.BadZipFile, EOFError) as error:
        raise CheckpointError(
            f"'{path.name}' looks like a PyTorch checkpoint, but {error}. Nothing of it was run. "
            "Copy or download it again, or save the weights alone: "
            "torch.save(model.state_dict(), ...)."
        ) from error


def check_archive(path: Path) -> None:
    """Refuse a zip archive that says more than its file holds; other files pass.

    torch stores without compression, so an honest archive cannot be larger than its file, and
    a hostile one cannot fill the memory of whoever reads it.

    Raises
    ------
    CheckpointError
        If it is compressed, or its entries together are longer than the file.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError, OSError) as error:
        raise CheckpointError(
            f"'{path.name}' looks like a PyTorch checkpoint, but its archive is damaged or cut "
            f"short ({error}). Copy or download it again."
        ) from error
    stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    if not stored or sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise CheckpointError(
            f"'{path.name}' looks like a PyTorch checkpoint, but its archive is compressed, or "
            "says more data than the file holds, as torch never does. Nothing of it was run. Save "
            "it again with torch.save, or unpack and pack it without compression."
        )


def _read(file: BinaryIO, size: int, depth: int = 0) -> Any:
    if depth > _NESTING:
        raise UnsafePickleError("its pickles lie within each other")

    def nested(raw: bytes) -> Any:
        content = _read(io.BytesIO(raw), len(raw), depth + 1)
        return content if isinstance(content, Storage) else None

    rebuild = TensorRebuilder(size, nested)
    head = file.read(512)
    if head[:4] == b"PK\x03\x04":
        return _read_zip(file, size, rebuild)
    file.seek(0)
    if head[257:262] == b"ustar":
        return read_tar(file, size, rebuild)
    return _read_stream(file, size, rebuild)


def _read_zip(file: BinaryIO, size: int, rebuild: TensorRebuilder) -> Any:
    try:
        archive = zipfile.ZipFile(file)
    except (ValueError, struct.error, NotImplementedError, OSError) as error:
        raise UnsafePickleError(f"its archive is damaged ({error})") from error
    with archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        pickles = [name for name in entries if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise UnsafePickleError("its archive has no data.pkl, or several")
        root = pickles[0].removesuffix("data.pkl")
        if entries[pickles[0]].file_size > MAX_PICKLE:
            raise UnsafePickleError("its pickle is longer than any checkpoint's")
        left = size
        storages: dict[str, Storage] = {}

        def read(name: str, wanted: int) -> bytearray:
            nonlocal left
            entry = entries.get(name)
            if entry is None:
                raise UnsafePickleError(f"its archive lacks {name!r}")
            # torch stores without compression; together they cannot exceed the file.
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise UnsafePickleError(f"its data {name!r} is compressed, as torch never does")
            left -= entry.file_size
            if left < 0 or wanted > entry.file_size:
                raise UnsafePickleError("it says more data than the file holds")
            return bytearray(_bytes(archive, entry, entry.file_size))

        def persistent(identifier: Any) -> Storage:
            match identifier:
                case ("storage", kind, str() as key, _, numel, *_):
                    if key not in storages:
                        where = f"{root}data/{key}"
                        storages[key] = storage_of(kind, numel, lambda n: read(where, n))
                    return storages[key]
            raise UnsafePickleError("it refers to data in an unknown way")

        order = entries.get(f"{root}byteorder")
        if order is not None and _bytes(archive, order, 16).strip() != sys.byteorder.encode():
            raise UnsafePickleError("its numbers are in another byte order than this machine's")
        raw = _bytes(archive, entries[pickles[0]], MAX_PICKLE)
        return Machine(rebuild, persistent).load(Bounded(io.BytesIO(raw)))


def _bytes(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limit: int) -> bytes:
    """An entry's content, never more than `limit` bytes, whatever its header says."""
    try:
        with archive.open(entry) as part:
            raw = part.read(limit)
            if part.read(1):
                raise UnsafePickleError(f"its entry {entry.filename!r} is longer than it says")
            return raw
    except (ValueError, RuntimeError, NotImplementedError, OSError, struct.error) as error:
        if isinstance(error, UnsafePickleError):
            raise
        raise UnsafePickleError(f"its entry {entry.filename!r} is damaged ({error})") from error
    except Exception as error:  # zlib, lzma and bz2 have errors of their own
        raise UnsafePickleError(f"its entry {entry.filename!r} is damaged ({error})") from error


def _read_stream(file: BinaryIO, size: int, rebuild: TensorRebuilder) -> Any:
    """A stream of pickles, or one pickle: magic, protocol, system, content, keys, numbers."""
    first = read_pickle(file, rebuild)
    if first != _MAGIC:
        return first
    if read_pickle(file, rebuild) != _PROTOCOL:
        raise UnsafePickleError("it is of an unknown version of torch's older format")
    system = read_pickle(file, rebuild)
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise UnsafePickleError("its numbers are in another byte order than this machine's")
    start = file.tell()
    # Once to learn which numbers there are, and once more when it is known where they lie.
    storages = _storages(file, size, _survey(file))

    def persistent(identifier: Any) -> Any:
        match identifier:
            case ("storage", _, str() as key, _, _, view) if key in storages:
                if view is None:
                    return storages[key]
                _, offset, length = view
                return Storage(storages[key].values[int(offset) : int(offset) + int(length)])
            case ("module", Named() as named, *_):
                return named
        raise UnsafePickleError("it refers to data in an unknown way")

    file.seek(start)
    return Machine(rebuild, persistent).load(Bounded(file))


def _survey(file: BinaryIO) -> dict[str, tuple[Any, Any]]:
    """Kind and number of elements of each storage that a pickle refers to."""
    sizes: dict[str, tuple[Any, Any]] = {}

    def note(identifier: Any) -> None:
        match identifier:
            case ("storage", kind, str() as key, _, numel, *_):
                sizes.setdefault(key, (kind, numel))

    Machine(nothing, note).load(Bounded(file))
    return sizes


def _storages(file: BinaryIO, size: int, sizes: dict[str, tuple[Any, Any]]) -> dict[str, Storage]:
    """The numbers at the end of the stream: their keys, then each one's count and bytes."""
    keys = Machine(nothing).load(Bounded(file))
    if not isinstance(keys, list) or any(not isinstance(key, str) for key in keys):
        raise UnsafePickleError("its list of data is damaged")
    storages: dict[str, Storage] = {}
    for key in keys:
        kind, numel = sizes.get(key, (None, 0))
        if key in storages or struct.unpack("<q", exactly(file, 8, size))[0] != numel:
            raise UnsafePickleError("its data has another size than it says")
        storages[key] = storage_of(kind, numel, lambda n: bytearray(exactly(file, n, size)))
    return storages
