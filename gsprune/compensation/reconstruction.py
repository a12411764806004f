"""The criterion that scores a unit by the error that remains if the other units compensate for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch

from gsprune.arrays import Float32Array, Float64Array
from gsprune.compensation.dense_inputs import DenseInputs, find_dense_inputs
from gsprune.compensation.removal_loss import RemovalLoss
from gsprune.errors import ScoreError
from gsprune.importance import Criterion, ScoreSource, register_criterion
from gsprune.tracing.graph import Group

__all__ = ["Reconstruction", "greedy_scores"]


@register_criterion("reconstruction")
class Reconstruction(Criterion):
    """x_u = Σ over the consumers of |w_u|² / [C⁻¹]_uu: the loss of their outputs that no linear map can restore.

    C is the second moment of a consumer's inputs on the calibration data, without means if a bias can take a constant,
    plus a ridge. w_u are the weights that read unit u. The cost is the mean square change of the consumer's outputs if
    the unit is removed and the weights of the others are refitted (optimal brain surgeon). So the cost of a duplicate
    is almost zero, even if its weights are large. For a convolution it is an approximation, in which the offsets of the
    kernel are independent.

    The units of a group are removed one by one, the cheapest first, with weights and C⁻¹ updated. The score of a unit
    is the largest cost up to its own removal. So the scores have the order of the removals, for scope "local", and are
    costs of single units, which scope "global" compares.

    Consumers whose inputs cannot be described (`gsprune.compensation`) do not count; the report names them. The moments
    are those of all ranks of a process group.

    Source: Hassibi and Stork 1993, Second order derivatives for network pruning: optimal brain surgeon,
    https://proceedings.neurips.cc/paper/1992/hash/303ed4c69846ab36c2904d3ba8573050-Abstract.html
    """

    reads_data: ClassVar[bool] = True
    needs_calibration: ClassVar[bool] = True

    def statistics(self, source: ScoreSource) -> dict[str, Float64Array]:
        """One row of greedy scores per group; see `Criterion.statistics`."""
        if source.model is None or not source.calibration:
            raise ScoreError(
                "importance 'reconstruction' needs the model and `calibration` data; call it through gsprune.prune_step"
            )
        names = {group.name for group in source.groups}
        inputs, left_out = find_dense_inputs(source.model, source.graph, names, source.calibration)
        _check_finite(source, inputs)
        _check_consumers(source.groups, inputs, left_out)
        if left_out:
            reasons = "; ".join(f"{weight}: {reason}" for weight, reason in left_out.items())
            source.notes.append(f"importance 'reconstruction' does not count these consumers: {reasons}")
        if source.stack is not None:
            for name, each in inputs.items():
                each.moments = each.moments.of_all_ranks(name, source.stack)
        scores = {group.name: greedy_scores(_losses(group, source, inputs), group.num_units) for group in source.groups}
        return {name: row[np.newaxis] for name, row in scores.items()}


def greedy_scores(losses: Sequence[RemovalLoss], num_units: int) -> Float64Array:
    """(units,) float64, the largest cost up to the removal of each unit; the cheapest unit is always removed next.

    Of equal costs the higher index is removed first. Positive scores rise strictly in float32, because a tie would be
    broken by index and not by the order of the removals. The losses are those of all consumers, and are changed.
    """
    costs, order = np.zeros(num_units), np.zeros(num_units, dtype=np.int64)
    is_left = np.ones(num_units, dtype=bool)
    for step in range(num_units):
        each = np.where(is_left, sum(loss.costs() for loss in losses), np.inf)
        order[step] = num_units - 1 - int(np.argmin(each[::-1]))
        costs[step] = each[order[step]]
        is_left[order[step]] = False
        for loss in losses:
            loss.remove(int(order[step]))
    scores = np.zeros(num_units)
    scores[order] = _strictly_rising(np.maximum.accumulate(costs.clip(min=0)).astype(np.float32))
    return scores


def _strictly_rising(values: Float32Array) -> Float32Array:
    """Replace positive values that do not rise by the next larger number; `values` never fall."""
    for i in range(1, len(values)):
        if 0 < values[i] <= values[i - 1]:
            values[i] = np.nextafter(values[i - 1], np.float32(np.inf))
    return values


def _losses(group: Group, source: ScoreSource, inputs: Mapping[str, DenseInputs]) -> list[RemovalLoss]:
    """The losses of all consumers of a group."""
    losses = []
    for member in group.members:
        found = inputs.get(member.tensor)
        if member.role == "in" and found is not None:
            matrices = found.matrices(source.tensors[member.tensor])
            for factor, matrix, units in zip(found.factors, matrices, found.units(member.units), strict=True):
                losses.append(RemovalLoss(factor, matrix, units, group.num_units, found.degrees_of_freedom))
    return losses


def _check_finite(source: ScoreSource, inputs: Mapping[str, DenseInputs]) -> None:
    for name, each in inputs.items():
        if not torch.isfinite(each.moments.factor).all():
            raise ScoreError(
                f"importance 'reconstruction': the inputs of {name!r} are NaN or infinite on `calibration`; pass inputs"
                " of the kind that the network works on"
            )
        if not torch.isfinite(source.tensors[name]).all():
            raise ScoreError(f"importance 'reconstruction': {name!r} has weights that are NaN or infinite")


def _check_consumers(groups: Sequence[Group], inputs: Mapping[str, DenseInputs], left_out: Mapping[str, str]) -> None:
    """Raise an error for groups without a consumer in `inputs`: all of their scores would be zero."""
    without = [g for g in groups if not any(m.role == "in" and m.tensor in inputs for m in g.members)]
    if not without:
        return
    members = {member.tensor for group in without for member in group.members}
    reasons = "".join(f"; {weight}: {reason}" for weight, reason in left_out.items() if weight in members)
    names = ", ".join(repr(group.name) for group in without)
    raise ScoreError(
        f"importance 'reconstruction' finds no weight that reads the channels of {names}{reasons}. Keep their widths"
        f" with ignore=({names},), or take another importance, e.g. 'l1'"
    )
