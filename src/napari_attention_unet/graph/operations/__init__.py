"""Operations of a lowered network: each makes any range of its output's planes.

An operation says which planes of its inputs a range of output planes needs (`Operation.reads`), and
makes that range from just those planes (`Operation.run`). Executors build on these two alone: the
whole volume is one range, a slab is another. Planes count along z; `reads` answers for y and x
alike. Values are tensors (1, channel, z, y, x).
"""

from .base import Operation, Pointwise, Range, Whole, Window
from .convolution import Convolution, Pooling, TransposedConvolution
from .gating import Gating
from .kernels import Activation, Geometry, Kernel, choose
from .normalization import ScaleShift
from .resize import Resize
from .statistics import GlobalPooling, GroupNormalization, Moments, SpatialSoftmax, Statistical

__all__ = [
    "Activation",
    "Convolution",
    "Gating",
    "Geometry",
    "GlobalPooling",
    "GroupNormalization",
    "Kernel",
    "Moments",
    "Operation",
    "Pointwise",
    "Pooling",
    "Range",
    "Resize",
    "ScaleShift",
    "SpatialSoftmax",
    "Statistical",
    "TransposedConvolution",
    "Whole",
    "Window",
    "choose",
]
