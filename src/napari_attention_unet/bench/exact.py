"""How far a run is from the float32 forward of the whole volume."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from napari_attention_unet.io.sample import sample
from napari_attention_unet.model import load_model
from napari_attention_unet.models.families import FAMILIES
from napari_attention_unet.predict import predict
from napari_attention_unet.prediction import Step
from napari_attention_unet.volume import Shape3

from .compare import truth
from .how import How
from .networks import network, noise, randomised
from .results import Row

BLOG, FAMILIES_CASE = "exact-blog", "exact-families"
MASK, GATES = "bundled-mask", "bundled-gates"
BLOG_AIMS, FAMILY_AIMS = {BLOG: "≤ 1e-05"}, {FAMILIES_CASE: "≤ 0.0001"}
BUNDLED_AIMS = {MASK: "≥ 99.5 %", GATES: "≤ 0.01"}
_SIZE: Shape3 = (160, 64, 64)
_WIDTHS = (4, 8, 16, 32, 64)
_OKTAY = {"gating": 64, "inner": (8, 16, 32)}


def _made(family: str, **arguments: Any) -> nn.Module:
    make = next(f.make for f in FAMILIES if f.name == family)
    return randomised(make(in_channels=1, out_channels=2, **arguments))


#: A small network of every family whose sizes are a few numbers.
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "AttentionUNet3D, grid gates": partial(
        _made, "AttentionUNet3D", widths=(8, 16, 32), gate="grid"
    ),
    "unet_CT_single_att_dsv_3D": partial(
        _made, "unet_CT_single_att_dsv_3D", widths=_WIDTHS, gates=1, **_OKTAY
    ),
    "unet_CT_multi_att_dsv_3D": partial(
        _made, "unet_CT_multi_att_dsv_3D", widths=_WIDTHS, gates=2, **_OKTAY
    ),
    "unet_grid_attention_3D": partial(
        _made,
        "unet_grid_attention_3D",
        widths=_WIDTHS,
        kernel=(1, 3, 3),
        gates=1,
        gate_stride=(1, 2, 2),
        shared=True,
        supervised=False,
        **_OKTAY,
    ),
    "MONAI AttentionUnet": partial(network, "monai"),
    "ivadomed": partial(_made, "ivadomed Modified3DUNet with attention", width=4),
    "AttU_Net": partial(_made, "AttU_Net", widths=_WIDTHS, inner=(2, 4, 8, 16)),
    "elektronn3": partial(
        _made,
        "elektronn3 UNet with attention",
        widths=(4, 8, 16, 32),
        inner=(4, 8, 16),
        kernels=((3, 3, 3),) * 4,
    ),
    "ResidualUNetSE3D": partial(
        _made,
        "ResidualUNetSE3D",
        widths=(4, 8, 16),
        excitation="scse",
        reduction=2,
        norm="batch",
        order="cbr",
    ),
}


def blog_steps(how: How) -> Generator[Step, None, list[Row]]:
    """The largest relative error of the blog's network, streamed in float32."""
    yield Step(0, 1, "blog16, streamed against the whole")
    found = deviation(network("blog16"), how.size or _SIZE)
    return [_row(BLOG, "blog16", BLOG_AIMS[BLOG], {"blog16": found}, how)]


def families_steps(how: How) -> Generator[Step, None, list[Row]]:
    """The same of other families' networks."""
    found = {}
    for index, (name, make) in enumerate(NETWORKS.items()):
        yield Step(index, len(NETWORKS), f"{name}, streamed against the whole")
        found[name] = deviation(make(), how.size or _SIZE)
    return [
        _row(FAMILIES_CASE, "networks of other families", FAMILY_AIMS[FAMILIES_CASE], found, how)
    ]


def _row(case: str, who: str, aim: str, found: dict[str, dict[str, Any]], how: How) -> Row:
    reached = max(max(d["logits"], *d["gates"].values()) for d in found.values())
    size = "×".join(map(str, how.size or _SIZE))
    title = f"{who}, {size}: float32 stream to the whole forward, logits and every gate, relative"
    otherwise = [name for name, d in found.items() if d["plan"] != "stream"]
    text = f"{reached:.1e}" + (f"; not streamed: {', '.join(otherwise)}" if otherwise else "")
    return Row(case, title, aim, reached, text, found)


def deviation(module: nn.Module, size: Shape3, plan: str = "stream") -> dict[str, Any]:
    """Largest differences to the float32 forward of the whole, over its largest magnitude.

    Parameters
    ----------
    module : nn.Module
    size : tuple of int
        Of a volume of noise, voxels (z, y, x).
    plan : str
        See `Settings.plan`.

    Returns
    -------
    dict
        ``"logits"``, ``"gates"`` by name, and the ``"plan"`` that was run.
    """
    voxels = noise(size)
    true = truth(module, voxels)
    model = load_model(module)
    made = predict(
        model,
        voxels,
        device="cpu",
        precision="float32",
        plan=plan,
        normalize="none",
        outputs=("logits",),
    )
    assert made.logits is not None
    gates = {}
    for gate in made.gates:
        z, y, x = gate.coefficients.shape
        expected = true.gates[gate.name][:z, :y, :x]  # those beyond the volume are dropped
        gates[gate.name] = float(np.abs(gate.coefficients - expected).max() / expected.max())
    return {
        "logits": true.error(made.logits),
        "gates": gates,
        "plan": made.provenance["plan"],
        "reason": made.provenance["plan_reason"],
    }


def bundled_steps(_how: How) -> Generator[Step, None, list[Row]]:
    """The bundled model on the sample in auto precision, against float32."""
    model, volume = load_model("brain-t1"), sample()
    yield Step(0, 2, "the bundled model on the sample, float32")
    exact = predict(model, volume, device="cpu", precision="float32")
    yield Step(1, 2, "the bundled model on the sample, auto precision")
    fast = predict(model, volume, device="cpu")
    agreement = float((fast.mask == exact.mask).mean())
    differences = {
        a.name: float(np.abs(a.coefficients.astype(np.float32) - b.coefficients).max())
        for a, b in zip(fast.gates, exact.gates, strict=True)
    }
    title = f"bundled model on the sample, {fast.provenance['precision']} to float32"
    worst = max(differences.values())
    row = Row(
        MASK, f"{title}: mask", BUNDLED_AIMS[MASK], 100 * agreement, f"{100 * agreement:.3f} %"
    )
    return [
        row,
        replace(
            row,
            case=GATES,
            title=f"{title}: largest difference of a gate",
            aim=BUNDLED_AIMS[GATES],
            reached=worst,
            text=f"{worst:.4f}",
            details=differences,
        ),
    ]
