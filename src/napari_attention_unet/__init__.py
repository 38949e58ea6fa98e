"""See where a 3D Attention U-Net looks: its mask and every gate's attention coefficients.

The public names are loaded when they are first used, so that importing the package imports
neither torch nor Qt.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import (
        AttentionUNetError,
        CheckpointError,
        GraphError,
        InputError,
        MemoryBudgetError,
    )
    from .model import Model, load_model
    from .models.card import ModelCard
    from .predict import predict, predict_steps
    from .prediction import GateMap, Prediction, Step
    from .settings import Settings
    from .volume import Volume

__version__ = version("napari-attention-unet")

__all__ = [
    "AttentionUNetError",
    "CheckpointError",
    "GateMap",
    "GraphError",
    "InputError",
    "MemoryBudgetError",
    "Model",
    "ModelCard",
    "Prediction",
    "Settings",
    "Step",
    "Volume",
    "load_model",
    "predict",
    "predict_steps",
]

_HOME = {
    "errors": (
        "AttentionUNetError",
        "CheckpointError",
        "GraphError",
        "InputError",
        "MemoryBudgetError",
    ),
    "model": ("Model", "load_model"),
    "models.card": ("ModelCard",),
    "predict": ("predict", "predict_steps"),
    "prediction": ("GateMap", "Prediction", "Step"),
    "settings": ("Settings",),
    "volume": ("Volume",),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps `predict` the function: importing the submodule of that name would replace it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "predict" and isinstance(value, ModuleType):
            value = value.predict
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
