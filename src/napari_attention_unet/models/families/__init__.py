"""Families of checkpoints that people have, told apart by their keys."""

from __future__ import annotations

from .attention_unet_3d import ATTENTION_UNET_3D
from .attu_net import ATTU_NET
from .biapy import BIAPY
from .elektronn3 import ELEKTRONN3
from .family import AXES, Built, Family, Option
from .ivadomed import IVADOMED
from .monai import MONAI
from .oktay import OKTAY
from .squeeze_excitation import SQUEEZE_EXCITATION

__all__ = ["AXES", "FAMILIES", "Built", "Family", "Option"]

#: In the order in which they are tried: a plain network's keys are found in a gated one as well.
FAMILIES: tuple[Family, ...] = (
    ATTENTION_UNET_3D,
    *IVADOMED,
    *OKTAY,
    MONAI,
    *ATTU_NET,
    *ELEKTRONN3,
    BIAPY,
    *SQUEEZE_EXCITATION,
)
