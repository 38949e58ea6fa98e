"""Zip archives that come from elsewhere: what they may say, and how they are unpacked."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from tempfile import TemporaryDirectory

from napari_attention_unet.errors import CheckpointError

#: How much larger than its archive the content may be: weights hardly shrink, text does.
MAX_GROWTH = 8
_TEXT = 64 * 2**20
_MOST_ENTRIES = 20_000


def check_entries(path: Path) -> list[zipfile.ZipInfo]:
    """The entries of an archive, none of which leads elsewhere or grows beyond reason.

    Raises
    ------
    CheckpointError
        If one would; nothing was unpacked then.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError, OSError) as error:
        raise CheckpointError(
            f"The archive '{path.name}' is damaged or cut short ({error}). Copy or download it "
            "again."
        ) from error
    for entry in entries:
        name, windows = PurePosixPath(entry.filename), PureWindowsPath(entry.filename)
        linked = entry.external_attr >> 16 & 0o170000 == 0o120000
        outside = name.is_absolute() or windows.drive or ".." in name.parts + windows.parts
        if outside or linked:
            raise CheckpointError(
                f"The archive '{path.name}' holds {entry.filename[:80]!r}, which leads outside of "
                "it. Nothing was unpacked. Pack its folder again, without links."
            )
    total = sum(entry.file_size for entry in entries)
    if total > MAX_GROWTH * path.stat().st_size + _TEXT or len(entries) > _MOST_ENTRIES:
        raise CheckpointError(
            f"The archive '{path.name}' says {total} bytes in {len(entries)} files, many times "
            "its own size, as no checkpoint does. Nothing was unpacked."
        )
    return entries


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """A folder with the content of an archive, which is gone afterwards.

    Raises
    ------
    CheckpointError
        As of `check_entries`.
    """
    entries = check_entries(path)
    with TemporaryDirectory(prefix="attention-unet-", ignore_cleanup_errors=True) as name:
        root = Path(name)
        try:
            with zipfile.ZipFile(path) as archive:
                for entry in entries:
                    target = root / entry.filename
                    if entry.is_dir():
                        target.mkdir(parents=True, exist_ok=True)
                        continue
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(entry) as source, target.open("wb") as file:
                        _copy(source, file, entry.file_size)
        except CheckpointError:
            raise
        except Exception as error:  # zlib, lzma and bz2 have errors of their own
            raise CheckpointError(
                f"The archive '{path.name}' is damaged ({error}). Copy or download it again."
            ) from error
        yield root


def _copy(source: object, file: object, promised: int) -> None:
    """Copy no more than was promised, whatever the data says."""
    left = promised
    while chunk := source.read(min(left, 2**20) or 1):  # type: ignore[attr-defined]
        left -= len(chunk)
        if left < 0:
            raise CheckpointError("An entry of the archive is longer than it says.")
        file.write(chunk)  # type: ignore[attr-defined]
