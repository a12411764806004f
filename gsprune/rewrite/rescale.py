"""Optional rescaling of kept output channels after a step (PAPER 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gsprune.rewrite.plan import RewritePlan
from gsprune.tracing.graph import Graph

__all__ = ["rescaled"]


def rescaled(
    plan: RewritePlan,
    replacements: Sequence[Tensor],
    graph: Graph,
    tensors: Mapping[str, Tensor],
) -> list[tuple[Tensor, Tensor]]:
    """Multiply the kept output channels of every weight that lost inputs, and their biases, in place.

        factor_o = max(‖w_o before‖₂ / ‖w_o after‖₂, 1), and 1 where both norms are 0 or the row became 0

    Args:
        plan: the step.
        replacements: the sliced tensors; the model's weights and biases among them are changed.
        graph: the groups before the step; a weight's output axis is the one with role "out".
        tensors: the model's tensors before the step.

    Returns:
        (bias, replacement) for biases that the plan does not slice (of a head, say), to be swapped besides.
    """
    unsliced: list[tuple[Tensor, Tensor]] = []
    out_axes = {m.tensor: m.axis for group in graph.groups for m in group.members if m.role == "out"}
    in_axes = {(m.tensor, m.axis) for group in graph.groups for m in group.members if m.role == "in"}
    for name, index in plan.model_index.items():
        weight = tensors[name]
        if weight.ndim < 2 or not any((name, axis) in in_axes for axis, _ in plan.keeps(name)):
            continue
        out = out_axes.get(name, 0)
        kept = [keep for axis, keep in plan.keeps(name) if axis == out]
        dense = weight.detach()
        if kept:
            dense = dense.index_select(out, torch.from_numpy(kept[0]).to(weight.device))
        small = replacements[index]
        before, after = _norms(dense, out), _norms(small, out)
        factor = torch.where(after > 0, before / after, 1.0).clamp_(min=1.0).to(small.dtype)
        small.mul_(factor.reshape([-1 if axis == out else 1 for axis in range(small.ndim)]))
        bias = _bias_of(name)
        if bias in plan.model_index:
            replacements[plan.model_index[bias]].mul_(factor)
        elif bias in tensors:
            unsliced.append((tensors[bias], tensors[bias].detach() * factor))
    return unsliced


def _norms(weight: Tensor, axis: int) -> Tensor:
    """L2 norms along everything but `axis`, in float64."""
    norms: Tensor = weight.movedim(axis, 0).flatten(1).double().norm(dim=1)
    return norms


def _bias_of(weight: str) -> str:
    head, dot, _ = weight.rpartition(".")
    return f"{head}{dot}bias"
