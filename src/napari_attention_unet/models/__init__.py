"""Networks, their checkpoints and their cards.

Importing this imports no torch; opening a checkpoint does.
"""

from .bundled import bundled_models
from .card import ClassInfo, ModelCard, Normalization, default_classes
from .checkpoint import open_checkpoint, read_card, save_checkpoint

__all__ = [
    "ClassInfo",
    "ModelCard",
    "Normalization",
    "bundled_models",
    "default_classes",
    "open_checkpoint",
    "read_card",
    "save_checkpoint",
]
