"""Keep the scale of attention that divides by the root of a head's width, when that width shrinks."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np
import torch
from torch import Tensor

from gsprune.rewrite.binding import Binding
from gsprune.rewrite.plan import RewritePlan
from gsprune.tracing.structure import Structure

__all__ = ["keep_attention_scale"]


def keep_attention_scale(
    plan: RewritePlan,
    replacements: Sequence[Tensor],
    bindings: Sequence[Binding],
    before: Structure,
    after: Structure,
) -> None:
    """Multiply the rows that make an attention's queries, in place, and divide their gradients.

        row = row * sqrt(rows after / rows before): q.k / sqrt(d after) is q.k / sqrt(d before) as it was

    Args:
        plan: the step.
        replacements: the sliced tensors; those of the model and of its followers are changed.
        bindings: the model's, then its followers'.
        before: the structure before the step; `Graph.queries` of its traced graph names the rows.
        after: the structure after it.
    """
    queries = before.traced.queries
    if not queries:
        return
    index_of = {id(tensor): index for index, tensor in enumerate(plan.tensors)}
    old, new = before.kept(), after.kept()
    for entry in queries:
        rows = np.arange(before.traced.shapes[entry.tensor][entry.axis])
        was = np.isin(old.get(entry.tensor, {}).get(entry.axis, rows), entry.rows)
        stays = np.isin(new.get(entry.tensor, {}).get(entry.axis, rows), entry.rows)
        if was.sum() == stays.sum():
            continue
        positions = torch.from_numpy(np.flatnonzero(stays))
        factor = sqrt(stays.sum() / was.sum())
        for binding in bindings:
            for tensor, canonical in zip(binding.tensors.values(), binding.canonical, strict=True):
                if canonical != entry.tensor or id(tensor) not in index_of:
                    continue
                _multiply(replacements[index_of[id(tensor)]], entry.axis, positions, factor)
                if tensor.grad is not None:
                    _multiply(replacements[index_of[id(tensor.grad)]], entry.axis, positions, 1.0 / factor)


def _multiply(tensor: Tensor, axis: int, positions: Tensor, factor: float) -> None:
    rows = positions.to(tensor.device)
    tensor.index_copy_(axis, rows, tensor.index_select(axis, rows) * factor)
