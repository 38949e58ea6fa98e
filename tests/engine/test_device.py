from __future__ import annotations

import re
from contextlib import suppress

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from napari_attention_unet.engine import device as module
from napari_attention_unet.engine.device import (
    computing,
    cpu_has_bfloat16,
    devices,
    free_memory,
    is_out_of_memory,
    remarks,
    resolve_device,
    resolve_precision,
)
from napari_attention_unet.errors import InputError

CPU, A_GPU = torch.device("cpu"), torch.device("cuda", 0)
HALF = torch.bfloat16


def two_gpus(monkeypatch, capability=(9, 0)):
    cuda = torch.cuda
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "device_count", lambda: 2)
    monkeypatch.setattr(cuda, "mem_get_info", lambda device: (3 << 30, 4 << 30))
    monkeypatch.setattr(cuda, "memory_reserved", lambda device: 500)
    monkeypatch.setattr(cuda, "memory_allocated", lambda device: 100)
    monkeypatch.setattr(cuda, "get_device_name", lambda index: f"Card {index}")
    monkeypatch.setattr(cuda, "get_device_capability", lambda device: capability)


def test_this_machine():
    found = devices()
    assert found[-1].name == "cpu"
    assert all(0 < d.free <= d.total for d in found)
    assert resolve_device("cpu") == CPU
    assert str(resolve_device("auto")) == found[0].name
    assert 0 < free_memory(CPU) <= found[-1].total


def test_gpus_come_first(monkeypatch):
    two_gpus(monkeypatch)
    assert [d.name for d in devices()][:2] == ["cuda:0", "cuda:1"]
    assert devices()[1].label == "Card 1"
    for name, expected in {"auto": 0, "cuda": 0, "gpu": 0, "cuda:1": 1}.items():
        assert resolve_device(name) == torch.device("cuda", expected)
    assert free_memory(torch.device("cuda", 0)) == (3 << 30) + 400


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuda:7", r"no device 'cuda:7' here; use 'auto' or one of: .*'cpu' \(CPU, \d+ threads\)"),
        ("tpu", r"no device 'tpu' here"),
    ],
)
def test_devices_that_are_not_there(name, message):
    with pytest.raises(InputError, match=message):
        resolve_device(name)


@pytest.mark.skipif(torch.version.cuda is not None, reason="this torch knows CUDA")
def test_a_cpu_build_is_named():
    with pytest.raises(InputError, match="install a CUDA build"):
        resolve_device("cuda")


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [((9, 0), torch.bfloat16), ((7, 5), torch.float16), ((6, 1), torch.float32)],
)
def test_precision_of_gpus(monkeypatch, capability, dtype):
    two_gpus(monkeypatch, capability)
    assert resolve_precision("auto", torch.device("cuda", 0)) == dtype


@pytest.mark.parametrize("native", [True, False])
def test_precision_of_the_cpu(monkeypatch, native):
    monkeypatch.setattr(module, "cpu_has_bfloat16", lambda: native)
    expected = torch.bfloat16 if native else torch.float32
    assert resolve_precision("auto", CPU) == expected
    assert resolve_precision("bfloat16", CPU) == torch.bfloat16
    assert resolve_precision("float32", CPU) == torch.float32


def test_bfloat16_is_claimed_only_where_the_cpu_says_so(monkeypatch):
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, probe, lambda: False, raising=False)
    assert not cpu_has_bfloat16()
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")  # another version of torch
    assert not cpu_has_bfloat16()
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert cpu_has_bfloat16()


