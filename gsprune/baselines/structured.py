"""Structured pruning without groups: whole filters become zero, in each layer independently."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from gsprune.baselines.masks import Layer, MaskedPruning, keep_highest, masked_count

__all__ = ["StructuredPruning"]


@final
class StructuredPruning(MaskedPruning):
    """Masks the filters of least L1 norm with their biases, the same fraction in every layer.

    Layers on one residual stream choose different filters, so hardly any channel of the stream could be removed. (Group
    pruning solves this.) The weights that read a masked filter's output are not masked.

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

    def _masked_fraction(self) -> float:
        alive = [self.masks[f"{name}.weight"].flatten(1).any(1) for name in self._layers]
        return 1.0 - float(torch.cat(alive).float().mean())
