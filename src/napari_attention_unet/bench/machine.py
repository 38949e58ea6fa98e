"""The machine and the software that a figure comes from."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch

from napari_attention_unet.engine.device import GIB, cpu_has_bfloat16

_PACKAGES = ("napari-attention-unet", "monai", "napari", "numpy", "zarr")
#: Settings from outside that change how fast torch computes.
_ENVIRONMENT = ("ONEDNN_MAX_CPU_ISA", "OMP_NUM_THREADS", "MALLOC_CONF", "LD_PRELOAD")


def machine() -> dict[str, Any]:
    """CPU, memory, threads and versions, in plain JSON types."""
    return {
        "cpu": cpu_name(),
        "cores": psutil.cpu_count(logical=False) or psutil.cpu_count(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "bfloat16": cpu_has_bfloat16(),
        "amx": bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)()),
        "memory_gib": round(psutil.virtual_memory().total / GIB, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "versions": {name: found for name in _PACKAGES if (found := _version(name))},
        "environment": {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
    }


def cpu_name() -> str:
    """Model of the CPU, as the system names it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8").splitlines()
        fields = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
        known = {name.strip(): value.strip() for name, value in fields.items()}
        if name := known.get("model name"):
            family, model = known.get("cpu family", "?"), known.get("model", "?")
            return f"{name} (family {family}, model {model})"
    return platform.processor() or platform.machine()


def load() -> float:
    """How many processes wanted a core over the last minute; more than ours spoil a timing."""
    return round(psutil.getloadavg()[0], 2)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
