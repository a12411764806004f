"""Criteria that estimate the change of the loss from the weights and their gradients."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from gsprune.errors import ScoreError
from gsprune.importance.criterion import Criterion, ScoreSource, register_criterion
from gsprune.importance.statistics import FlatStatistics, member_sums, summed_axes
from gsprune.importance.weights import scored_members

__all__ = ["Hessian", "Taylor"]


@register_criterion("taylor")
class Taylor(Criterion):
    """x_mu = Σ |w · g| over all elements of unit u in member m; with `joint`, |Σ w · g|.

    The first-order estimate of the change of the loss if elements are removed: each element by itself, so that effects
    cannot cancel, or with `joint` the whole unit at once. g is ``.grad`` of the last backward. A frozen weight without
    a gradient is skipped if another weight of its group has a gradient.

    Source: Molchanov et al. 2019, Importance estimation for neural network pruning, sec. 3,
    https://arxiv.org/abs/1906.10771

    Args:
        joint: sum before taking the magnitude, so that the elements of a unit can cancel each other.
    """

    reads_data: ClassVar[bool] = True

    def __init__(self, joint: bool = False) -> None:
        self.joint = joint

    def statistics(self, source: ScoreSource) -> FlatStatistics:
        """First-order losses; see `Criterion.statistics`."""
        gradients, skipped = _gradients(source, "taylor")
        if not self.joint:
            return member_sums(source, "abs_product", gradients, skipped)
        return member_sums(source, "product", gradients, skipped).map(np.abs)


@register_criterion("hessian")
class Hessian(Criterion):
    """x_mu = ½ Σ w² · g² over all elements of unit u in member m.

    Optimal brain damage: the second-order loss ½ Σ h w², with the diagonal h of the Hessian replaced by the squared
    gradient (the empirical Fisher information of the batch behind ``.grad``). A frozen weight without a gradient is
    skipped if another weight of its group has a gradient.

    Source: LeCun et al. 1989, Optimal brain damage,
    https://proceedings.neurips.cc/paper/1989/hash/6c9882bbac1c7093bd25041881277658-Abstract.html
    """

    reads_data: ClassVar[bool] = True

    def statistics(self, source: ScoreSource) -> FlatStatistics:
        """Second-order losses; see `Criterion.statistics`."""
        return member_sums(source, "square_product", *_gradients(source, "hessian")).map(lambda values: 0.5 * values)


def _gradients(source: ScoreSource, criterion: str) -> tuple[list[Tensor], frozenset[str]]:
    """The gradients of the summed weights, in the order of the weights, and the names of skipped frozen weights."""
    gradients = {name: source.tensors[name].grad for name in summed_axes(source).names}
    present = {name: each for name, each in gradients.items() if each is not None and each.layout is torch.strided}
    skipped = frozenset(gradients.keys() - present.keys())
    if skipped:
        _check_skipped(source, criterion, skipped)
    return [present[name] for name in summed_axes(source, skipped).names], skipped


def _check_skipped(source: ScoreSource, criterion: str, skipped: frozenset[str]) -> None:
    """Raise an error unless all skipped weights are frozen, and every group has another weight."""
    for group in source.groups:
        members = scored_members(group, source)
        for member in members:
            weight = source.tensors[member.tensor]
            if member.tensor not in skipped:
                continue
            if weight.grad is not None:
                raise ScoreError(
                    f"importance {criterion!r} cannot read the gradient of {member.tensor!r} (group {group.name!r}),"
                    f" which is {weight.grad.layout}: make it dense (`parameter.grad = parameter.grad.to_dense()`), or"
                    " call optimizer.zero_grad() and use importance='l1'"
                )
            if weight.requires_grad:
                raise ScoreError(
                    f"importance {criterion!r} needs the gradient of {member.tensor!r} (group {group.name!r}), which "
                    f"has none: prune after loss.backward() and before optimizer.zero_grad(), keep the group's width "
                    f"with ignore=({group.name!r},), or use importance='l1'"
                )
        if skipped.issuperset(member.tensor for member in members):
            raise ScoreError(
                f"importance {criterion!r} needs a gradient in group {group.name!r}, whose weights are all frozen: "
                f"keep the group's width with ignore=({group.name!r},), or use importance='l1'"
            )
