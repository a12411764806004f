"""Norms over channels taken out, so that a sliced network can be compared with the masked one.

A norm that reads all channels at once counts the masked network's zeros, which the sliced network does not have. With
norms that only scale and shift, in both networks, the two are equal where the right channels went.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    x = x if weight is None else x * weight.view(shape)
    return x if bias is None else x + bias.view(shape)


def _layer(x: Tensor, shape: Any, weight: Any = None, bias: Any = None, eps: float = 0.0) -> Tensor:
    return _affine(x, weight, bias, tuple(x.shape[x.ndim - len(shape) :]))


def _group(x: Tensor, groups: int, weight: Any = None, bias: Any = None, eps: float = 0.0) -> Tensor:
    return _affine(x, weight, bias, (-1, *[1] * (x.ndim - 2)))


def _rms(x: Tensor, shape: Any, weight: Any = None, eps: float | None = None) -> Tensor:
    return _affine(x, weight, None, tuple(x.shape[x.ndim - len(shape) :]))


_batch_norm = F.batch_norm


def _batch(x: Tensor, mean: Any, var: Any, weight: Any = None, bias: Any = None, *rest: Any, **named: Any) -> Tensor:
    if mean is None:  # the standardisation of a weight over its inputs
        return _affine(x, weight, bias, (-1, *[1] * (x.ndim - 2)))
    return _batch_norm(x, mean, var, weight, bias, *rest, **named)


def _response(module: Any, x: Tensor) -> Tensor:
    dims, shape = getattr(module, "spatial_dim", (1, 2)), getattr(module, "wb_shape", module.weight.shape)
    scaled = x * x.norm(p=2, dim=dims, keepdim=True)
    return x + module.weight.view(shape) * scaled + module.bias.view(shape)


def _channel_statistics(module: Any, x: Tensor) -> Tensor:
    read = torch.cat([x.sum(1, keepdim=True), x.relu().amax(1, keepdim=True)], 1)
    output: Tensor = module.attn(module.conv(module.avgpool(read)))
    return output


def _each(x: Tensor, *rest: Any, **named: Any) -> Tensor:
    return torch.sigmoid(x) / 8


_NORMS = {"layer_norm": _layer, "group_norm": _group, "rms_norm": _rms, "batch_norm": _batch}
# (module, name or class, replacement): of a class, its forward is replaced.
_OTHERS: tuple[tuple[str, str, Any], ...] = (
    ("timm.layers.grn", "GlobalResponseNorm", _response),  # ConvNeXt V2 divides by a mean over channels
    ("transformers.models.convnextv2.modeling_convnextv2", "ConvNextV2GRN", _response),
    ("timm.layers.norm", "fast_simple_norm", _rms),  # x / std(x), written out
    ("timm.layers.norm", "simple_norm", _rms),
    ("timm.models.csatv2", "SpatialAttention", _channel_statistics),  # mean and maximum over channels
)


@contextmanager
def affine_norms(*, softmax: bool = False) -> Iterator[None]:
    """Norms that read all channels at once do no more than scale and shift.

    Args:
        softmax: whether softmax, too, gives way to a function of each element: where attention is over channels.
    """
    with ExitStack() as stack:
        for name, function in _NORMS.items():
            stack.enter_context(mock.patch.object(F, name, function))
        for module, name, function in _OTHERS:
            found = getattr(sys.modules.get(module), name, None)
            if isinstance(found, type):
                stack.enter_context(mock.patch.object(found, "forward", function))
            elif found is not None:
                stack.enter_context(mock.patch(f"{module}.{name}", function))
        for owner in (F, torch, Tensor) if softmax else ():
            stack.enter_context(mock.patch.object(owner, "softmax", _each))
        yield
