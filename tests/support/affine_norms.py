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

import torch.nn.functional as F
from torch import Tensor

# ConvNeXt V2 divides by a mean over channels.
_RESPONSE_NORMS = (
    ("timm.layers.grn", "GlobalResponseNorm"),
    ("transformers.models.convnextv2.modeling_convnextv2", "ConvNextV2GRN"),
)


@contextmanager
def affine_norms() -> Iterator[None]:
    """Norms that read all channels at once do no more than scale and shift."""

    def affine(x: Tensor, weight: Tensor | None, bias: Tensor | None, shape: tuple[int, ...]) -> Tensor:
        x = x if weight is None else x * weight.view(shape)
        return x if bias is None else x + bias.view(shape)

    def layer(x: Tensor, shape: Any, weight: Any = None, bias: Any = None, eps: float = 0.0) -> Tensor:
        return affine(x, weight, bias, tuple(x.shape[x.ndim - len(shape) :]))

    def group(x: Tensor, groups: int, weight: Any = None, bias: Any = None, eps: float = 0.0) -> Tensor:
        return affine(x, weight, bias, (-1, *[1] * (x.ndim - 2)))

    def rms(x: Tensor, shape: Any, weight: Any = None, eps: float | None = None) -> Tensor:
        return affine(x, weight, None, tuple(x.shape[x.ndim - len(shape) :]))

    batch_norm = F.batch_norm

    def batch(x: Tensor, mean: Any, var: Any, weight: Any = None, bias: Any = None, *rest: Any, **named: Any) -> Tensor:
        if mean is None:  # the standardisation of a weight over its inputs
            return affine(x, weight, bias, (-1, *[1] * (x.ndim - 2)))
        return batch_norm(x, mean, var, weight, bias, *rest, **named)

    def response(module: Any, x: Tensor) -> Tensor:
        dims, shape = getattr(module, "spatial_dim", (1, 2)), getattr(module, "wb_shape", module.weight.shape)
        scaled = x * x.norm(p=2, dim=dims, keepdim=True)
        return x + module.weight.view(shape) * scaled + module.bias.view(shape)

    with ExitStack() as stack:
        for name, function in {"layer_norm": layer, "group_norm": group, "rms_norm": rms, "batch_norm": batch}.items():
            stack.enter_context(mock.patch.object(F, name, function))
        for module, kind in _RESPONSE_NORMS:
            found = getattr(sys.modules.get(module), kind, None)
            if found is not None:
                stack.enter_context(mock.patch.object(found, "forward", response))
        yield
