"""Read what `torch.save` or `pickle` wrote, running nothing of it.

Tensors are rebuilt; whatever else a pickle names, classes and functions alike, becomes an
`Inert` record of its name and arguments. Nothing is imported, called or looked up by name, so
a hostile file can at most be refused, and a model that was pickled whole gives its weights and
hyper-parameters without its code.
"""

from __future__ import annotations

from .archive import check_archive, read_inert
from .machine import Inert, Named, UnsafePickleError
from .modules import class_name, hyper_parameters, is_module, state_dict_of
from .tensors import MAX_SHARED

__all__ = [
    "MAX_SHARED",
    "Inert",
    "Named",
    "UnsafePickleError",
    "check_archive",
    "class_name",
    "hyper_parameters",
    "is_module",
    "read_inert",
    "state_dict_of",
]
