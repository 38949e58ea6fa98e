"""Checkpoints dropped on napari's canvas, or opened from its menu, are chosen in the panel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from napari_attention_unet.errors import InputError

from .checkpoint_files import is_checkpoint

_PLUGIN, _PANEL = "napari-attention-unet", "Attention U-Net"


def get_reader(path: str | list[str]) -> Callable[[str], list[tuple[Any]]] | None:
    """npe2's reader contribution: what chooses a checkpoint; None for anything else."""
    return choose if isinstance(path, str) and is_checkpoint(path) else None


def choose(path: str) -> list[tuple[Any]]:
    """Choose a checkpoint in the panel, which is docked if it is not yet.

    Returns
    -------
    list of (None,)
        What napari takes as a file that was read and holds no layer.

    Raises
    ------
    InputError
        If there is no viewer with a window.
    """
    import napari

    viewer = napari.current_viewer()
    if viewer is None:
        raise InputError(
            f"'{path}' is a checkpoint, which is opened in the panel of a viewer. Without one, "
            "load_model opens it."
        )
    _dock, panel = viewer.window.add_plugin_dock_widget(_PLUGIN, _PANEL)
    panel.model.open(path)
    return [(None,)]