def test_precisions_that_do_not_work():
    with pytest.raises(InputError, match="float16 is not computed on the CPU"):
        resolve_precision("float16", CPU)
    with pytest.raises(InputError, match="use 'auto', 'float32', 'bfloat16', 'float16'"):
        resolve_precision("double", CPU)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to"), True),
        (RuntimeError("size mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_out_of_memory_is_recognised(error, expected):
    assert is_out_of_memory(error) is expected


def test_a_real_allocation_that_fails_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.fixture
def cuda_settings():
    """Global settings of torch as a person may have left them, put back after the test."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.benchmark, cudnn.conv.fp32_precision, matmul.fp32_precision

    def found():
        return cudnn.benchmark, cudnn.conv.fp32_precision, matmul.fp32_precision

    yield found
    cudnn.benchmark, cudnn.conv.fp32_precision, matmul.fp32_precision = before
    assert found() == before


@pytest.mark.parametrize("precision", ["tf32", "ieee", "none"])
@pytest.mark.parametrize("benchmark", [True, False])
def test_settings_last_for_one_piece_of_work(cuda_settings, benchmark, precision):
    """Float32 is float32 whatever was set, the old way or the new; that comes back."""
    torch.backends.cudnn.benchmark = benchmark
    torch.backends.cudnn.conv.fp32_precision = precision
    torch.backends.cuda.matmul.fp32_precision = precision
    with suppress(KeyError), computing(A_GPU):  # an error on the way too
        assert torch.is_inference_mode_enabled()
        assert cuda_settings() == (True, "ieee", "ieee")
        raise KeyError
    assert not torch.is_inference_mode_enabled()
    assert cuda_settings() == (benchmark, precision, precision)


def test_settings_of_cuda_are_not_touched_elsewhere(cuda_settings):
    before = cuda_settings()
    with computing(CPU):
        assert torch.is_inference_mode_enabled()
        assert cuda_settings() == before


def test_bfloat16_is_refused_where_a_gpu_has_none(monkeypatch):
    two_gpus(monkeypatch, (7, 5))
    assert resolve_precision("float16", A_GPU) == torch.float16
    with pytest.raises(InputError, match="'cuda:0' does not compute bfloat16; use 'float16'"):
        resolve_precision("bfloat16", A_GPU)


def apple_gpu(monkeypatch, most, driver, allocated):
    for name, value in {
        "recommended_max_memory": most,
        "driver_allocated_memory": driver,
        "current_allocated_memory": allocated,
    }.items():
        monkeypatch.setattr(torch.mps, name, lambda value=value: value)


@pytest.mark.parametrize(
    ("available", "free"),
    [(100, 60), (30, 40)],  # the GPU's limit counts, or what the host has left
)
def test_memory_of_an_apple_gpu_is_part_of_the_host_s(monkeypatch, available, free):
    apple_gpu(monkeypatch, most=80, driver=30, allocated=20)
    monkeypatch.setattr(
        module.psutil, "virtual_memory", lambda: type("", (), {"available": available})
    )
    assert free_memory(torch.device("mps")) == free


def test_precision_of_an_apple_gpu():
    mps = torch.device("mps")
    assert resolve_precision("auto", mps) == torch.float32
    assert resolve_precision("float16", mps) == torch.float16


@pytest.mark.parametrize(
    ("version", "backend", "remark"),
    [
        (None, "Slow3d", "no cuDNN: convolutions in bfloat16 are slow"),
        (91002, "Slow3d", r"does not use cuDNN 9\.10 for 3D convolutions in bfloat16"),
        (91400, None, r"does not use cuDNN 9\.14 "),  # torch does not tell: by its version
        (91002, "Cudnn", None),  # torch takes it for this layout after all
        (90701, "Slow3d", None),
        (91500, "Slow3d", None),
    ],
)
def test_cudnn_that_torch_goes_without_is_said(monkeypatch, version, backend, remark):
    asked = []

    def select(x, weight, *_):
        asked.append((x.dtype, x.is_contiguous(memory_format=torch.channels_last_3d)))
        return f"_ConvBackend.{backend}"

    if backend is None:
        monkeypatch.delattr(torch._C, "_select_conv_backend")
    else:
        monkeypatch.setattr(torch._C, "_select_conv_backend", select)
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: version)
    with FakeTensorMode():
        found = remarks(A_GPU, HALF)
    assert len(found) == (remark is not None)
    if remark is not None:
        assert re.search(remark, found[0])
    assert all(dtype == HALF and channels_last for dtype, channels_last in asked)


@pytest.mark.parametrize(
    ("device", "dtype"),
    [(CPU, HALF), (torch.device("mps"), torch.float16), (A_GPU, torch.float32)],
)
def test_nothing_is_remarked_where_nothing_is_slow(monkeypatch, device, dtype):
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    assert remarks(device, dtype) == []
