"""Each operation, cut into ranges of planes in any way, equals torch's operator on the whole."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from napari_attention_unet.graph.graph import Ref
from napari_attention_unet.graph.operations import (
    Activation,
    Convolution,
    Geometry,
    GroupNormalization,
    Operation,
    Pointwise,
    Pooling,
    Resize,
    TransposedConvolution,
    Window,
    kernels,
)

few = settings(max_examples=60, deadline=None)
line = st.tuples(*[st.integers(1, 3)] * 3)
axis_sizes = st.tuples(*[st.integers(4, 11)] * 3)
cuts = st.lists(st.integers(1, 10), max_size=4)


def values(*shape: int, seed: int = 0) -> Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return made.contiguous(memory_format=torch.channels_last_3d)


def assembled(op: Operation, inputs: list[Tensor], depth: int, marks: list[int]) -> Tensor:
    """Run an operation in ranges that end at `marks`, each on nothing but what it asks for."""
    ends = sorted({min(m, depth) for m in marks} | {depth})
    pieces = []
    for start, stop in itertools.pairwise([0, *ends]):
        if start == stop:
            continue
        depths = tuple(i.shape[2] for i in inputs)
        ranges = op.reads(0, start, stop, depths, depth)
        assert all(0 <= a < b <= n for (a, b), n in zip(ranges, depths, strict=True))
        given = [i[:, :, a:b].clone() for i, (a, b) in zip(inputs, ranges, strict=True)]
        piece = op.run(given, Window(start, stop, depths, depth, (1, 1, 1)))
        assert piece.shape[2] == stop - start
        pieces.append(piece)
    return torch.cat(pieces, 2)


@pytest.mark.parametrize("kernel", [kernels.plain, kernels.onednn])
@few
@given(
    shape=axis_sizes, kernel_size=line, stride=line, padding=line, dilation=line,
    slope=st.sampled_from([None, 0.0, 0.2]), groups=st.sampled_from([1, 2]), marks=cuts,
)  # fmt: skip
def test_convolution(kernel, shape, kernel_size, stride, padding, dilation, slope, groups, marks):
    geometry = Geometry(kernel_size, stride, tuple(p - 1 for p in padding), dilation, groups)
    extents = [geometry.extent(axis) for axis in range(3)]
    reach = [n + 2 * p for n, p in zip(shape, geometry.padding, strict=True)]
    assume(all(e <= n for e, n in zip(extents, reach, strict=True)))
    assume(all(p < e for p, e in zip(geometry.padding, extents, strict=True)))
    x, weight = values(1, 4, *shape), values(6, 4 // groups, *kernel_size, seed=1)
    bias = torch.arange(6.0)
    expected = F.conv3d(x, weight, bias, stride, geometry.padding, dilation, groups)
    if slope is not None:
        expected = F.leaky_relu(expected, slope)
    activation = None if slope is None else Activation(slope)
    op = Convolution(
        "y", ("x",), torch.float32, torch.float32, (weight,), bias, geometry, activation, kernel
    )
    result = assembled(op, [x], expected.shape[2], marks)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-4)


#: Kernel, stride, dilation, padding and output padding of one axis.
UP_LINES = [
    (k, s, d, p, e)
    for k, s, d in itertools.product(range(1, 5), range(1, 4), range(1, 3))
    for p in range(d * (k - 1) + 1)
    for e in range(min(p, max(s, d) - 1) + 1)
    if k >= s  # or some planes would have no input
]


@pytest.mark.parametrize("kernel", [kernels.plain, kernels.onednn])
@few
@given(
    shape=st.tuples(*[st.integers(2, 7)] * 3),
    axes=st.tuples(*[st.sampled_from(UP_LINES)] * 3),
    groups=st.sampled_from([1, 2]),
    marks=cuts,
)
def test_transposed_convolution(kernel, shape, axes, groups, marks):
    kernel_size, stride, dilation, padding, extra = zip(*axes, strict=True)
    geometry = Geometry(kernel_size, stride, padding, dilation, groups, True, extra)
    sizes = [
        (n - 1) * s + d * (k - 1) + 1 - 2 * p + e
        for n, (k, s, d, p, e) in zip(shape, axes, strict=True)
    ]
    assume(min(sizes) > 0)
    x, weight = values(1, 4, *shape), values(4, 6 // groups, *kernel_size, seed=1)
    bias = torch.arange(6.0)
    expected = F.conv_transpose3d(x, weight, bias, stride, padding, extra, groups, dilation)
    op = TransposedConvolution(
        "y", ("x",), torch.float32, torch.float32, (weight,), bias, geometry, None, kernel
    )
    result = assembled(op, [x], expected.shape[2], marks)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-4)


@few
@given(
    shape=axis_sizes, kernel_size=line, stride=line, padding=st.tuples(*[st.integers(0, 1)] * 3),
    dilation=line, mean=st.booleans(), ceil=st.booleans(), marks=cuts,
)  # fmt: skip
def test_pooling(shape, kernel_size, stride, padding, dilation, mean, ceil, marks):
    assume(all(2 * p <= k for p, k in zip(padding, kernel_size, strict=True)))
    if mean:
        dilation, ceil = (1, 1, 1), False
    geometry = Geometry(kernel_size, stride, padding, dilation)
    assume(all(geometry.extent(axis) <= shape[axis] + 2 * padding[axis] for axis in range(3)))
    x = values(1, 3, *shape) - 5  # below the padding's zeros
    if mean:
        expected = F.avg_pool3d(x, kernel_size, stride, padding)
    else:
        expected = F.max_pool3d(x, kernel_size, stride, padding, dilation, ceil)
    op = Pooling("y", ("x",), torch.float32, geometry, mean, ceil)
    torch.testing.assert_close(assembled(op, [x], expected.shape[2], marks), expected)


def test_the_mean_has_no_kernel_of_its_own_in_reduced_precision():
    x = values(1, 8, 4, 6, 8).bfloat16()
    op = Pooling(
        "y", ("x",), torch.bfloat16, Geometry((2, 2, 2), (2, 2, 2), (0, 0, 0), (1, 1, 1)), True
    )
    result = assembled(op, [x], 2, [])
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result.float(), F.avg_pool3d(x.float(), 2), rtol=1e-2, atol=1e-2)


@few
@given(
    shape=st.tuples(*[st.integers(1, 7)] * 3),
    size=st.tuples(*[st.integers(1, 15)] * 3),
    mode=st.sampled_from(["nearest", "nearest-exact", "trilinear", "corners"]),
    marks=cuts,
)
def test_resize_to_a_size(shape, size, mode, marks):
    x = values(1, 2, *shape)
    corners = True if mode == "corners" else None
    torch_mode = "trilinear" if mode == "corners" else mode
    expected = F.interpolate(x, size, mode=torch_mode, align_corners=corners)
    op = Resize(
        "y", ("x",), torch.float32, torch_mode, mode == "corners", None, lambda extent: size
    )
    torch.testing.assert_close(assembled(op, [x], size[0], marks), expected, rtol=1e-5, atol=1e-5)


@few
@given(
    shape=st.tuples(*[st.integers(2, 7)] * 3),
    factors=st.tuples(*[st.sampled_from([1.0, 1.5, 2.0, 2.7, 0.6])] * 3),
    mode=st.sampled_from(["nearest", "trilinear"]),
    marks=cuts,
)
def test_resize_by_factors(shape, factors, mode, marks):
    x = values(1, 2, *shape)
    expected = F.interpolate(x, scale_factor=factors, mode=mode)
    size = tuple(expected.shape[2:])
    op = Resize("y", ("x",), torch.float32, mode, False, factors, lambda extent: size)
    torch.testing.assert_close(assembled(op, [x], size[0], marks), expected, rtol=1e-5, atol=1e-5)


@few
@given(marks=cuts, small=st.booleans())
def test_pointwise_broadcasts(marks, small):
    a, b = values(1, 3, 9, 4, 5), values(1, 1, 1 if small else 9, 4, 5, seed=1)
    op = Pointwise("y", ("a", "b"), torch.float32, torch.ops.aten.mul.Tensor, (Ref("a"), Ref("b")))
    torch.testing.assert_close(assembled(op, [a, b], 9, marks), a * b)


@few
@given(
    groups=st.sampled_from([1, 2, 4]), offset=st.sampled_from([0.0, 1e3, -1e4]), marks=cuts,
    affine=st.booleans(),
)  # fmt: skip
def test_group_normalisation_from_merged_statistics(groups, offset, marks, affine):
    x = values(1, 4, 9, 4, 5) + offset
    weight, bias = (torch.rand(4), torch.rand(4)) if affine else (None, None)
    op = GroupNormalization("y", ("x",), torch.float32, groups, weight, bias, 1e-5, None)
    expected = F.group_norm(
        x.double(), groups, *[t if t is None else t.double() for t in (weight, bias)]
    )
    at_once = op.run([x], Window(0, 9, (9,), 9, (1, 1, 1)))
    near = {"rtol": 0, "atol": 2e-6 * (1 + abs(offset))}
    torch.testing.assert_close(at_once.double(), expected, **near)
    ends = sorted({min(m, 9) for m in marks} | {9})
    parts = [op.measure(x[:, :, a:b]) for a, b in itertools.pairwise([0, *ends]) if a < b]
    moments = parts[0]
    for part in parts[1:]:
        moments = moments.merged(part)
    torch.testing.assert_close(op.apply(x, moments).double(), expected, **near)


def test_a_kernel_that_is_wrong_or_missing_is_not_taken(monkeypatch):
    weight = values(8, 8, 3, 3, 3)
    geometry = Geometry((3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1))

    def chosen():
        monkeypatch.setattr(kernels, "_chosen", {})
        return kernels.choose([weight], None, geometry, None)[0]

    real = kernels.onednn
    monkeypatch.setattr(kernels, "onednn", lambda *args: real(*args).add_(1e-2))
    assert chosen() is kernels.plain

    def missing(*args):
        raise AttributeError("no such operator")

    monkeypatch.setattr(kernels, "onednn", missing)
    assert chosen() is kernels.plain
    monkeypatch.setattr(kernels, "_DOUBT", float("inf"))  # whatever the clock says
    monkeypatch.setattr(kernels, "onednn", real)
    assert chosen() is real


def test_each_layer_shape_is_tried_once(monkeypatch):
    tried = []
    monkeypatch.setattr(kernels, "_chosen", {})
    monkeypatch.setattr(kernels, "_trial", lambda *args: tried.append(args) or kernels.plain)
    geometry = Geometry((3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1))
    for seed in range(3):
        kernels.choose([values(8, 8, 3, 3, 3, seed=seed)], None, geometry, None)
    kernels.choose([values(8, 8, 3, 3, 3).bfloat16()], None, geometry, None)
    assert len(tried) == 2


@pytest.mark.parametrize(("slow_runs", "taken"), [(0, "fast"), (4, "fast"), (100, "plain")])
def test_a_kernel_that_only_seems_slow_is_taken(monkeypatch, slow_runs, taken):
    """Another program may have had the machine during a trial of a millisecond."""
    clock, runs = [0.0], [0]
    plain = kernels.plain

    def fast(*args):
        runs[0] += 1
        clock[0] += 10.0 if runs[0] <= slow_runs else 0.5
        return plain(*args)

    def slow(*args):
        clock[0] += 1.0
        return plain(*args)

    monkeypatch.setattr(kernels, "_chosen", {})
    monkeypatch.setattr(kernels, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(kernels, "onednn", fast)
    monkeypatch.setattr(kernels, "plain", slow)
    monkeypatch.setattr(kernels, "packed", lambda weight, geometry: weight)
    geometry = Geometry((3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1))
    chosen, _ = kernels.choose([values(8, 8, 3, 3, 3)], None, geometry, None)
    assert chosen is {"fast": fast, "plain": slow}[taken]
