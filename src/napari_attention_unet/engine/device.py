"""Devices, precisions and memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from napari_attention_unet.errors import InputError

PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
GIB = 1 << 30
#: Versions of cuDNN, from and below, that torch does not trust with 3D convolutions in 16 bits.
_BROKEN_CUDNN = (90800, 91500)


@dataclass(frozen=True)
class Device:
    """A device on which a network can run.

    Attributes
    ----------
    name : str
        As torch and `resolve_device` know it: ``"cpu"``, ``"cuda:0"``, ``"mps"``.
    label : str
        For people, e.g. ``"NVIDIA H100 80GB HBM3"``.
    total, free : int
        Bytes of memory it has, and bytes that can be taken now.
    """

    name: str
    label: str
    total: int
    free: int


def devices() -> tuple[Device, ...]:
    """All devices of this machine, the fastest kind first, the CPU last."""
    found = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            label = torch.cuda.get_device_name(index)
            found.append(Device(f"cuda:{index}", label, total, free))
    memory = psutil.virtual_memory()
    if torch.backends.mps.is_available():  # shares the memory of the host
        found.append(Device("mps", "Apple GPU", memory.total, memory.available))
    label = f"CPU, {torch.get_num_threads()} threads"
    found.append(Device("cpu", label, memory.total, memory.available))
    return tuple(found)


def resolve_device(name: str) -> torch.device:
    """The device that a person asked for.

    Parameters
    ----------
    name : str
        ``"auto"`` (the first of `devices`), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.

    Raises
    ------
    InputError
        If this machine has no such device.
    """
    known = devices()
    wanted = {"auto": known[0].name, "cuda": "cuda:0", "gpu": known[0].name}.get(name, name)
    if wanted not in [device.name for device in known]:
        listed = ", ".join(f"'{device.name}' ({device.label})" for device in known)
        raise InputError(
            f"There is no device '{name}' here; use 'auto' or one of: {listed}."
            + _why_no_gpu(str(name))
        )
    return torch.device(wanted)


def _why_no_gpu(name: str) -> str:
    if name.startswith("cuda") and torch.version.cuda is None:
        return " This installation of PyTorch has no CUDA: install a CUDA build to use a GPU."
    if name.startswith("cuda") and not torch.cuda.is_available():
        return " PyTorch finds no working NVIDIA driver."
    return ""


def resolve_precision(name: str, device: torch.device) -> torch.dtype:
    """The type in which a network computes.

    Parameters
    ----------
    name : str
        ``"auto"``, ``"float32"``, ``"bfloat16"`` or ``"float16"``. ``"auto"`` is bfloat16 where
        the device computes it natively, float16 on older CUDA devices, otherwise float32.
    device : torch.device
        Where it will run.

    Raises
    ------
    InputError
        If the name is not one of these, or the device cannot compute it.
    """
    if name == "auto":
        return _fast_type(device)
    if name not in PRECISIONS:
        raise InputError(
            f"precision='{name}' is not known; use 'auto', {', '.join(map(repr, PRECISIONS))}."
        )
    dtype = PRECISIONS[name]
    if dtype == torch.float16 and device.type == "cpu":
        raise InputError(
            "float16 is not computed on the CPU; use 'float32', 'bfloat16' or 'auto' there."
        )
    if dtype == torch.bfloat16 and device.type == "cuda" and _capability(device) < (8, 0):
        raise InputError(
            f"'{device}' does not compute bfloat16; use 'float16', 'float32' or 'auto' there."
        )
    return dtype


def _fast_type(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        if _capability(device) >= (8, 0):
            return torch.bfloat16
        return torch.float16 if _capability(device) >= (7, 0) else torch.float32
    if device.type == "cpu" and cpu_has_bfloat16():
        return torch.bfloat16
    # MPS has no transposed 3D convolution in 16 bits: mixed, there would be no gain
    return torch.float32


def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def remarks(device: torch.device, dtype: torch.dtype) -> list[str]:
    """What keeps a device from its speed, a sentence each, for the notes of a run.

    Parameters
    ----------
    device : torch.device
        Where it runs.
    dtype : torch.dtype
        In which it computes.
    """
    if device.type != "cuda" or dtype == torch.float32 or torch.version.hip is not None:
        return []
    name = str(dtype).removeprefix("torch.")
    version: int | None = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    if version is None:
        return [f"This PyTorch has no cuDNN: convolutions in {name} are slow."]
    if _BROKEN_CUDNN[0] <= version < _BROKEN_CUDNN[1] and not _uses_cudnn(device, dtype):
        major, minor = version // 10000, version // 100 % 100
        return [
            f"PyTorch does not use cuDNN {major}.{minor} for 3D convolutions in {name}, which are "
            "about four times slower for it. cuDNN 9.15 or later mends it "
            "(pip install -U nvidia-cudnn-cu12, or -cu13)."
        ]
    return []


def _uses_cudnn(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether torch sends a 3D convolution in our layout to cuDNN.

    From 9.8 to 9.14 cuDNN is wrong for some of them in 16 bits, and torch (2.9 and later, see
    ``use_cudnn`` in its Convolution.cpp, pytorch#166122) goes without; which ones changed from
    version to version, so torch itself is asked.
    """
    ask = getattr(torch._C, "_select_conv_backend", None)
    if ask is None:
        return False
    shape = (16, 16, 3, 3, 3)
    weight = torch.empty(shape, dtype=dtype, device=device, memory_format=torch.channels_last_3d)
    one, none = [1, 1, 1], [0, 0, 0]
    backend = ask(weight, weight, None, one, none, one, False, none, 1, None)
    return "cudnn" in str(backend).lower()


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; elsewhere it is slower than float32."""
    cpu: Any = torch.cpu  # the probes are private
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        function = getattr(cpu, probe, None)
        if function is not None and function():
            return True
    return False


def free_memory(device: torch.device) -> int:
    """Bytes that a run may take on a device now."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # what the allocator holds without using it is as good as free
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + idle
    available = int(psutil.virtual_memory().available)
    if device.type == "mps":  # the GPU may not take all of the memory that it shares
        most = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        idle = torch.mps.driver_allocated_memory() - torch.mps.current_allocated_memory()
        return max(0, min(available, most) + idle)
    return available


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory has run out, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        words in text for words in ("out of memory", "can't allocate memory", "not enough memory")
    )


@contextmanager
def computing(device: torch.device) -> Iterator[None]:
    """Settings for one piece of work; never to be held over a yield.

    On CUDA, float32 means float32, not TF32, in convolutions as in matrix products, and cuDNN
    tries its algorithms once for each shape. Whatever was set before is set again.
    """
    with torch.inference_mode():
        if device.type != "cuda":
            yield
            return
        cudnn: Any = torch.backends.cudnn
        matmul = torch.backends.cuda.matmul
        # not `cudnn.flags`: it fails where somebody has set a precision the new way
        convolution: Any = cudnn.conv
        before = cudnn.benchmark, convolution.fp32_precision, matmul.fp32_precision
        try:
            cudnn.benchmark = True
            convolution.fp32_precision = matmul.fp32_precision = "ieee"
            yield
        finally:
            cudnn.benchmark, convolution.fp32_precision, matmul.fp32_precision = before


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def release(device: torch.device) -> None:
    """Give memory that the allocator holds without need back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
