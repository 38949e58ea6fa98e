"""Tensors out of the storages of a checkpoint, checked against what the file holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from .machine import Named, UnsafePickleError

#: A storage that many tensors share is no reason to copy it often.
MAX_SHARED = 8
_MAX_AXES = 16

_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}
_DTYPE_NAMES = {str(dtype): dtype for dtype in _DTYPES.values()}


@dataclass(frozen=True)
class Storage:
    """The numbers behind one tensor or several.

    Attributes
    ----------
    values : Tensor, one axis
        All of them.
    """

    values: Tensor


def storage_of(kind: Any, numel: Any, read: Callable[[int], bytearray]) -> Storage:
    """A storage of a checkpoint.

    Parameters
    ----------
    kind : Named
        Its class in torch, e.g. ``torch.FloatStorage``.
    numel : int
        Number of elements that the pickle says.
    read : callable
        Gives the bytes, so many of them.

    Raises
    ------
    UnsafePickleError
        If the kind is not known, or the file does not hold as many bytes.
    """
    dtype = _DTYPES.get(kind.name) if isinstance(kind, Named) else None
    if dtype is None or kind.module not in ("torch", "torch.storage"):
        name = kind if isinstance(kind, Named) else type(kind).__name__
        raise UnsafePickleError(f"it holds numbers of an unknown kind, {name}")
    if type(numel) is not int or not 0 <= numel < 2**48:
        raise UnsafePickleError("it says an impossible size of its data")
    raw = read(numel * dtype.itemsize)
    if not numel:
        return Storage(torch.empty(0, dtype=dtype))
    return Storage(torch.frombuffer(raw, dtype=dtype, count=numel))


class TensorRebuilder:
    """Rebuilds tensors, and leaves all other calls inert.

    Parameters
    ----------
    budget : int
        Bytes of the file; tensors may hold at most `MAX_SHARED` times as many.
    nested : callable
        Reads a storage that was saved into bytes within the pickle.
    """

    def __init__(self, budget: int, nested: Callable[[bytes], Any]) -> None:
        self._left = budget * MAX_SHARED
        self._nested = nested

    def __call__(self, called: Named, arguments: tuple[Any, ...]) -> Any:
        """The tensor that a call would have made, or None for a call that stays inert."""
        match (called.module, called.name), arguments:
            case ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2"), (
                Storage() as storage,
                offset,
                size,
                stride,
                *_,
            ):
                return self._tensor(storage.values, offset, size, stride)
            case ("torch._utils", "_rebuild_tensor_v3"), (
                Storage() as storage,
                offset,
                size,
                stride,
                _,
                _,
                Named() as dtype,
                *_,
            ) if str(dtype) in _DTYPE_NAMES:
                whole = _DTYPE_NAMES[str(dtype)]
                kept = len(storage.values) // whole.itemsize * whole.itemsize
                values = storage.values[:kept].view(whole)
                return self._tensor(values, offset, size, stride)
            case (
                ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state"),
                (Tensor() as tensor, *_),
            ):
                return tensor
            case ("torch.storage", "_load_from_bytes"), (bytes() as raw,):
                return self._nested(raw)
            case ("builtins" | "__builtin__", "set" | "frozenset"), (list() as items,):
                return items  # members may be anything, and need not be hashable here
            case ("collections", "OrderedDict"), ():
                return {}
            case ("collections", "OrderedDict"), (list() as pairs,):
                # Python 2 wrote the items as a list of pairs.
                return {p[0]: p[1] for p in pairs if len(p) == 2 and isinstance(p[0], str)}
        return None

    def _tensor(self, values: Tensor, offset: Any, size: Any, stride: Any) -> Tensor:
        numbers = (offset, *size, *stride)
        fits = len(size) == len(stride) <= _MAX_AXES
        if not fits or any(type(n) is not int or not 0 <= n < 2**48 for n in numbers):
            raise UnsafePickleError("it holds a tensor of impossible shape")
        last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        count = prod(size)
        if count and (last >= values.numel() or count > values.numel()):
            raise UnsafePickleError("it holds a tensor larger than its data")
        self._left -= count * values.element_size()
        if self._left < 0:
            raise UnsafePickleError("its tensors share data more often than any checkpoint's")
        if not count:
            if prod(max(n, 1) for n in size) >= 2**48:
                raise UnsafePickleError("it holds a tensor of impossible shape")
            return values.new_empty(size)
        return values.as_strided(size, stride, offset)
