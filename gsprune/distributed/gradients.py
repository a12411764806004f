"""Sums the gradients of several ranks in a few flat buckets."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from gsprune.distributed.ranks import Ranks

__all__ = ["GradientSum"]

_BUCKET_BYTES = 25 * 2**20  # as in DDP: large enough to hide latency, small enough to overlap copies


class GradientSum:
    """Replaces every gradient by its sum over the ranks.

    Each rank differentiates its part of the loss over the whole batch, so the sum is the gradient of the whole loss.
    The buckets are allocated again if the parameters' shapes have changed, as in a pruning step.

    Args:
        parameters: the network's parameters, in the same order on all ranks.
        ranks: the ranks.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], ranks: Ranks) -> None:
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._ranks = ranks
        self._shapes: list[torch.Size] = []
        self._buckets: list[tuple[Tensor, list[Tensor]]] = []

    @torch.no_grad()
    def __call__(self) -> None:
        """Sum the gradients. A missing gradient counts as zeros.

        Raises:
            DistributedError: a rank has ended or does not answer.
        """
        if self._ranks.is_alone:
            return
        shapes = [parameter.shape for parameter in self._parameters]
        if shapes != self._shapes:
            self._shapes, self._buckets = shapes, self._allocate()
        remaining = iter(self._parameters)
        for flat, views in self._buckets:
            members = [next(remaining) for _ in views]
            for view, parameter in zip(views, members, strict=True):
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                view.copy_(parameter.grad)
            self._ranks.sum(flat)
            for view, parameter in zip(views, members, strict=True):
                assert parameter.grad is not None
                parameter.grad.copy_(view)

    def _allocate(self) -> list[tuple[Tensor, list[Tensor]]]:
        """New buckets for consecutive parameters of one dtype and device, each with a view per parameter."""
        runs: list[list[nn.Parameter]] = []
        size = 0
        for parameter in self._parameters:
            bytes_ = parameter.numel() * parameter.element_size()
            same = bool(runs) and (runs[-1][0].dtype, runs[-1][0].device) == (parameter.dtype, parameter.device)
            if not same or size + bytes_ > _BUCKET_BYTES:
                runs.append([])
                size = 0
            runs[-1].append(parameter)
            size += bytes_
        buckets = []
        for run in runs:
            flat = torch.zeros(sum(parameter.numel() for parameter in run), dtype=run[0].dtype, device=run[0].device)
            parts = torch.split(flat, [parameter.numel() for parameter in run])
            buckets.append((flat, [part.view(p.shape) for part, p in zip(parts, run, strict=True)]))
        return buckets
