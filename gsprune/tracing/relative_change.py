"""The distance between two outputs of a network."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gsprune.tracing.outputs import tensors_in

__all__ = ["relative_change"]


def relative_change(output: Any, reference: Any) -> float:
    """|output - reference| / |reference| over all floating-point tensors in two outputs; 0 if the reference is zero."""
    flat, flat_reference = _flat(output), _flat(reference)
    scale = float(flat_reference.norm())
    return float((flat - flat_reference).norm()) / scale if scale > 0 else 0.0


def _flat(output: Any) -> Tensor:
    """All floating-point outputs, flattened and concatenated, in float64 on the CPU."""
    parts = [tensor for tensor in tensors_in(output) if tensor.is_floating_point()]
    return torch.cat([part.detach().to("cpu", torch.float64).reshape(-1) for part in parts] or [torch.zeros(0)])
