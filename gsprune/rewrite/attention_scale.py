"""Keeps the scale of attention that divides by the root of a head's width, when that width shrinks.

The code computes the scale, so only the rows that make the queries can compensate for it. Rows r become c r. Gradients
and first moments of an optimizer are divided by c, second moments by c squared. Training goes on as if the network had
been trained with scaled rows from the start. That differs from training the masked network: a step of Adam is as large
as before, but the rows are smaller. No state of an optimizer can compensate for that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import sqrt

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer, RMSprop

from gsprune.arrays import IntArray
from gsprune.rewrite.plan import RewritePlan
from gsprune.tracing.graph import Queries
from gsprune.tracing.structure import Structure

__all__ = ["keep_attention_scale", "multiply_rows", "present_rows"]

# State of torch.optim's optimizers -> power of the rows' factor; gradients have -1. Other states have no scale:
# Adadelta's and Rprop's steps, counters, and the momentum of RMSprop, which averages steps and not gradients.
_EXPONENTS = {
    **dict.fromkeys(("exp_avg", "momentum_buffer", "grad_avg", "exp_inf", "prev"), -1),
    **dict.fromkeys(("exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum", "variance", "row_var"), -2),
    # Copies and averages of the parameter itself: torch's ASGD, Lookahead, SAM, schedule-free, Prodigy.
    **dict.fromkeys(("ax", "slow_param", "slow_params", "slow_buffer", "slow_weights", "old_p", "z", "p0"), 1),
}


def keep_attention_scale(
    plan: RewritePlan,
    replacements: Sequence[Tensor],
    before: Structure,
    after: Structure,
    optimizers: Sequence[Optimizer],
) -> bool:
    """Multiply the rows that make an attention's queries, in place, and divide their gradients and moments.

        row = row * sqrt(rows after / rows before), so that q.k / sqrt(d) does not change

    The rows are those that `Graph.queries` names, of the model and its followers, in the sliced `replacements`.

    Raises:
        RewriteError: an optimizer may keep copies of the rows.

    Returns:
        True if rows below float64 were scaled, which rounds their products.
    """
    queries = before.traced.queries
    if not queries:
        return False
    index_of = {id(tensor): index for index, tensor in enumerate(plan.tensors)}
    old, new = before.kept(), after.kept()
    rounded = False
    for entry in queries:
        num_before, positions = len(present_rows(old, entry)), present_rows(new, entry)
        if num_before == len(positions):
            continue
        plan.refuse_copies_of_weights()
        factor = sqrt(len(positions) / num_before)
        for binding in plan.bindings:
            for tensor, canonical in zip(binding.tensors.values(), binding.canonical, strict=True):
                if canonical != entry.tensor or id(tensor) not in index_of:
                    continue
                multiply_rows(replacements[index_of[id(tensor)]], entry.axis, positions, factor)
                rounded |= tensor.dtype is not torch.float64
                if tensor.grad is not None:
                    multiply_rows(replacements[index_of[id(tensor.grad)]], entry.axis, positions, 1.0 / factor)
                for moment, exponent in _moments(optimizers, tensor):
                    index = index_of.get(id(moment))
                    if index is not None and moment.shape[entry.axis] == tensor.shape[entry.axis]:
                        multiply_rows(replacements[index], entry.axis, positions, factor**exponent)
    return rounded


def _moments(optimizers: Sequence[Optimizer], parameter: Tensor) -> Iterator[tuple[Tensor, int]]:
    """State tensors of a parameter that change with the scale of its rows, each with the power of the factor."""
    for optimizer in optimizers:
        for key, value in optimizer.state.get(parameter, {}).items():
            exponent = 0 if isinstance(optimizer, RMSprop) and key == "momentum_buffer" else _EXPONENTS.get(key, 0)
            if exponent and isinstance(value, Tensor) and value.ndim == parameter.ndim:
                yield value, exponent


def present_rows(kept: Mapping[str, Mapping[int, IntArray]], entry: Queries) -> IntArray:
    """Present positions of the rows that make queries; `kept` is that of the present `Structure`."""
    positions = kept.get(entry.tensor, {}).get(entry.axis)
    return entry.rows if positions is None else np.flatnonzero(np.isin(positions, entry.rows))


def multiply_rows(tensor: Tensor, axis: int, positions: IntArray, factor: float) -> None:
    """Multiply the positions of an axis, in place."""
    rows = torch.from_numpy(positions).to(tensor.device)
    tensor.index_copy_(axis, rows, tensor.index_select(axis, rows) * factor)
