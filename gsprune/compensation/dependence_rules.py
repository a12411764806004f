"""Rules of `InputDependence` for the dependent elements of an operation's outputs, given those of its arguments.

Most rules run the operation on masks of zeros and ones: an output that is not zero depends on the inputs. Without a
rule, all outputs of an operation are dependent if an element of an argument is. This is always safe.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gsprune.tracing.call import Call, outputs_of
from gsprune.tracing.rules.registry import POINTWISE, RULES, Operation

__all__ = ["Reading", "rule_of"]


class Reading(NamedTuple):
    """One operation that is about to run.

    Attributes:
        func: the operation.
        args: its positional arguments.
        kwargs: its arguments by name.
        mask: tensor -> bool of its shape, True where an element depends on the inputs.
    """

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    mask: Callable[[Tensor], Tensor]

    def ones(self, tensor: Tensor) -> Tensor:
        """1 where an element depends on the inputs, else 0."""
        return self.mask(tensor).float()

    def nonzero(self, tensor: Tensor, value: float = 0.0) -> Tensor:
        """0 where an element is the constant `value`, else 1."""
        return (self.mask(tensor) | (tensor != value)).float()

    def any_of(self, *tensors: Any) -> bool:
        """True if an element of some tensors depends on the inputs."""
        return any(bool(self.mask(tensor).any()) for tensor in tensors if isinstance(tensor, Tensor))


_Rule = Callable[[Reading], list[Tensor]]
_RULES: dict[str, _Rule] = {}


def rule_of(operation: Operation) -> _Rule | None:
    """The rule of an operation. It returns a mask for each output, or only for the first ones."""
    found = _RULES.get(operation.name)
    if found is None and operation.rule is RULES[POINTWISE] and not operation.random:
        return _pointwise
    return found


def _aten(names: str) -> Callable[[_Rule], _Rule]:
    """Decorator that registers the rule of operations of torch's own namespace, separated by spaces."""

    def register(function: _Rule) -> _Rule:
        _RULES.update(dict.fromkeys((f"aten.{name}" for name in names.split()), function))
        return function

    return register


def _broadcast_any(masks: list[Tensor]) -> Tensor:
    result = torch.zeros((), dtype=torch.bool)
    for mask in masks:
        result = result.to(mask.device) | mask
    return result


def _pointwise(reading: Reading) -> list[Tensor]:
    return [_broadcast_any([reading.mask(tensor) for tensor in Call("", reading.args, reading.kwargs, None).tensors()])]


@_aten("copy fill zero")
def _overwrite(reading: Reading) -> list[Tensor]:
    """The first argument is only written to."""
    values = Call("", reading.args[1:], reading.kwargs, None).tensors()
    return [_broadcast_any([reading.mask(value) for value in values])]


@_aten("mul")
def _mul(reading: Reading) -> list[Tensor]:
    """A constant factor of 0 makes a constant."""
    a, b = reading.args[:2]
    if not isinstance(b, Tensor):
        return [reading.mask(a)]
    return [(reading.ones(a) * reading.nonzero(b) + reading.nonzero(a) * reading.ones(b)) > 0]


# -- products ---------------------------------------------------------------------------------------------------------


