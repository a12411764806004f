"""Masks of weights, applied to the network, its followers, its gradients and the optimizer's moments."""

from __future__ import annotations

import fnmatch
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gsprune.baselines.method import SparsityMethod, SparsityReport
from gsprune.errors import CheckpointError

__all__ = ["MaskedPruning", "keep_highest", "maskable_layers", "masked_count"]

Layer = nn.Conv2d | nn.Linear


class MaskedPruning(SparsityMethod):
    """Sets weights to zero on a schedule and keeps them at zero. The network's size and speed do not change.

    A masked weight has a gradient, and Adam's moments move it even without one. So the gradients are masked before they
    are clipped, because they must not count in the norm. After the optimizer's step the weights are masked, and so is
    every optimizer state of a weight's shape.
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: Callable[[float], float],
        optimizers: Sequence[torch.optim.Optimizer] = (),
        followers: Sequence[nn.Module] = (),
        ignore: Sequence[str] = (),
    ) -> None:
        """Start without masked weights.

        Args:
            model: the network, whose convolutions and linear layers will be masked.
            schedule: progress in [0, 1] -> sparsity in [0, 1).
            optimizers: the optimizers of the model's parameters.
            followers: modules of the same structure (a target network), which get the same masks.
            ignore: globs of layer names to leave alone, such as the heads.

        Raises:
            ValueError: a glob matches nothing, no layer is left, or a follower has another structure.
        """
        self._layers = maskable_layers(model, ignore)
        self._schedule = schedule
        self._optimizers = tuple(optimizers)
        self._twins = [_twins(self._layers, follower) for follower in followers]
        self._masks: dict[str, Tensor] = {
            name: torch.ones_like(parameter, dtype=torch.bool) for name, parameter in self._parameters()
        }
        self._sparsity = 0.0
        self._requested = 0.0  # sparsity of this process's last step

    @abstractmethod
    def _choose(self, layer: Layer, weight_mask: Tensor, sparsity: float) -> dict[str, Tensor]:
        """New masks of one layer.

        Args:
            layer: the layer with its present weights.
            weight_mask: bool, the present mask of its weight.
            sparsity: the sparsity to reach.

        Returns:
            {"weight": bool mask, "bias": bool mask}; an omitted mask does not change. False entries must stay False.
        """

    @abstractmethod
    def _masked_fraction(self) -> float:
        """The sparsity of the present masks."""

    def is_due(self, progress: float) -> bool:
        """True if the scheduled sparsity differs from that of the last step."""
        return self._schedule(progress) != self._requested

    def step(self, progress: float, frames: Tensor) -> SparsityReport:
        """Mask weights up to the scheduled sparsity. Masked weights stay masked.

        Args:
            progress: fraction of training that is done, in [0, 1].
            frames: not used.
        """
        del frames
        sparsity = self._requested = self._schedule(progress)
        before = self._sum_masks()
        for name, layer in self._layers.items():
            for kind, mask in self._choose(layer, self._masks[f"{name}.weight"], sparsity).items():
                self._masks[f"{name}.{kind}"] = mask
        masked = before - self._sum_masks()
        if masked:
            self._mask_weights()
            self._mask_followers()
            self._sparsity = self._masked_fraction()
        return SparsityReport(changed=masked > 0, sparsity=self._sparsity, units=masked)

    @torch.no_grad()
    def after_backward(self) -> None:
        """Mask the gradients."""
        if self._sparsity == 0:
            return
        for name, parameter in self._parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(self._masks[name])

    def after_optimizer_step(self) -> None:
        """Mask the weights and the optimizer's moments."""
        if self._sparsity > 0:
            self._mask_weights()

    def state_dict(self) -> dict[str, Any]:
        """The masks by parameter name."""
        return dict(self._masks)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the masks of a checkpoint and apply them.

        Raises:
            CheckpointError: the masks are of another network; nothing is changed.
        """
        expected = {name: tuple(mask.shape) for name, mask in self._masks.items()}
        found = {name: tuple(mask.shape) for name, mask in state.items()}
        if expected != found:
            different = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
            raise CheckpointError(f"the checkpoint's masks are of another network: {', '.join(different)} differ")
        self._masks = {name: state[name].to(mask.device, torch.bool) for name, mask in self._masks.items()}
        self._sparsity = self._masked_fraction()
        self._mask_weights()
        self._mask_followers()

    @property
    def masks(self) -> Mapping[str, Tensor]:
        """Parameter name -> bool mask, False for masked weights."""
        return self._masks

    def _parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Names and parameters of the maskable layers."""
        for name, layer in self._layers.items():
            yield f"{name}.weight", layer.weight
            if layer.bias is not None:
                yield f"{name}.bias", layer.bias

    def _sum_masks(self) -> int:
        return int(sum(mask.sum() for mask in self._masks.values()))

    @torch.no_grad()
    def _mask_weights(self) -> None:
        for name, parameter in self._parameters():
            mask = self._masks[name]
            parameter.mul_(mask)
            for optimizer in self._optimizers:
                for value in optimizer.state.get(parameter, {}).values():
                    if isinstance(value, Tensor) and value.shape == parameter.shape:
                        value.mul_(mask)

    @torch.no_grad()
    def _mask_followers(self) -> None:
        for twin in self._twins:
            for name, parameter in twin.items():
                parameter.mul_(self._masks[name])


def maskable_layers(model: nn.Module, ignore: Sequence[str]) -> dict[str, Layer]:
    """Convolutions and linear layers by name, without those whose name matches a glob of `ignore`.

    Raises:
        ValueError: a glob matches no layer, or no layer is left.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    for pattern in ignore:
        if not fnmatch.filter(layers, pattern):
            raise ValueError(f"`ignore` has {pattern!r}, which matches none of the layers {', '.join(layers)}")
    left = {name: layer for name, layer in layers.items() if not any(fnmatch.fnmatchcase(name, p) for p in ignore)}
    if not left:
        raise ValueError(f"`model` has no Conv2d or Linear layer outside `ignore` = {list(ignore)}: nothing to mask")
    return left


def masked_count(size: int, sparsity: float) -> int:
    """The number of masked elements out of `size`, rounded down like the removed width in group pruning."""
    return int(size * sparsity + 1e-9)


def keep_highest(scores: Tensor, present: Tensor, masked: int) -> Tensor:
    """A mask that is False for the lowest scores.

    Args:
        scores: any shape, higher = keep.
        present: bool of the same shape; False entries stay False.
        masked: number of False entries in the result, at least as many as in `present`.

    Returns:
        bool of the same shape. On a tie the lower index is kept.
    """
    flat = scores.flatten().masked_fill(~present.flatten(), -torch.inf)
    order = torch.sort(flat, descending=True, stable=True).indices
    mask = present.flatten().clone()
    mask[order[len(flat) - masked :]] = False
    return mask.view_as(present)


def _twins(layers: Mapping[str, Layer], follower: nn.Module) -> dict[str, Tensor]:
    """The follower's parameters by the names of the model's parameters."""
    parameters = dict(follower.named_parameters())
    twins: dict[str, Tensor] = {}
    for name, layer in layers.items():
        for kind, parameter in layer.named_parameters():
            twin = parameters.get(f"{name}.{kind}")
            if twin is None or twin.shape != parameter.shape:
                raise ValueError(f"a follower differs from the model in {name}.{kind}: give a copy of the model")
            twins[f"{name}.{kind}"] = twin
    return twins
