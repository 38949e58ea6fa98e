"""What a file looks like, from its first bytes: so that an error can say it."""

from __future__ import annotations

import json
import struct
import tarfile
import zipfile
from pathlib import Path

#: Beginning of the file -> what to call it.
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"II+\x00", "a TIFF image"),
    (b"\x5c\x01\x00\x00", "a NIfTI volume"),
    (b"\x1f\x8b", "a gzip-compressed file, perhaps a NIfTI volume"),
    (b"\x89HDF", "an HDF5 file, perhaps of Keras"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"%PDF", "a PDF document"),
    (b"version https://git-lfs", "a Git LFS pointer, in place of the file itself"),
    (b"Rar!", "a RAR archive"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
)
_HEADER_LIMIT = 100_000_000
_HEAD = 512


def looks_like(path: Path) -> str:
    """Say in a few words what a file is.

    Returns
    -------
    str
        ``"safetensors"``, ``"torch"`` (a zip that `torch.save` wrote), ``"pickle"`` (also
        checkpoints older than torch 1.6), ``"tar"`` (before torch 0.2), ``"torchscript"``,
        ``"exported"``, ``"description"`` (of a BioImage.IO package), or words that follow
        "looks like".
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        return "an empty file"
    if safetensors_header_size(head) is not None:
        return "safetensors"
    if head[:4] == b"PK\x03\x04":
        return _zip_kind(path)
    for magic, words in _MAGIC:
        if head.startswith(magic):
            return words
    if head[257:262] == b"ustar":
        return _tar_kind(path)
    if path.name in ("rdf.yaml", "bioimageio.yaml") and _is_text(head):
        return "description"
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "an HTML page, perhaps of a download that failed"
    if text.startswith((b"<?xml", b"{", b"[")) or _is_text(head):
        return "a text file"
    if head[0] == 0x80 and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pickle"
    return "a file of unknown kind"


def safetensors_header_size(head: bytes) -> int | None:
    """Length of a safetensors header from the file's first bytes; None if it is not one."""
    if len(head) < 9 or head[8:9] != b"{":
        return None
    size = int(struct.unpack("<Q", head[:8])[0])
    return size if 2 <= size <= _HEADER_LIMIT else None


def safetensors_metadata(path: Path) -> dict[str, str]:
    """Metadata of a safetensors file, read without any other library.

    Raises
    ------
    ValueError
        If the file is not safetensors.
    """
    with path.open("rb") as file:
        size = safetensors_header_size(file.read(9))
        if size is None:
            raise ValueError("not a safetensors file")
        file.seek(8)
        header = json.loads(file.read(size))
    metadata = header.get("__metadata__", {}) if isinstance(header, dict) else {}
    return {str(k): str(v) for k, v in metadata.items()}


def _zip_kind(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, struct.error):
        return "a zip file, or a PyTorch checkpoint, that is cut short"
    tails = {name.partition("/")[2] for name in names}
    if any(tail.startswith("models/") for tail in tails):
        return "exported"
    if "constants.pkl" in tails or any(tail.startswith("code/") for tail in tails):
        return "torchscript"
    if "data.pkl" in tails:
        return "torch"
    if any(name.endswith(("rdf.yaml", "bioimageio.yaml")) for name in names):
        return "a BioImage.IO package"
    return "a zip archive that holds no PyTorch checkpoint"


def _tar_kind(path: Path) -> str:
    try:
        with tarfile.open(path, "r:") as archive:
            names = {member.name for member in archive}
    except (tarfile.TarError, OSError, ValueError, EOFError):
        return "a tar archive that is cut short"
    return "tar" if {"pickle", "storages", "tensors"} <= names else "a tar archive"


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if len(head) < _HEAD or error.start < _HEAD - 4:  # not merely cut inside a character
            return False
        text = head[: error.start].decode("utf-8")
    return all(c.isprintable() or c.isspace() for c in text)