def _product(reading: Reading, run: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    """A sum of products is dependent if one of its terms has a dependent factor and the other factor is not 0."""
    found = run(reading.ones(a), reading.nonzero(b)) > 0
    return found | (run(reading.nonzero(a), reading.ones(b)) > 0) if reading.any_of(b) else found


@_aten("mm bmm matmul mv dot")
def _mm(reading: Reading) -> list[Tensor]:
    return [_product(reading, torch.matmul, *reading.args[:2])]


@_aten("addmm baddbmm addmv")
def _addmm(reading: Reading) -> list[Tensor]:
    bias, a, b = reading.args[:3]
    return [_product(reading, torch.matmul, a, b) | reading.mask(bias)]


@_aten("linear")
def _linear(reading: Reading) -> list[Tensor]:
    found = _product(reading, torch.nn.functional.linear, *reading.args[:2])
    bias = Call("", reading.args, reading.kwargs, None).arg(2, "bias")
    return [found if bias is None else found | reading.mask(bias)]


@_aten("convolution _convolution")
def _convolution(reading: Reading) -> list[Tensor]:
    """Zero padding and transposed convolutions give a constant a border, so only the constant 0 stays constant."""
    x, weight, bias = reading.args[:3]
    settings = reading.args[3:9]
    padding, transposed = settings[1], settings[3]

    def run(a: Tensor, b: Tensor) -> Tensor:
        return torch.convolution(a, b, None, *settings)

    if any(padding) or (transposed and prod(weight.shape[2:]) > 1):
        found = run(reading.nonzero(x), reading.nonzero(weight)) > 0
    else:
        found = _product(reading, run, x, weight)
    if bias is not None:
        found = found | reading.mask(bias).reshape(-1, *[1] * (x.ndim - 2))
    return [found]


@_aten("_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_attention_math scaled_dot_product_attention")
def _attention(reading: Reading) -> list[Tensor]:
    """Attention is a mean over the positions of the values, so a channel of zeros stays zero."""
    query, value = reading.args[0], reading.args[2]
    channels = reading.nonzero(value).amax(-2, keepdim=True)
    if query.shape[:-2] != value.shape[:-2]:  # heads that share their values
        channels = channels.amax(tuple(range(value.ndim - 1)))
    return [(channels > 0).expand(*query.shape[:-1], value.shape[-1])]


@_aten("embedding")
def _embedding(reading: Reading) -> list[Tensor]:
    """Columns of equal numbers are constants for any index."""
    weight, indices = reading.args[:2]
    varies = (weight != weight[:1]).any(0) | reading.mask(weight).any(0)
    return [varies.expand(*indices.shape, -1)]


# -- the same elements elsewhere --------------------------------------------------------------------------------------


@_aten(
    "clone contiguous _to_copy reshape repeat roll flip tile pixel_shuffle pixel_unshuffle channel_shuffle "
    "native_channel_shuffle unsafe_chunk unsafe_split unsafe_split_with_sizes reflection_pad1d reflection_pad2d "
    "reflection_pad3d replication_pad1d replication_pad2d replication_pad3d upsample_nearest1d upsample_nearest2d "
    "upsample_nearest3d upsample_linear1d upsample_bilinear2d upsample_trilinear3d _adaptive_avg_pool2d "
    "_adaptive_avg_pool3d adaptive_avg_pool1d max_pool1d max_pool2d max_pool3d mean amax amin"
)
def _as_data(reading: Reading) -> list[Tensor]:
    """Operations that move elements, and means and extremes: the same operation on the masks."""
    if reading.any_of(*reading.args[1:]):
        return []
    kwargs = {name: value for name, value in reading.kwargs.items() if not isinstance(value, torch.dtype)}
    return [each != 0 for each in outputs_of(reading.func(reading.ones(reading.args[0]), *reading.args[1:], **kwargs))]


@_aten("max_pool2d_with_indices max_pool3d_with_indices")
def _max_pool(reading: Reading) -> list[Tensor]:
    """Padding is never the maximum. The indices depend on the inputs."""
    return _as_data(reading)[:1]


@_aten("cat stack")
def _cat(reading: Reading) -> list[Tensor]:
    return [reading.func(list(map(reading.mask, reading.args[0])), *reading.args[1:], **reading.kwargs)]


@_aten("index_select gather")
def _select(reading: Reading) -> list[Tensor]:
    """Elements at constant indices."""
    x, axis, index = reading.args[:3]
    return [] if reading.any_of(index) else [reading.func(reading.mask(x), axis, index)]


@_aten("index")
def _index(reading: Reading) -> list[Tensor]:
    x, indices = reading.args[:2]
    return [] if reading.any_of(*indices) else [reading.func(reading.mask(x), indices)]


@_aten("constant_pad_nd")
def _constant_pad(reading: Reading) -> list[Tensor]:
    """A constant with another value than the padding gets a border."""
    x, padding, *values = reading.args
    value = values[0] if values else reading.kwargs.get("value", 0.0)
    return [torch.constant_pad_nd(reading.nonzero(x, value), padding) > 0]


@_aten("im2col")
def _im2col(reading: Reading) -> list[Tensor]:
    return [reading.func(reading.nonzero(reading.args[0]), *reading.args[1:], **reading.kwargs) > 0]


@_aten("avg_pool1d avg_pool2d avg_pool3d")
def _avg_pool(reading: Reading) -> list[Tensor]:
    """Padding, and the part of a window beyond the border, may count as zeros."""
    call = Call("", reading.args, reading.kwargs, None)
    padding = call.arg(3, "padding", 0)
    sticks_out = any(padding) if isinstance(padding, list | tuple) else padding
    return _with_size(reading) if sticks_out or call.arg(4, "ceil_mode", False) else _as_data(reading)


@_aten("sum")
def _with_size(reading: Reading) -> list[Tensor]:
    """Sums depend on the size of the argument, so only the constant 0 stays constant."""
    kwargs = {name: value for name, value in reading.kwargs.items() if not isinstance(value, torch.dtype)}
    return [reading.func(reading.nonzero(reading.args[0]), *reading.args[1:], **kwargs) > 0]


# -- norms ------------------------------------------------------------------------------------------------------------


@_aten(
    "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm batch_norm "
    "miopen_batch_norm"
)
def _batch_norm(reading: Reading) -> list[Tensor]:
    """Channels are axis 1; statistics of the batch read a whole channel."""
    x, *parameters = reading.args[:5]
    if reading.any_of(*parameters):
        return []
    found = reading.mask(x)
    if next((value for value in reading.args[5:] if isinstance(value, bool)), False):
        found = found.transpose(0, 1).flatten(1).any(1).reshape(1, -1, *[1] * (x.ndim - 2))
    weight = parameters[0]
    scaled = found if weight is None else found & (weight != 0).reshape(-1, *[1] * (x.ndim - 2))
    return [scaled.expand(x.shape)]


@_aten("native_layer_norm layer_norm _fused_rms_norm")
def _layer_norm(reading: Reading) -> list[Tensor]:
    """Every element of the trailing axes reads all of them."""
    call = Call("", reading.args, reading.kwargs, None)
    x, sizes, weight = call.args[0], call.args[1], call.arg(2, "weight")
    if reading.any_of(weight, call.arg(3, "bias")):
        return []
    found = reading.mask(x).flatten(-len(sizes)).any(-1).reshape(*x.shape[: x.ndim - len(sizes)], *[1] * len(sizes))
    return [(found if weight is None else found & (weight != 0)).expand(x.shape)]


@_aten("_softmax _log_softmax softmax log_softmax _safe_softmax")
def _softmax(reading: Reading) -> list[Tensor]:
    x, axis = reading.args[:2]
    return [reading.mask(x).any(axis, keepdim=True).expand(x.shape)]
