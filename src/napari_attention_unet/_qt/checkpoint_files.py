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
    ".index.json",  # of a checkpoint in shards
    ".pt2",
    ".zip",
)
#: Files that describe a BioImage.IO package, in its folder.
PACKAGE_FILES = ("rdf.yaml", "bioimageio.yaml", "rdf.yml", "model.yaml")
#: What makes a folder a checkpoint: files of a BioImage.IO package, of a MONAI bundle, of shards.
_FOLDER_PATTERNS = (
    *PACKAGE_FILES,
    "configs/metadata.json",
    "models/model.pt",
    "models/model.ts",
    "*.safetensors.index.json",
    "*.bin.index.json",
)
#: Patterns of the file dialog.
DIALOG_PATTERNS = (*(f"*{ending}" for ending in CHECKPOINT_ENDINGS), *PACKAGE_FILES)


def is_checkpoint(path: str | Path) -> bool:
    """Whether a path is taken for a checkpoint: a file by its name, a folder by what it holds."""
    path = Path(path)
    if path.is_dir():
        return any(next(path.glob(pattern), None) is not None for pattern in _FOLDER_PATTERNS)
    name = path.name.lower()
    return name.endswith(CHECKPOINT_ENDINGS) or name in PACKAGE_FILES
