"""Names and colours of classes, brought to the results that are in the viewer already."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from napari_attention_unet.io.layers import RESULT_KEY, class_looks
from napari_attention_unet.models import ClassInfo


def show_classes(layers: Iterable[Any], sha256: str, classes: Sequence[ClassInfo]) -> None:
    """Name and colour the masks among these layers that a checkpoint made.

    Parameters
    ----------
    layers : iterable of napari layers
    sha256 : str
        Of the checkpoint.
    classes : sequence of ClassInfo
        The background first.
    """
    looks = class_looks(classes)
    for layer in layers:
        about = layer.metadata.get(RESULT_KEY, {})
        if about.get("role") == "mask" and about.get("sha256") == sha256:
            layer.colormap = looks["colormap"]
            layer.features = looks["features"]
