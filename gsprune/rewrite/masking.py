"""The masked dense network: removed channels are zero, and the smaller network must equal it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gsprune.arrays import IntArray
from gsprune.rewrite.transaction import temporary_data
from gsprune.tracing.example import Example

__all__ = ["masked", "masked_output"]


def masked(tensor: Tensor, axes: Mapping[int, IntArray]) -> Tensor:
    """A copy of `tensor` with positions of some axes (axis -> positions) set to zero."""
    copy = tensor.detach().clone()
    for axis, positions in axes.items():
        copy.index_fill_(axis, torch.from_numpy(positions).to(tensor.device), 0)
    return copy


def masked_output(
    model: nn.Module,
    example: Example,
    tensors: Mapping[str, Tensor],
    kept: Mapping[str, Mapping[int, IntArray]],
    call: Callable[[nn.Module, Example], Any] | None = None,
) -> Any:
    """The dense model's output on the example with all but the kept positions masked. The model is not changed.

    `tensors` are the model's by name. `call(model, example)` replaces the example's own call.
    """
    copies = []
    for name, axes in kept.items():
        removed = {axis: np.delete(np.arange(tensors[name].shape[axis]), keep) for axis, keep in axes.items()}
        copies.append(masked(tensors[name], removed))
    with temporary_data([tensors[name] for name in kept], copies):
        return example.call(model) if call is None else call(model, example)
