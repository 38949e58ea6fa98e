"""safetensors that were split into several files, with an index that says which tensor is where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from napari_attention_unet.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

_ENDING = ".safetensors.index.json"
_LARGEST_INDEX = 32 * 2**20


def is_index(path: Path) -> bool:
    """Whether a file is the index of a sharded checkpoint, by its name."""
    return path.name.endswith(_ENDING) and path.is_file()


def index_in(folder: Path) -> Path | None:
    """The index of the sharded checkpoint that a folder holds; None if there is not just one."""
    found = sorted(folder.glob(f"*{_ENDING}"))
    return found[0] if len(found) == 1 else None


def shard_files(index: Path) -> list[Path]:
    """The files that an index names, all of them beside it.

    Raises
    ------
    CheckpointError
        If the index is damaged, or names a file that is missing or lies elsewhere.
    """
    return sorted({index.parent / name for name in _map(index).values()})


def read_shards(index: Path) -> dict[str, Tensor]:
    """All tensors of a sharded checkpoint by name.

    Raises
    ------
    CheckpointError
        If it is damaged, incomplete, or leads outside its folder.
    """
    from safetensors import SafetensorError, safe_open

    places, state = _map(index), {}
    for name in sorted(set(places.values())):
        try:
            with safe_open(index.parent / name, framework="pt") as shard:
                held = set(shard.keys())
                for key in (k for k, where in places.items() if where == name and k in held):
                    state[key] = shard.get_tensor(key)
        except (SafetensorError, OSError, ValueError) as error:
            raise CheckpointError(
                f"'{name}', of which '{index.name}' speaks, is damaged or cut short ({error}). "
                "Copy or download it again."
            ) from error
    if lacking := sorted(set(places) - set(state)):
        raise CheckpointError(
            f"'{index.name}' promises {lacking[0]} in '{places[lacking[0]]}', which does not hold "
            "it. Copy or download all files of the checkpoint again."
        )
    return state


def _map(index: Path) -> dict[str, str]:
    """Name of each tensor -> name of its file."""
    try:
        if index.stat().st_size > _LARGEST_INDEX:
            raise ValueError("larger than any index")
        places = json.loads(index.read_text("utf-8"))["weight_map"]
        if not places or not all(isinstance(v, str) for v in places.values()):
            raise ValueError("no tensors")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"'{index.name}' looks like the index of a sharded checkpoint, but is damaged "
            f"({error}). Copy or download it again."
        ) from error
    for name in set(places.values()):
        inside = index.parent / name
        odd = {"\\", "\0"} & set(name)
        plain = Path(name).name == name and not odd and name.endswith(".safetensors")
        if not plain or inside.resolve().parent != index.parent.resolve():
            raise CheckpointError(
                f"'{index.name}' refers to {name[:80]!r}, which is no safetensors file beside it. "
                "Nothing was read. An index whose files lie in its own folder would work."
            )
        if not inside.is_file():
            raise CheckpointError(
                f"'{index.name}' refers to '{name}', which is missing. Copy all files of the "
                "checkpoint into one folder."
            )
    return dict(places)
