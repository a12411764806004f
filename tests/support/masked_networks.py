"""The dense network with channels set to zero, made without gsprune's own masking."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

import gsprune
from gsprune.tracing.outputs import tensors_in


def masked_copy(model: nn.Module, removed: Mapping[str, Mapping[int, Any]]) -> nn.Module:
    """A copy whose removed positions are zero; `removed` is tensor name -> {axis: positions}."""
    dense = copy.deepcopy(model).eval()
    tensors = dict(dense.named_parameters()) | dict(dense.named_buffers())
    with torch.no_grad():
        for name, axes in removed.items():
            for axis, positions in axes.items():
                tensors[name].index_fill_(axis, torch.as_tensor(positions), 0)
    return dense


def prune_half(model: nn.Module, *inputs: Tensor) -> float:
    """Ask for half of the channels.

    Returns:
        the largest difference of outputs from those of the masked network, on the inputs and on other values.
    """
    dense = copy.deepcopy(model)
    report = gsprune.prune_step(model, 0.5, example_inputs=inputs)
    masked, ours = masked_copy(dense, report.removed), copy.deepcopy(model).eval()
    gaps = []
    for call in (inputs, [x.flip(0) * 1.5 + 0.1 for x in inputs]):
        for got, expected in zip(tensors_in(ours(*call)), tensors_in(masked(*call)), strict=True):
            gaps.append(float((got - expected).detach().abs().max()))
    return max(gaps)
