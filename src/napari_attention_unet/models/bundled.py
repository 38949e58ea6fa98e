"""The models that come with the package, found by name without loading them."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

_SUFFIX = ".safetensors"


def bundled_models() -> dict[str, Path]:
    """Names of the bundled models, with their files, in alphabetical order."""
    folder = Path(str(resources.files(__package__))) / "weights"
    return {path.stem: path for path in sorted(folder.glob(f"*{_SUFFIX}"))}


def resolve(path_or_name: str | Path) -> Path:
    """The file of a checkpoint given by path or by bundled name.

    A file that exists wins over a bundled model of the same name.

    Parameters
    ----------
    path_or_name : str or Path
        e.g. ``"brain-t1"`` or ``"runs/best.pth"``.
    """
    path = Path(path_or_name).expanduser()
    if not path.exists():
        return bundled_models().get(str(path_or_name), path)
    return path
