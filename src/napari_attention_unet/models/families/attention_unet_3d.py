"""The bundled `AttentionUNet3D`, and the widely copied network of that name."""

from __future__ import annotations

from typing import Any

from napari_attention_unet.models.attention_unet_3d import AttentionUNet3D

from .family import Family, Option, State, count, shape


def _read(state: State) -> dict[str, Any]:
    depth = count(state, r"encoder(\d+)\.encoder_block\.0\.weight")
    convs = [shape(state, f"encoder{n}.encoder_block.0.weight") for n in range(1, depth + 1)]
    return {
        "in_channels": convs[0][1],
        "out_channels": shape(state, "final.final_block.6.weight")[0],
        "widths": [conv[0] for conv in convs],
        "center": shape(state, "center.center_block.0.weight")[0],
        "gate": "grid" if any(".theta." in key for key in state) else "skip",
    }


ATTENTION_UNET_3D = Family(
    name="AttentionUNet3D",
    source="napari_attention_unet.models.attention_unet_3d.AttentionUNet3D",
    signature=(
        r"encoder1\.encoder_block\.0\.weight",
        r"center\.center_block\.0\.weight",
        r"final\.final_block\.6\.weight",
    ),
    read=_read,
    make=AttentionUNet3D,
    options=(
        Option(
            "align_corners",
            False,
            (False, True),
            "Gates interpolate with align_corners=False; the file does not say.",
            lambda arguments: arguments["gate"] == "grid",
        ),
    ),
)
