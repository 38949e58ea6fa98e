"""Runs on a GPU: placement, dtypes and transfers on tensors without data, everything on a real one.

Each test runs for CUDA and for MPS on tensors without data, which needs no hardware; where there is
such a device, it runs on that as well, and its numbers are compared with the CPU's
(``pytest -m gpu`` runs these alone).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from engine_networks import finished
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from napari_attention_unet.engine import stream, whole
from napari_attention_unet.engine.stream import TensorPlanes, plan_stream, run_stream, stream_bytes
from napari_attention_unet.engine.tiles import run_tiles
from napari_attention_unet.engine.tiling import Tiling, blended_cuts
from napari_attention_unet.engine.whole import run_whole
from napari_attention_unet.graph.lower import Program, lower

CPU = torch.device("cpu")
REAL = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}


class WithoutHardware(TorchFunctionMode):
    """Let tensors without data do what asks the build of torch for the real device.

    Moves go to the operator behind them; copies have no data to copy; numbers are read of tensors
    that have some.
    """

    def __init__(self, log: Log) -> None:
        super().__init__()
        self.log = log

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is Tensor.cpu:
            return torch.ops.aten._to_copy(args[0], device=CPU)
        if function is Tensor.to:
            given = (*args[1:], *kwargs.values())
            device = next((a for a in given if isinstance(a, torch.device)), None)
            dtype = next((a for a in given if isinstance(a, torch.dtype)), None)
            return torch.ops.aten._to_copy(args[0], device=device, dtype=dtype)
        if function is Tensor.contiguous:
            return torch.ops.aten.clone(args[0], **kwargs)
        if function is Tensor.copy_:
            target, source = args
            assert torch.broadcast_shapes(target.shape, source.shape) == target.shape
            self.log.copied(source, target)
            return target
        if function is Tensor.__float__ and not isinstance(args[0], FakeTensor):
            with _disable_current_modes():
                return function(*args)
        return function(*args, **kwargs)


class Log(TorchDispatchMode):
    """What a run asks of a device."""

    def __init__(self, device: torch.device, fake: bool) -> None:
        super().__init__()
        self.device, self.fake = device, fake
        self.dtypes: set[torch.dtype] = set()
        self.convolutions: list[dict[str, Any]] = []
        self.sent: list[int] = []  # elements of each tensor that went to the device

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = function.overloadpacket.__name__
        if self.fake and name.startswith("upsample"):
            result = _shaped(function, args, kwargs)
        else:
            result = function(*args, **kwargs)
        if isinstance(result, Tensor) and result.device.type == self.device.type:
            self.dtypes.add(result.dtype)
            if name in ("_to_copy", "copy_"):
                self.copied(args[name == "copy_"], result)
        if name in ("convolution", "conv3d", "conv_transpose3d", "_convolution"):
            self.convolutions.append(_convolution(name, args, kwargs))
        return result

    def copied(self, source: Tensor, target: Tensor) -> None:
        if source.device.type == "cpu" and target.device.type == self.device.type:
            self.sent.append(source.numel())


def _shaped(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """What an operator gives whose decomposition asks for the real device."""
    inputs = [a for a in args if isinstance(a, Tensor)]
    (device,) = {a.device for a in inputs}
    bare = [torch.empty_like(a, device="meta") if isinstance(a, Tensor) else a for a in args]
    result = function(*bare, **kwargs)
    return torch.empty(result.shape, dtype=result.dtype, device=device)


def _convolution(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    x, weight, *rest = args
    transposed = args[6] if name in ("convolution", "_convolution") else "transpose" in name
    return {
        "device": x.device.type,
        "dtype": x.dtype,
        "transposed": transposed,
        "bias": (rest[0] if rest else kwargs.get("bias")) is not None,
        "channels last": weight.is_contiguous(memory_format=torch.channels_last_3d),
    }


@dataclass
class Place:
    """A device, with or without hardware."""

    device: torch.device
    fake: bool
    monkeypatch: pytest.MonkeyPatch
    log: Log = field(init=False)

    @contextmanager
    def watched(self) -> Iterator[None]:
        self.log = Log(self.device, self.fake)
        with ExitStack() as stack:
            if self.fake:
                for module in (whole, stream):
                    self.monkeypatch.setattr(module, "synchronise", lambda device: None)
                stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
                stack.enter_context(WithoutHardware(self.log))
            stack.enter_context(self.log)
            yield


def _places() -> Iterator[Any]:
    for kind, there in REAL.items():
        yield pytest.param((kind, True), id=f"{kind}-without-data")
        marks = [pytest.mark.gpu, pytest.mark.skipif(not there, reason=f"no {kind} device")]
        yield pytest.param((kind, False), id=kind, marks=marks)


@pytest.fixture(params=_places())
def place(request, monkeypatch) -> Place:
    kind, fake = request.param
    return Place(torch.device(kind, 0), fake, monkeypatch)


def by_whole(program: Program, x: Tensor) -> dict[str, Tensor]:
    results, _ = finished(run_whole(program, x))
    return results


def by_tiles(program: Program, x: Tensor) -> dict[str, Tensor]:
    stride = program.graph.stride
    cuts = [blended_cuts(n, 2 * s, s) for n, s in zip(x.shape[2:], stride, strict=True)]
    return collected(program, x, lambda *a: run_tiles(*a[:2], Tiling(tuple(cuts), False), a[2]))


def by_stream(program: Program, x: Tensor) -> dict[str, Tensor]:
    extent = tuple(x.shape[2:])
    plan = plan_stream(program, extent, 1 << 40)
    assert stream_bytes(program, extent, plan) > 0
    return collected(program, x, lambda *a: run_stream(*a, plan))


def collected(program: Program, x: Tensor, run: Callable[..., Any]) -> dict[str, Tensor]:
    """Results of an executor that hands them over in parts, all of which have to be on the CPU."""
    parts: dict[str, list[Tensor]] = {}

    def sink(name: str, begin: tuple[int, int, int], values: Tensor) -> None:
        assert begin[0] == sum(part.shape[2] for part in parts.get(name, ()))
        assert begin[1:] == (0, 0)
        parts.setdefault(name, []).append(values.clone())

    finished(run(program, TensorPlanes(x), sink))
    return {name: torch.cat(values, 2) for name, values in parts.items()}


EXECUTORS = {"whole": by_whole, "tiles": by_tiles, "stream": by_stream}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["blog_net", "statistics_net", "corners_net"])
@pytest.mark.parametrize("way", EXECUTORS)
def test_all_is_computed_on_the_device(way, name, dtype, place, request):
    """A mix of devices raises; what decides is in float32; results come to the CPU."""
    network = request.getfixturevalue(name)
    graph = network.graph
    x = network.input((4, 2, 2))
    with place.watched():
        program = lower(graph, place.device, dtype)
        results = EXECUTORS[way](program, x)
        assert {value.device.type for value in results.values()} == {"cpu"}
        assert {value.dtype for value in results.values()} == {torch.float32}
        assert {n: v.shape for n, v in results.items()} == {
            n: program.shape_at(n, tuple(x.shape[2:])) for n in results
        }
    deciding = {graph.output, *(gate.node for gate in graph.gates)}
    assert set(results) == deciding
    assert all(op.dtype == torch.float32 for op in program.operations if op.name in deciding)
    assert {c["device"] for c in place.log.convolutions} == {place.device.type}
    assert dtype in {op.result for op in program.operations}
    if name != "statistics_net":  # its only convolution but the deciding ones reads the input
        assert dtype in {c["dtype"] for c in place.log.convolutions}
    if not place.fake:
        expected = EXECUTORS[way](network.program, x)
        limit = 1e-4 if dtype == torch.float32 else 5e-2
        for node, value in results.items():
            assert (value - expected[node]).abs().max() <= limit * expected[node].abs().max()


@pytest.mark.parametrize("way", EXECUTORS)
def test_convolutions_are_given_what_is_fast(way, place, mixed_net):
    """Channels last on CUDA; on MPS a bias, and no 16 bits where it has none."""
    with place.watched():
        program = lower(mixed_net.graph, place.device, torch.float16)
        EXECUTORS[way](program, mixed_net.input((4, 2, 2)))
    found = place.log.convolutions
    assert {c["transposed"] for c in found} == {True, False}
    if place.device.type == "cuda":
        assert all(c["channels last"] for c in found)
        assert any(c["dtype"] == torch.float16 for c in found if c["transposed"])
    else:
        assert all(c["bias"] for c in found)
        assert {c["dtype"] for c in found if c["transposed"]} == {torch.float32}
        assert any(c["dtype"] == torch.float16 for c in found if not c["transposed"])


@pytest.mark.parametrize("name", ["blog_net", "mixed_net", "statistics_net", "corners_net"])
@pytest.mark.parametrize("way", EXECUTORS)
def test_mps_is_never_asked_for_float64(way, name, place, request):
    network = request.getfixturevalue(name)
    if place.device.type != "mps":
        pytest.skip("CUDA has it")
    with place.watched():
        EXECUTORS[way](lower(network.graph, place.device, torch.float32), network.input((4, 2, 2)))
    assert torch.float32 in place.log.dtypes
    assert torch.float64 not in place.log.dtypes


@pytest.mark.parametrize("way", ["tiles", "stream"])
def test_the_volume_is_sent_piece_by_piece(way, place, blog_net):
    x = blog_net.input((48, 2, 2))
    with place.watched():
        program = lower(blog_net.graph, place.device, torch.float32)
        place.log.sent.clear()  # the weights
        EXECUTORS[way](program, x)
    assert max(place.log.sent) <= x.numel() / 2
    assert sum(place.log.sent) >= x.numel()
