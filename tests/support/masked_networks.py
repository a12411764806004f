"""The dense network with channels set to zero, made without gsprune's own masking."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def masked_copy(model: nn.Module, removed: Mapping[str, Mapping[int, Any]]) -> nn.Module:
    """A copy whose removed positions are zero; `removed` is tensor name -> {axis: positions}."""
    dense = copy.deepcopy(model).eval()
    tensors = dict(dense.named_parameters()) | dict(dense.named_buffers())
    with torch.no_grad():
        for name, axes in removed.items():
            for axis, positions in axes.items():
                tensors[name].index_fill_(axis, torch.as_tensor(positions), 0)
    return dense
