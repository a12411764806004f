"""Structured pruning without groups: whole filters become zero, each layer on its own."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from gsprune.baselines.masks import Layer, MaskedPruning, keep_highest, masked_count

__all__ = ["StructuredPruning"]


@final
class StructuredPruning(MaskedPruning):
    """In every layer the filters of least L1 norm are masked with their biases, the same fraction in each.

    The layers that a residual stream ties together choose different filters, so hardly a channel of the stream could
    be removed: that is what groups are for. The dense columns behind a flatten and the inputs of the next layer stay.

    Source: Li et al. 2017, https://arxiv.org/abs/1608.08710
    """

    def _choose(self, layer: Layer, weight_mask: Tensor, sparsity: float) -> dict[str, Tensor]:
        norms = layer.weight.detach().double().abs().flatten(1).sum(1)
        present = weight_mask.flatten(1).any(1)
        keep = keep_highest(norms, present, masked_count(len(norms), sparsity))
        masks = {"weight": keep.view(-1, *[1] * (layer.weight.dim() - 1)).expand_as(layer.weight).contiguous()}
        if layer.bias is not None:
            masks["bias"] = keep
        return masks

    def _fraction(self) -> float:
        alive = [self.masks[f"{name}.weight"].flatten(1).any(1) for name in self._layers]
        return 1.0 - float(torch.cat(alive).float().mean())
