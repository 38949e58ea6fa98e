"""Errors of this package, written for the person at the screen.

Every message says what was found and what would work. Anything raised on
purpose by the package derives from `AttentionUNetError`, so one ``except``
serves the widget and the command line alike.
"""

from __future__ import annotations

from pathlib import Path


class AttentionUNetError(Exception):
    """Base of all errors that this package raises on purpose."""


class InputError(AttentionUNetError, ValueError):
    """A volume or an option cannot be used as it is."""


class CheckpointError(AttentionUNetError):
    """A file is not a checkpoint that can be opened, or lacks something."""


class TrustRequired(CheckpointError):  # noqa: N818  (a question rather than an error)
    """A checkpoint holds code, or asks for some, and nobody has said that it may run.

    Nothing of it has run. ``load_model(..., trust=True)`` says yes once, `models.trust.remember`
    for good.

    Attributes
    ----------
    path : Path
        The file or folder.
    sha256 : str
        What a yes is remembered by: the hash of the content, of all files of a folder, together
        with the name of the code where that lies elsewhere. Hexadecimal.
    what : str
        What it holds, e.g. ``"a TorchScript program"``.
    why : str
        What saying yes means, as sentences for a dialog.
    """

    def __init__(self, path: Path, sha256: str, what: str, why: str) -> None:
        self.path, self.sha256, self.what, self.why = path, sha256, what, why
        super().__init__(
            f"'{path.name}' is {what}. {why} If you trust where it comes from, say so: "
            "trust=True, or --trust."
        )


class GraphError(AttentionUNetError):
    """A network could not be turned into a graph, or an operator is unknown."""


class NotFiniteError(InputError):
    """A network gave NaN or infinite values."""

    def __init__(self, node: str) -> None:
        self.node = node
        super().__init__(
            "The network gives NaN or infinite values for this volume. Check the normalisation; "
            "if it is right, the checkpoint is damaged."
        )


class MemoryBudgetError(AttentionUNetError, MemoryError):
    """No way of running the volume fits the memory that may be used."""


class OutputError(AttentionUNetError, OSError):
    """A result could not be written where it was to go."""
