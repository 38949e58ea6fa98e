"""Put together again what torch takes apart below autograd.

Loaded TorchScript is recorded where torch runs it, and exported programs may have been decomposed
before they were saved: a convolution is then ``convolution``, a group normalisation
``native_group_norm``. Each of them gets back the operator that it came from, of which `simplify`
knows the plain form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from .graph import Ref
from .simplify import Call, Recorder

aten: Any = torch.ops.aten


def composed(recorder: Recorder, call: Call) -> Call:
    """The operator that `call` came from, or `call` itself.

    Parameters
    ----------
    recorder : Recorder
        Knows the shapes, and the operators so far.
    call : Call
        As recorded. One with several results gives the first of them alone from now on.
    """
    rule = _RULES.get(call.op)
    return (rule(recorder, call) if rule else None) or call


def _arguments(call: Call, *names: str) -> list[Any]:
    """Values of the named arguments, wherever they stand."""
    schema: Any = call.target._schema  # type: ignore[attr-defined]
    given: dict[str, Any] = {a.name: a.default_value for a in schema.arguments}
    given |= dict(zip((a.name for a in schema.arguments), call.args, strict=False))
    given |= call.kwargs
    return [given.get(name) for name in names]


def _as(call: Call, target: Callable[..., Any], *args: Any) -> Call:
    return Call(target, args, {}, call.shape, call.dtype)


def _convolution(recorder: Recorder, call: Call) -> Call | None:
    source, weight, bias, stride, padding, dilation, transposed, beyond, groups = _arguments(
        call,
        *("input", "weight", "bias", "stride", "padding", "dilation"),
        *("transposed", "output_padding", "groups"),
    )
    if len(recorder.shape(weight)) != 5:
        return None
    if transposed:
        target = aten.conv_transpose3d.input
        return _as(call, target, source, weight, bias, stride, padding, beyond, groups, dilation)
    return _as(call, aten.conv3d.default, source, weight, bias, stride, padding, dilation, groups)


def _batch_norm(recorder: Recorder, call: Call) -> Call:
    source, weight, bias, mean, variance, training, momentum, eps = _arguments(
        call,
        *("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps"),
    )
    if call.op.endswith("no_training"):
        training = False
    return _as(
        call,
        aten.batch_norm.default,
        *(source, weight, bias, mean, variance, training or mean is None, momentum, eps, False),
    )


def _group_norm(recorder: Recorder, call: Call) -> Call:
    source, weight, bias, groups, eps = _arguments(call, "input", "weight", "bias", "group", "eps")
    return _as(call, aten.group_norm.default, source, groups, weight, bias, eps, True)


def _layer_norm(recorder: Recorder, call: Call) -> Call:
    values = _arguments(call, "input", "normalized_shape", "weight", "bias", "eps")
    return _as(call, aten.layer_norm.default, *values, True)


def _upsample(recorder: Recorder, call: Call) -> Call | None:
    if call.overload != "default":
        return None
    source, *_ = call.args
    size, align, *factors = _arguments(
        call, "output_size", "align_corners", "scales_d", "scales_h", "scales_w"
    )
    told = None if None in factors else factors
    if told is not None:
        pairs = zip(recorder.shape(source)[2:], size, told, strict=True)
        told = None if all(n * f == m for n, m, f in pairs) else told
    middle = () if align is None else (align,)
    target = getattr(aten, call.op).vec
    return _as(call, target, source, size if told is None else None, *middle, told)


def _softmax(recorder: Recorder, call: Call) -> Call:
    source, dim, *_ = call.args
    return _as(call, aten.softmax.int, source, dim, None)


def _adaptive(recorder: Recorder, call: Call) -> Call:
    return replace(call, target=aten.adaptive_avg_pool3d.default)


def _prelu(recorder: Recorder, call: Call) -> Call | None:
    source, slope = call.args
    before = recorder.nodes.get(slope.name)
    if before is not None and before.op == "reshape":  # (n,) spread over (1, n, 1, 1, 1)
        slope = before.args[0]
    if len(recorder.shape(slope)) != 1:
        return None
    return _as(call, aten.prelu.default, source, slope)


def _linear(recorder: Recorder, call: Call) -> Call | None:
    bias, source, turned = call.args if call.op == "addmm" else (None, *call.args)
    before = recorder.nodes.get(turned.name) if isinstance(turned, Ref) else None
    if before is None or before.op not in ("t", "transpose", "permute") or call.kwargs:
        return None
    return _as(call, aten.linear.default, source, before.args[0], bias)


_RULES: dict[str, Callable[[Recorder, Call], Call | None]] = {
    **dict.fromkeys(("convolution", "_convolution"), _convolution),
    **dict.fromkeys(
        (
            *("native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm"),
            "_native_batch_norm_legit_no_training",
        ),
        _batch_norm,
    ),
    "native_group_norm": _group_norm,
    "native_layer_norm": _layer_norm,
    **dict.fromkeys(
        ("upsample_trilinear3d", "upsample_nearest3d", "_upsample_nearest_exact3d"), _upsample
    ),
    "_softmax": _softmax,
    "_adaptive_avg_pool3d": _adaptive,
    "_prelu_kernel": _prelu,
    **dict.fromkeys(("addmm", "mm"), _linear),
}
