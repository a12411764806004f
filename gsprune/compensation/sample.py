"""Samples of a consumer's inputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gsprune.compensation.spread import spread
from gsprune.compensation.uses import Use

__all__ = ["Sample"]


class Sample:
    """At most `max_rows` rows of the inputs of one use in the dense network, spread evenly with jitter from the seed.

    Of the pruned network, only the inputs at the weight's first use in a batch are read, and only if they belong to
    the same samples.

    Attributes:
        dense: (rows, inputs) of the dense network.
        is_of_matrix: True if the weight is a matrix and not a convolution's.
        is_routed: True if indices have selected the samples.
    """

    def __init__(self, use: Use, max_rows: int, seed: Sequence[int], is_first: bool) -> None:
        self.num_rows, self._is_first = _num_rows(use), is_first
        self.is_of_matrix = use.channel_axis < 0
        self.is_routed, self._route = use.route is not None, use.route
        self._rows = torch.from_numpy(spread(max_rows, self.num_rows, seed)).to(use.inputs.device)
        self.dense = self._of(use)

    def matches(self, use: Use) -> bool:
        """True if the pruned network's use has the same positions of the same samples."""
        return _num_rows(use) == self.num_rows and use.route == self._route

    def pruned(self, use: Use) -> Tensor | None:
        """(rows, kept inputs) of the pruned network; None at another use than the first, and of other samples."""
        return self._of(use) if self._is_first and self.matches(use) else None

    def _of(self, use: Use) -> Tensor:
        x = use.inputs.detach().movedim(use.channel_axis, -1)
        return x[self._rows] if x.ndim == 2 else x[torch.unravel_index(self._rows, x.shape[:-1])]


def _num_rows(use: Use) -> int:
    """The number of vectors of inputs that a use reads."""
    return use.inputs.numel() // use.inputs.shape[use.channel_axis]
