"""The tar archives that torch wrote before version 0.2."""

from __future__ import annotations

import struct
import tarfile
from typing import Any, BinaryIO

from .machine import Machine, Named, UnsafePickleError
from .stream import Bounded, exactly, nothing, read_pickle
from .tensors import Storage, TensorRebuilder, storage_of

_MOST = 1_000_000


def read_tar(file: BinaryIO, size: int, rebuild: TensorRebuilder) -> Any:
    """Content of such an archive, nothing of it run and nothing written to disk.

    Parameters
    ----------
    file : binary file
        The archive.
    size : int
        Its length in bytes.
    rebuild : TensorRebuilder
        Makes the tensors.

    Raises
    ------
    UnsafePickleError
        If it is damaged, or says more than the file holds.
    """
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            storages = _storages(_part(archive, "storages"), size)
            tensors = _tensors(_part(archive, "tensors"), size, storages, rebuild)

            def persistent(identifier: Any) -> Any:
                match identifier:
                    case (Named() as named, *_):  # a module, with its source
                        return named
                if str(identifier) in tensors:
                    return tensors[str(identifier)]
                raise UnsafePickleError("it refers to data in an unknown way")

            return Machine(rebuild, persistent).load(Bounded(_part(archive, "pickle")))
    except (tarfile.TarError, struct.error, OSError) as error:
        raise UnsafePickleError(f"its archive is damaged ({error})") from error


def _part(archive: tarfile.TarFile, name: str) -> BinaryIO:
    """A member, by its plain name; links are not followed."""
    for member in archive:
        if member.name == name and member.isreg() and not member.issparse():
            part = archive.extractfile(member)
            if part is not None:
                return part  # type: ignore[return-value]
    raise UnsafePickleError(f"its archive has no {name!r}")


def _count(file: BinaryIO) -> int:
    number = read_pickle(file, nothing)
    if type(number) is not int or not 0 <= number <= _MOST:
        raise UnsafePickleError("it says an impossible number of tensors")
    return number


def _storages(file: BinaryIO, size: int) -> dict[str, Storage]:
    """Numbers by their keys: of each a pickled key, place and kind, a count and the bytes."""
    found: dict[str, Storage] = {}
    left = size

    def read(number: int) -> bytearray:
        nonlocal left
        left -= number
        if left < 0:
            raise UnsafePickleError("it says more data than the file holds")
        return bytearray(exactly(file, number, size))

    for _ in range(_count(file)):
        key, _place, kind = _fields(read_pickle(file, nothing))
        (numel,) = struct.unpack("<q", exactly(file, 8, size))
        found[key] = storage_of(kind, numel, read)
    for view in _views(read_pickle(file, nothing)):
        target, root, offset, length = view
        if root not in found or not 0 <= offset <= offset + length <= found[root].values.numel():
            raise UnsafePickleError("it shares data that is not there")
        found[target] = Storage(found[root].values[offset : offset + length])
    return found


def _tensors(
    file: BinaryIO, size: int, storages: dict[str, Storage], rebuild: TensorRebuilder
) -> dict[str, Any]:
    """Tensors by their keys: of each a pickled key and storage, its axes, sizes and strides."""
    found: dict[str, Any] = {}
    call = Named("torch._utils", "_rebuild_tensor")
    for _ in range(_count(file)):
        key, storage, _kind = _fields(read_pickle(file, nothing))
        (axes,) = struct.unpack("<i", exactly(file, 4, size))
        if not 0 <= axes <= 16 or str(storage) not in storages:
            raise UnsafePickleError("it holds a tensor of impossible shape")
        exactly(file, 4, size)  # padding
        shape = struct.unpack(f"<{axes}q", exactly(file, 8 * axes, size))
        stride = struct.unpack(f"<{axes}q", exactly(file, 8 * axes, size))
        (offset,) = struct.unpack("<q", exactly(file, 8, size))
        found[key] = rebuild(call, (storages[str(storage)], offset, shape, stride))
    return found


def _fields(record: Any) -> tuple[str, Any, Any]:
    if not isinstance(record, tuple) or len(record) != 3:
        raise UnsafePickleError("its list of data is damaged")
    return str(record[0]), record[1], record[2]


def _views(record: Any) -> list[tuple[str, str, int, int]]:
    if not isinstance(record, list) or len(record) > _MOST:
        raise UnsafePickleError("its list of data is damaged")
    views = []
    for view in record:
        numbers = isinstance(view, tuple) and len(view) == 4 and view[2:]
        if not numbers or any(type(n) is not int or n < 0 for n in numbers):
            raise UnsafePickleError("its list of data is damaged")
        views.append((str(view[0]), str(view[1]), view[2], view[3]))
    return views
