"""Which files and folders are taken for checkpoints where they are dropped or chosen."""

from __future__ import annotations

from pathlib import Path

#: Endings of checkpoints; those of programs and packages last.
CHECKPOINT_ENDINGS = (
    ".safetensors",
    ".pth",
    ".pt",
    ".ckpt",
    ".pkl",
    ".tar",
    ".bin",
    ".model",
    ".safetensors.index.json",  # of a checkpoint in shards
    ".pt2",
    ".zip",
)
#: Files that describe a BioImage.IO package, in its folder.
PACKAGE_FILES = ("rdf.yaml", "bioimageio.yaml")
#: Patterns of the file dialog.
DIALOG_PATTERNS = (*(f"*{ending}" for ending in CHECKPOINT_ENDINGS), *PACKAGE_FILES)


def is_checkpoint(path: str | Path) -> bool:
    """Whether a path is taken for a checkpoint: a file by its name, a folder by what it holds."""
    path = Path(path)
    if path.is_dir():
        return _is_checkpoint_folder(path)
    name = path.name.lower()
    return name.endswith(CHECKPOINT_ENDINGS) or name in PACKAGE_FILES


def _is_checkpoint_folder(folder: Path) -> bool:
    """Whether a folder holds a BioImage.IO package, a MONAI bundle, or a checkpoint in shards.

    The same marks as where checkpoints are opened, looked at here without loading torch.
    """
    package = any((folder / name).is_file() for name in PACKAGE_FILES)
    bundle = all((folder / name).is_dir() for name in ("configs", "models"))
    return package or bundle or next(folder.glob("*.safetensors.index.json"), None) is not None
