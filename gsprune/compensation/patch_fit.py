"""The fit of one convolution on whole patches, with a free coefficient for every weight of the kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from gsprune.compensation.consumer import Consumer
from gsprune.compensation.fitting import ConsumerFit
from gsprune.compensation.moments import Moments, Stack
from gsprune.compensation.patches import PatchSample
from gsprune.compensation.sample import Sample
from gsprune.compensation.solve import Map, solve
from gsprune.compensation.targets import TargetWeight
from gsprune.compensation.uses import Use

__all__ = ["PatchFit"]


@dataclass
class PatchFit:
    """Predicts the lost part of a convolution's outputs from the patches of its kept inputs.

    The channels are fitted first, with one map for all positions of the kernel. The patches predict what this map does
    not explain. So a dependency between channels holds at every position, also at a border that no sampled patch has.

    The model's weight is the first target.
    """

    consumer: Consumer
    targets: Sequence[TargetWeight]
    map: Map | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._channels = ConsumerFit(self.consumer, self.targets, linear=True)
        self._base = torch.cat([target.base.double().flatten(1) for target in self.targets])
        rows = torch.cat([target.rows(self.consumer).flatten(1) for target in self.targets])
        self._lengths = rows.square().sum(1).sqrt()
        outputs, inputs = self._base.shape
        self._moments = Moments(torch.arange(inputs, device=rows.device)[None], outputs)

    def add(self, use: Use, sample: Sample | PatchSample) -> None:
        """Add a sample; `use` is the weight's first use in the pruned network."""
        assert isinstance(sample, PatchSample)
        z = sample.pruned(use).double()
        lost = sample.products.double() - z @ self._base.T
        self._moments.add_lost(z[None], lost[None])
        if sample.channels is not None:
            self._channels.add(use, sample.channels)

    def is_finite(self) -> bool:
        """False if a sample was NaN or infinite."""
        return self._moments.is_finite()

    def solve(self, stack: Stack | None) -> None:
        """Find the map from the samples so far of all ranks."""
        moments = self._moments.of_all_ranks(self.consumer.weight, stack)
        lost, weight, constant = moments.mean_square(), moments.factor.new_zeros(()), moments.factor.new_zeros(())
        has_constant = bool(self.targets[0].constants)
        if self._channels.is_finite():
            self._channels.solve(stack)
            changes, shifts = zip(*map(self._channels.changes, self.targets), strict=True)
            weight = torch.cat([change.flatten(1) for change in changes])[None]
            constant = torch.cat(shifts)[None] if has_constant else constant.expand(1, weight.shape[1])
            moments = moments.without(weight, constant)
        found = solve(moments, has_constant, self._lengths)
        assert found.weight is not None
        constant_sum = found.constant + constant if found.constant is not None else None
        self.map = Map(found.weight + weight, constant_sum, lost, found.unexplained)

    def apply(self) -> None:
        """Write the weights and biases. They must be written again after every forward, which restores buffers."""
        if self.map is None:
            return
        assert self.map.weight is not None
        for number, change in enumerate(self.map.weight[0].chunk(len(self.targets))):
            target = self.targets[number]
            target.pruned.copy_(target.base.double() + change.reshape(target.base.shape))
            if self.map.constant is not None:
                target.add_constant(self.map.constant[0].chunk(len(self.targets))[number])

    def explained(self) -> float | None:
        """The share of the lost mean square that the map explains; None without a map."""
        if self.map is None:
            return None
        own = slice(len(self.targets[0].base))
        lost, unexplained = (float(value[0, own].sum()) for value in (self.map.lost, self.map.unexplained))
        weights = float(self._base[own].square().sum())
        return self._moments.explained(lost, unexplained, weights, self.targets[0].pruned.dtype)
