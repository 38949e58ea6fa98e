"""Tensors out of a checkpoint's files, and what else the files say, running nothing of them."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_attention_unet.errors import CheckpointError

from .bundled import bundled_models
from .shards import is_index, read_shards, shard_files
from .sniff import looks_like

if TYPE_CHECKING:
    from torch import Tensor

    from .wrappers import Contents

#: What would have worked, for errors.
WORKS = (
    "What opens: a safetensors file, what torch.save wrote, a TorchScript or torch.export program, "
    "a MONAI bundle's folder, a BioImage.IO package."
)


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name; see `read_contents`."""
    return read_contents(path).state


def read_contents(path: Path, weights: str | None = None) -> Contents:
    """The tensors of a checkpoint by name, out of whatever wraps them.

    safetensors come first, then torch's ``weights_only`` reader, then the inert one.

    Parameters
    ----------
    path : Path
        A safetensors file, the index of several, or a file that `torch.save` wrote.
    weights : str, optional
        ``"trained"`` or ``"ema"``, where the file holds both.

    Raises
    ------
    CheckpointError
        If the file does not hold a state_dict; the message says what it looks like.
    """
    from .wrappers import unwrapped

    check_exists(path)
    if is_index(path):
        return unwrapped(read_shards(path), path, weights)
    if path.is_dir():
        raise CheckpointError(f"'{path.name}' is a folder. {WORKS}")
    kind = looks_like(path)
    if kind == "safetensors":
        return unwrapped(_read_safetensors(path), path, weights)
    if kind not in ("torch", "pickle", "tar"):
        raise CheckpointError(f"'{path.name}' looks like {kind}. {WORKS}")
    contents: Contents = unwrapped(_read_torch(path, kind), path, weights)
    _check_sizes(contents.state, path)
    return contents


def check_exists(path: Path) -> None:
    """Raise CheckpointError if there is nothing at `path`."""
    if not path.exists():
        names = ", ".join(bundled_models()) or "none"
        raise CheckpointError(f"There is no file '{path}'. Bundled models: {names}.")


def sha256(path: Path) -> str:
    """SHA-256 of the content of a file, or of all files of a folder or of an index."""
    if is_index(path):
        return sha256_of([path, *shard_files(path)], path.parent)
    if path.is_dir():
        return sha256_of(_files_of(path), path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of(files: Iterable[Path], root: Path) -> str:
    """One hash of several files, their places under `root` included, whatever their order."""
    found = hashlib.sha256()
    for path in sorted(files):
        name = path.relative_to(root).as_posix().encode()
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
        found.update(len(name).to_bytes(8, "big") + name + content)
    return found.hexdigest()


_MOST_FILES = 10_000


def _files_of(folder: Path) -> list[Path]:
    files = []
    for path in folder.rglob("*"):
        if not path.resolve().is_relative_to(folder.resolve()):
            raise CheckpointError(
                f"'{path.name}' in '{folder.name}' leads to a place outside the folder. A folder "
                "that holds all of its files would work."
            )
        if path.is_file():
            files.append(path)
        if len(files) > _MOST_FILES:
            raise CheckpointError(
                f"The folder '{folder.name}' holds more than {_MOST_FILES} files, as no "
                f"checkpoint does. {WORKS}"
            )
    return files


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise CheckpointError(
            f"'{path.name}' begins like a safetensors file but is damaged or cut short "
            f"({first_line(error)}). Copy or download it again."
        ) from error


def _read_torch(path: Path, kind: str) -> Any:
    import torch

    from .inert import check_archive, read_inert

    if kind == "tar":  # of torch before 0.2, which weights_only does not read
        return read_inert(path)
    check_archive(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # holds more than tensors: take those, and run nothing
        return read_inert(path)
    except Exception as error:  # damaged files fail in many ways inside torch
        raise CheckpointError(
            f"'{path.name}' begins like a PyTorch checkpoint but is damaged or cut short "
            f"({first_line(error)}). Copy or download it again."
        ) from error


def _check_sizes(state: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors that would grow far beyond their file when they are copied."""
    from .inert import MAX_SHARED

    total = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if total > MAX_SHARED * path.stat().st_size:
        raise CheckpointError(
            f"'{path.name}' says {total} bytes of tensors, many times its own size, as no "
            "checkpoint does. Copy or download it again."
        )


def first_line(error: BaseException) -> str:
    """What an error of a library says, short."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:160]
