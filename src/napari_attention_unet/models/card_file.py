"""Cards kept apart from their checkpoints: names of classes, options, all that a person said.

There are two places for one kind of file. `save_card` writes beside the checkpoint, to go where
it goes; `remember_card` writes into the user's configuration folder under the checkpoint's hash,
for what was chosen in the panel and for folders that cannot be written to. Where there are both,
the later one counts. Options of the network are among the card's ``arguments``.
"""

from __future__ import annotations

from pathlib import Path

import platformdirs

from .card import ModelCard
from .trust import write_whole


def card_path(checkpoint: str | Path) -> Path:
    """Where the card of a checkpoint is saved: ``<file>.card.json`` beside it."""
    path = Path(checkpoint)
    return path.with_name(f"{path.name}.card.json")


def save_card(checkpoint: str | Path, card: ModelCard) -> Path:
    """Write a card beside its checkpoint, from where `load_model` picks it up.

    Raises
    ------
    OSError
        If the folder cannot be written to; `remember_card` needs no such right.
    """
    path = card_path(checkpoint)
    write_whole(path, card.to_json())
    return path


def remember_card(sha256: str, card: ModelCard) -> Path:
    """Keep the card of a checkpoint for this user, whatever its file is called or wherever it goes.

    Parameters
    ----------
    sha256 : str
        Of the checkpoint's content, as of `Model.sha256`.
    """
    path = _remembered(sha256)
    write_whole(path, card.to_json())
    return path


def forget_card(sha256: str) -> None:
    """Undo `remember_card`; no harm if there is none."""
    _remembered(sha256).unlink(missing_ok=True)


def find_card(checkpoint: str | Path, sha256: str) -> ModelCard | None:
    """The card that was saved beside a checkpoint or remembered for it; the later one of two.

    Raises
    ------
    CheckpointError
        If there is one that cannot be read.
    """
    found = [path for path in (card_path(checkpoint), _remembered(sha256)) if path.is_file()]
    if not found:
        return None
    latest = max(found, key=lambda path: path.stat().st_mtime_ns)
    return ModelCard.from_json(latest.read_text("utf-8"))


def _remembered(sha256: str) -> Path:
    folder = Path(platformdirs.user_config_dir("napari-attention-unet", appauthor=False))
    return folder / "cards" / f"{sha256}.json"
