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

__all__ = ["PendingCall", "rule_of"]


class PendingCall(NamedTuple):
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

    @property
    def call(self) -> Call:
        """The arguments as a `Call`."""
        return Call("", self.args, self.kwargs)

    def run_on(self, first: Any) -> Any:
        """Run the operation with another first argument and without a dtype."""
        kwargs = {name: value for name, value in self.kwargs.items() if not isinstance(value, torch.dtype)}
        return self.func(first, *self.args[1:], **kwargs)

    def ones(self, tensor: Tensor) -> Tensor:
        """1 where an element depends on the inputs, else 0."""
        return self.mask(tensor).float()

    def nonzero(self, tensor: Tensor, value: float = 0.0) -> Tensor:
        """0 where an element is the constant `value`, else 1."""
        return (self.mask(tensor) | (tensor != value)).float()

    def any_of(self, *tensors: Any) -> bool:
        """True if an element of some tensors depends on the inputs."""
        return any(bool(self.mask(tensor).any()) for tensor in tensors if isinstance(tensor, Tensor))


_Rule = Callable[[PendingCall], list[Tensor]]
_RULES: dict[str, _Rule] = {}


def rule_of(operation: Operation) -> _Rule | None:
    """The rule of an operation, which returns the masks of its first outputs. The other outputs are dependent."""
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


def _pointwise(pending: PendingCall) -> list[Tensor]:
    return [_broadcast_any([pending.mask(tensor) for tensor in pending.call.tensors()])]


@_aten("copy fill zero")
def _overwrite(pending: PendingCall) -> list[Tensor]:
    """The first argument is only written to."""
    values = Call("", pending.args[1:], pending.kwargs).tensors()
    return [_broadcast_any([pending.mask(value) for value in values])]


@_aten("mul")
def _mul(pending: PendingCall) -> list[Tensor]:
    """A constant factor of 0 makes a constant."""
    a, b = pending.args[:2]
    if not isinstance(b, Tensor):
        return [pending.mask(a)]
    return [(pending.ones(a) * pending.nonzero(b) + pending.nonzero(a) * pending.ones(b)) > 0]


# -- products ---------------------------------------------------------------------------------------------------------


