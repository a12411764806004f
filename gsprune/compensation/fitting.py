"""One consumer during a step: its moments and its map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gsprune.compensation.consumer import Consumer
from gsprune.compensation.moments import Moments, Stack
from gsprune.compensation.patches import PatchSample
from gsprune.compensation.sample import Sample
from gsprune.compensation.solve import Map, solve, solve_constant
from gsprune.compensation.targets import TargetWeight
from gsprune.compensation.uses import Use
from gsprune.compensation.weights import as_matrices, from_matrices, in_groups

__all__ = ["ConsumerFit"]


@dataclass
class ConsumerFit:
    """Fits one consumer; without `linear` only the constant. The model's weight is the first target."""

    consumer: Consumer
    targets: Sequence[TargetWeight]
    linear: bool
    map: Map | None = field(default=None, init=False)
    _moments: Moments | None = field(default=None, init=False)
    _use: Use | None = field(default=None, init=False)

    def add(self, use: Use, sample: Sample | PatchSample) -> None:
        """Add a sample; `use` is the weight's first use in the pruned network."""
        assert isinstance(sample, Sample)
        consumer, pruned = self.consumer, sample.pruned(use)
        x = in_groups(sample.dense, consumer.columns, use.groups)
        kept = _kept_in_groups(consumer, use, x.device)
        if pruned is None:
            z = x.gather(2, kept[:, None].expand(-1, x.shape[1], -1))
        else:
            z = in_groups(pruned, consumer.kept_columns, use.groups)
        if self._moments is None:
            self._moments = Moments(kept, x.shape[2])
        self._moments.add(x, z, use.padding)
        self._use = use

    def is_finite(self) -> bool:
        """False if a sample was NaN or infinite."""
        return self._moments is not None and self._moments.is_finite()

    def solve(self, stack: Stack | None) -> None:
        """Find the map from the samples so far of all ranks."""
        assert self._moments is not None
        moments = self._moments.of_all_ranks(self.consumer.weight, stack)
        has_constant = bool(self.targets[0].constants)
        if self.linear:
            self.map = solve(moments, has_constant)
        elif has_constant:
            self.map = solve_constant(moments)

    def apply(self) -> None:
        """Write the weights and biases. They must be written again after every forward, which restores buffers."""
        for target in self.targets if self.map is not None else ():
            change, shift = self.changes(target)
            if change is not None:
                target.pruned.copy_(target.base.double() + change)
            if shift is not None:
                target.add_constant(shift)

    def changes(self, target: TargetWeight) -> tuple[Tensor | None, Tensor | None]:
        """The changes W D of a target's weight and (outputs,) W c of its bias; None if the map has no such part."""
        assert self.map is not None
        assert self._use is not None
        matrices, change, shift = self._matrices(target), None, None
        if self.map.weight is not None:
            products = torch.einsum("goip,gik->gokp", matrices, self.map.weight)
            change = from_matrices(products, target.pruned, self.consumer, self._use.transposed)
        if self.map.constant is not None:
            shift = torch.einsum("goip,gi->go", matrices, self.map.constant).flatten()
        return change, shift

    def explained(self) -> float | None:
        """The share of the lost mean square that the map explains; None without a map."""
        if self.map is None:
            return None
        assert self._moments is not None
        target = self.targets[0]
        weights = self._matrices(target).square().sum((1, 3))
        lost, unexplained = (float((weights * value).sum()) for value in (self.map.lost, self.map.unexplained))
        return self._moments.explained(lost, unexplained, float(weights.sum()), target.pruned.dtype)

    def _matrices(self, target: TargetWeight) -> Tensor:
        """(groups, outputs, inputs, positions) of a target's weight with all its inputs."""
        assert self._use is not None
        return as_matrices(target.rows(self.consumer), self.consumer, self._use.groups, self._use.transposed)


def _kept_in_groups(consumer: Consumer, use: Use, device: torch.device) -> Tensor:
    """(groups, kept) int64, the kept inputs of each group."""
    kept = torch.from_numpy(consumer.kept_channels).to(device)
    if not use.transposed:
        return kept.expand(use.groups, -1)
    firsts = torch.arange(use.groups, device=device) * (len(consumer.columns) // use.groups)
    return kept.reshape(use.groups, -1) - firsts[:, None]
