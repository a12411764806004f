"""Unstructured magnitude pruning: single weights become zero, no shape changes."""

from __future__ import annotations

from typing import final

from torch import Tensor

from gsprune.baselines.masks import Layer, MaskedPruning, keep_highest, masked_count

__all__ = ["UnstructuredPruning"]


@final
class UnstructuredPruning(MaskedPruning):
    """Masks the weights of least magnitude, the same fraction in every layer. Biases stay.

    Source: Zhu & Gupta 2017, https://arxiv.org/abs/1710.01878; in RL: Graesser et al. 2022,
    https://arxiv.org/abs/2206.10369
    """

    def _choose(self, layer: Layer, weight_mask: Tensor, sparsity: float) -> dict[str, Tensor]:
        weight = layer.weight.detach()
        return {"weight": keep_highest(weight.abs(), weight_mask, masked_count(weight.numel(), sparsity))}

    def _masked_fraction(self) -> float:
        masks = [self.masks[f"{name}.weight"] for name in self._layers]
        return 1.0 - float(sum(mask.sum() for mask in masks)) / sum(mask.numel() for mask in masks)