def _product(pending: PendingCall, run: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    """A sum of products is dependent if one of its terms has a dependent factor and the other factor is not 0."""
    found = run(pending.ones(a), pending.nonzero(b)) > 0
    return found | (run(pending.nonzero(a), pending.ones(b)) > 0) if pending.any_of(b) else found


@_aten("mm bmm matmul mv dot")
def _mm(pending: PendingCall) -> list[Tensor]:
    return [_product(pending, torch.matmul, *pending.args[:2])]


@_aten("addmm baddbmm addmv")
def _addmm(pending: PendingCall) -> list[Tensor]:
    bias, a, b = pending.args[:3]
    return [_product(pending, torch.matmul, a, b) | pending.mask(bias)]


@_aten("linear")
def _linear(pending: PendingCall) -> list[Tensor]:
    found = _product(pending, torch.nn.functional.linear, *pending.args[:2])
    bias = pending.call.arg(2, "bias")
    return [found if bias is None else found | pending.mask(bias)]


@_aten("convolution _convolution")
def _convolution(pending: PendingCall) -> list[Tensor]:
    """Zero padding and transposed convolutions give a constant a border, so only the constant 0 stays constant."""
    x, weight, bias = pending.args[:3]
    settings = pending.args[3:9]
    padding, transposed = settings[1], settings[3]

    def run(a: Tensor, b: Tensor) -> Tensor:
        return torch.convolution(a, b, None, *settings)

    if any(padding) or (transposed and prod(weight.shape[2:]) > 1):
        found = run(pending.nonzero(x), pending.nonzero(weight)) > 0
    else:
        found = _product(pending, run, x, weight)
    if bias is not None:
        found = found | pending.mask(bias).reshape(-1, *[1] * (x.ndim - 2))
    return [found]


@_aten("_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_attention_math scaled_dot_product_attention")
def _attention(pending: PendingCall) -> list[Tensor]:
    """Attention is a mean over the positions of the values, so a channel of zeros stays zero."""
    query, value = pending.args[0], pending.args[2]
    channels = pending.nonzero(value).amax(-2, keepdim=True)
    if query.shape[:-2] != value.shape[:-2]:  # heads that share their values
        channels = channels.amax(tuple(range(value.ndim - 1)))
    return [(channels > 0).expand(*query.shape[:-1], value.shape[-1])]


@_aten("embedding")
def _embedding(pending: PendingCall) -> list[Tensor]:
    """Columns of equal numbers are constants for any index."""
    weight, indices = pending.args[:2]
    varies = (weight != weight[:1]).any(0) | pending.mask(weight).any(0)
    return [varies.expand(*indices.shape, -1)]


# -- the same elements elsewhere --------------------------------------------------------------------------------------


@_aten(
    "clone contiguous _to_copy reshape repeat roll flip tile pixel_shuffle pixel_unshuffle channel_shuffle "
    "native_channel_shuffle unsafe_chunk unsafe_split unsafe_split_with_sizes reflection_pad1d reflection_pad2d "
    "reflection_pad3d replication_pad1d replication_pad2d replication_pad3d upsample_nearest1d upsample_nearest2d "
    "upsample_nearest3d upsample_linear1d upsample_bilinear2d upsample_trilinear3d _adaptive_avg_pool2d "
    "_adaptive_avg_pool3d adaptive_avg_pool1d max_pool1d max_pool2d max_pool3d mean amax amin"
)
def _as_data(pending: PendingCall) -> list[Tensor]:
    """Operations that move elements, and means and extremes: the same operation on the masks."""
    if pending.any_of(*pending.args[1:]):
        return []
    return [each != 0 for each in outputs_of(pending.run_on(pending.ones(pending.args[0])))]


@_aten("max_pool2d_with_indices max_pool3d_with_indices")
def _max_pool(pending: PendingCall) -> list[Tensor]:
    """Padding is never the maximum. The indices depend on the inputs."""
    return _as_data(pending)[:1]


@_aten("cat stack")
def _cat(pending: PendingCall) -> list[Tensor]:
    return [pending.run_on(list(map(pending.mask, pending.args[0])))]


@_aten("index_select gather")
def _select(pending: PendingCall) -> list[Tensor]:
    """Elements at constant indices."""
    x, axis, index = pending.args[:3]
    return [] if pending.any_of(index) else [pending.func(pending.mask(x), axis, index)]


@_aten("index")
def _index(pending: PendingCall) -> list[Tensor]:
    x, indices = pending.args[:2]
    return [] if pending.any_of(*indices) else [pending.func(pending.mask(x), indices)]


@_aten("constant_pad_nd")
def _constant_pad(pending: PendingCall) -> list[Tensor]:
    """A constant with another value than the padding gets a border."""
    x, padding, *values = pending.args
    value = values[0] if values else pending.kwargs.get("value", 0.0)
    return [torch.constant_pad_nd(pending.nonzero(x, value), padding) > 0]


@_aten("im2col")
def _im2col(pending: PendingCall) -> list[Tensor]:
    return [pending.run_on(pending.nonzero(pending.args[0])) > 0]


@_aten("avg_pool1d avg_pool2d avg_pool3d")
def _avg_pool(pending: PendingCall) -> list[Tensor]:
    """Padding, and the part of a window beyond the border, may count as zeros."""
    call = pending.call
    padding = call.arg(3, "padding", 0)
    sticks_out = any(padding) if isinstance(padding, list | tuple) else padding
    return _with_size(pending) if sticks_out or call.arg(4, "ceil_mode", False) else _as_data(pending)


@_aten("sum")
def _with_size(pending: PendingCall) -> list[Tensor]:
    """Sums depend on the size of the argument, so only the constant 0 stays constant."""
    return [pending.run_on(pending.nonzero(pending.args[0])) > 0]


# -- norms ------------------------------------------------------------------------------------------------------------


@_aten(
    "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm batch_norm "
    "miopen_batch_norm"
)
def _batch_norm(pending: PendingCall) -> list[Tensor]:
    """Channels are axis 1; statistics of the batch read a whole channel."""
    x, *parameters = pending.args[:5]
    if pending.any_of(*parameters):
        return []
    found = pending.mask(x)
    if next((value for value in pending.args[5:] if isinstance(value, bool)), False):
        found = found.transpose(0, 1).flatten(1).any(1).reshape(1, -1, *[1] * (x.ndim - 2))
    weight = parameters[0]
    scaled = found if weight is None else found & (weight != 0).reshape(-1, *[1] * (x.ndim - 2))
    return [scaled.expand(x.shape)]


@_aten("native_layer_norm layer_norm _fused_rms_norm")
def _layer_norm(pending: PendingCall) -> list[Tensor]:
    """Every element of the trailing axes reads all of them."""
    call = pending.call
    x, sizes, weight = call.args[0], call.args[1], call.arg(2, "weight")
    if pending.any_of(weight, call.arg(3, "bias")):
        return []
    found = pending.mask(x).flatten(-len(sizes)).any(-1).reshape(*x.shape[: x.ndim - len(sizes)], *[1] * len(sizes))
    return [(found if weight is None else found & (weight != 0)).expand(x.shape)]


@_aten("_softmax _log_softmax softmax log_softmax _safe_softmax")
def _softmax(pending: PendingCall) -> list[Tensor]:
    x, axis = pending.args[:2]
    return [pending.mask(x).any(axis, keepdim=True).expand(x.shape)]
