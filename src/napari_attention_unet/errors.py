"""Errors of this package, written for the person at the screen.

Every message says what was found and what would work. Anything raised on
purpose by the package derives from `AttentionUNetError`, so one ``except``
serves the widget and the command line alike.
"""

from __future__ import annotations


class AttentionUNetError(Exception):
    """Base of all errors that this package raises on purpose."""


class InputError(AttentionUNetError, ValueError):
    """A volume or an option cannot be used as it is."""


class CheckpointError(AttentionUNetError):
    """A file is not a checkpoint that can be opened, or lacks something."""


class GraphError(AttentionUNetError):
    """A network could not be turned into a graph, or an operator is unknown."""


class MemoryBudgetError(AttentionUNetError, MemoryError):
    """No way of running the volume fits the memory that may be used."""
