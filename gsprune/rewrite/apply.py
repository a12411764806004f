"""Carry out a planned rewrite inside a transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from gsprune.backends import Backend, get_backend
from gsprune.rewrite.plan import RewritePlan, plan_rewrite, subjects_of
from gsprune.rewrite.tensors import canonical_tensors, named_tensors
from gsprune.rewrite.transaction import Transaction
from gsprune.tracing.graph import IntArray

__all__ = ["apply_plan", "rewrite_to", "sliced"]


def sliced(plan: RewritePlan, backend: Backend) -> list[Tensor]:
    """The replacement of every tensor of the plan; the tensors themselves are only read."""
    return backend.slice(plan.tensors, plan.patterns, plan.pattern_of)


def apply_plan(transaction: Transaction, plan: RewritePlan, replacements: Sequence[Tensor]) -> None:
    """Swap all tensors and set all entries of the plan."""
    transaction.swap(plan.tensors, replacements)
    transaction.set_entries(plan.entries)


def rewrite_to(
    model: nn.Module,
    kept: Mapping[str, Mapping[int, IntArray]],
    *,
    transaction: Transaction,
    optimizers: Sequence[Optimizer] = (),
    attributes: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Reduce a dense model to recorded widths; no tracing and no check.

    Args:
        model: a model of the dense widths.
        kept: tensor -> {axis: sorted kept positions}.
        transaction: the caller's, so that what it does next is taken back together with this.
        optimizers: whose states follow.
        attributes: module name -> {attribute: value} of user code to set besides.

    Raises:
        RewriteError: a gradient or a state cannot be sliced.
    """
    tensors = canonical_tensors(model)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    first_name = {id(tensor): name for name, tensor in tensors.items()}
    aliases = {name: first_name[id(tensor)] for name, tensor in named_tensors(model).items() if name not in tensors}
    removed = {
        name: {axis: np.setdiff1d(np.arange(shapes[name][axis]), keep) for axis, keep in axes.items()}
        for name, axes in kept.items()
    }
    plan = plan_rewrite(subjects_of(model, (), shapes, aliases), shapes, aliases, removed, optimizers)
    if plan.tensors:
        backend = get_backend("auto", plan.tensors[0].device)
        apply_plan(transaction, plan, sliced(plan, backend))
    modules = dict(model.named_modules())
    entries = [
        (modules[name].__dict__, attribute, value)
        for name, values in (attributes or {}).items()
        for attribute, value in values.items()
    ]
    transaction.set_entries(entries)
