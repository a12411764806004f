"""Second moments of a consumer's inputs in the dense network and in the pruned one, as a triangular factor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Moments"]


@dataclass
class Moments:
    """Moments of the inputs that are left, z, and of what is lost, r = x - A0 z.

    A0 z are the kept inputs at their places and zeros at those of the removed ones. The sums over samples of all
    products of (1, z, r) are R^T R for the triangular R that is kept here: R has twice the digits of the sums. It is
    never larger than the moments are.

    Attributes:
        factor: (groups, rows, 1 + kept + inputs) float64, R; there is one group except in a grouped convolution.
        kept: the size of z.
        samples: how many samples were added.
    """

    factor: Tensor
    kept: int
    samples: int = 0

    @classmethod
    def empty(cls, groups: int, inputs: int, kept: int, device: torch.device) -> Moments:
        """Moments of no samples."""
        return cls(torch.zeros(groups, 0, 1 + kept + inputs, dtype=torch.float64, device=device), kept)

    def add(self, dense: Tensor, pruned: Tensor, kept: Tensor, padding: float) -> None:
        """Add samples.

        Zero padding counts as samples in which only the constant 1 is not zero.

        Args:
            dense: (groups, samples, inputs), the consumer's inputs in the dense network.
            pruned: (groups, samples, kept), those in the pruned network.
            kept: (groups, kept), which of the inputs the pruned network has.
            padding: the share of zero padding among what the consumer reads, in [0, 1).
        """
        z = pruned.double()
        lost = dense.double().scatter_add(2, kept[:, None].expand(-1, z.shape[1], -1), -z)
        added = torch.cat([torch.ones_like(z[:, :, :1]), z, lost], 2)
        padded = torch.zeros_like(added[:, :1])
        padded[:, :, 0] = (z.shape[1] * padding / (1 - padding)) ** 0.5
        self.factor = torch.linalg.qr(torch.cat([self.factor, added, padded], 1), mode="r").R
        self.samples += z.shape[1]
