"""Which checkpoints may run their code, remembered by their content.

A file in the user's configuration folder holds the hashes of what a person said yes to. A file
that changes has another hash, and is asked about again.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path

import platformdirs

from napari_attention_unet.errors import TrustRequired

_NAME = "trusted.json"


def trust_file() -> Path:
    """Where the answers are kept."""
    return Path(platformdirs.user_config_dir("napari-attention-unet", appauthor=False)) / _NAME


def trusted() -> dict[str, str]:
    """All that is trusted: SHA-256 of the content -> the name that the file had then.

    A file that is missing or damaged means that nothing is trusted.
    """
    try:
        found = json.loads(trust_file().read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def is_trusted(sha256: str) -> bool:
    """Whether a person said that this content may run its code."""
    return sha256 in trusted()


def remember(sha256: str, name: str = "") -> None:
    """Trust this content from now on.

    Parameters
    ----------
    sha256 : str
        As of `errors.TrustRequired`.
    name : str
        What to call it in the list of `trusted`.
    """
    write_whole(trust_file(), json.dumps({**trusted(), sha256: name}, indent=1))


def forget(sha256: str) -> None:
    """Ask again before this content runs its code."""
    write_whole(
        trust_file(), json.dumps({k: v for k, v in trusted().items() if k != sha256}, indent=1)
    )


def require(path: Path, sha256: str, what: str, why: str, trust: bool) -> None:
    """Go on only if the code of a checkpoint may run.

    Parameters
    ----------
    path, sha256, what, why
        As of `errors.TrustRequired`.
    trust : bool
        Whether the caller says yes.

    Raises
    ------
    TrustRequired
        If neither the caller said yes nor somebody did before.
    """
    if not trust and not is_trusted(sha256):
        raise TrustRequired(path, sha256, what, why)


def write_whole(path: Path, text: str) -> None:
    """Write a small file so that a reader sees the old one or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
