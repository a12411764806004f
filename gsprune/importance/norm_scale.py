"""A criterion that reads the scales of normalisation layers."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from gsprune.arrays import Float64Array
from gsprune.errors import ScoreError
from gsprune.importance.criterion import Criterion, ScoreSource, register_criterion
from gsprune.importance.weights import unit_sums
from gsprune.tracing.graph import Group, Member, layer_of

__all__ = ["NormScale"]


@register_criterion("bn_scale")
class NormScale(Criterion):
    """x_mu = Σ |γ| over all positions of unit u in norm layer m.

    γ is the one-axis ``weight`` of a batch, instance, group, layer or RMS norm (not of a PReLU). The criterion ranks
    channels well only if training has pushed γ towards zero, e.g. with an L1 penalty.

    Source: Liu et al. 2017, Learning efficient convolutional networks through network slimming, sec. 3,
    https://arxiv.org/abs/1708.06519
    """

    def statistics(self, source: ScoreSource) -> dict[str, Float64Array]:
        """Magnitudes of the scales; see `Criterion.statistics`."""
        return {group.name: self._of_group(group, source) for group in source.groups}

    def _of_group(self, group: Group, source: ScoreSource) -> Float64Array:
        rows = [
            unit_sums(
                source.tensors[member.tensor].detach().abs().to("cpu", torch.float64).numpy(), member, group.num_units
            )
            for member in group.members
            if _is_scale(member, source)
        ]
        if not rows:
            raise ScoreError(
                f"importance 'bn_scale' needs a norm layer with a weight, but group {group.name!r} has none: use "
                f"another importance, e.g. 'l1'; in Python, ignore=({group.name!r},) keeps the group's width, too"
            )
        return np.stack(rows)


def _is_scale(member: Member, source: ScoreSource) -> bool:
    if member.tensor.rpartition(".")[2] != "weight" or source.tensors[member.tensor].ndim != 1:
        return False
    if source.structure.traced.is_copy(member.tensor):
        return False
    return source.model is None or not isinstance(source.model.get_submodule(layer_of(member.tensor)), nn.PReLU)
