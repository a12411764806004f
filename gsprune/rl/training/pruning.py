"""The pruning methods of trainers: a trainer calls a `SparsityMethod` at its pruning events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

import gsprune
from gsprune.baselines.method import NoPruning, SparsityMethod
from gsprune.baselines.redo import ReDo
from gsprune.baselines.structured import StructuredPruning
from gsprune.baselines.unstructured import UnstructuredPruning
from gsprune.distributed.ranks import Ranks
from gsprune.networks import ObservationShape, example_frames
from gsprune.rl.importance import configured_importance
from gsprune.rl.training.config import TrainConfig

__all__ = ["GroupPruning", "build_method"]


class GroupPruning(SparsityMethod):
    """Gradual group-structured pruning: the network gets smaller with every step of the schedule."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: TrainConfig,
        observation_shape: ObservationShape,
        followers: tuple[nn.Module, ...],
        ranks: Ranks,
    ) -> None:
        """Prepare the pruner. Nothing is pruned before the first `step`.

        Args:
            model: takes observations (B, C, H, W) uint8.
            optimizer: the optimizer of `model`, whose state is sliced along.
            config: the schedule and the pruning options.
            observation_shape: (C, H, W).
            followers: networks that are sliced like `model`, e.g. a target network.
            ranks: the processes that train the network.
        """
        importance = configured_importance(config.importance)
        self._calibrates = config.calibrates
        self._calibration: list[Tensor] = []  # the frames of the present step
        options: dict[str, Any] = {
            "optimizer": optimizer,
            "followers": followers,
            "example_inputs": _example(model, observation_shape),
            "importance": importance,
            "scope": config.scope,
            "target": config.target,
            "round_to": config.round_to,
            "min_channels": config.min_channels,
            "rescale": config.rescale,
            "compensate": config.compensate,
            "calibration": self._calibration if self._calibrates else None,
            "backend": config.backend,
            "process_group": ranks.group,
        }
        self._schedule = config.schedule()
        self._requested: object = 0.0  # request of the last step: a sparsity or a budget
        self._pruner = gsprune.Pruner(model, self._schedule, **options)
        without_data = {**options, "compensate": "none", "calibration": None}
        if config.budget is not None:
            # Raise an error for an unreachable budget now, not after a fifth of the training. The answer is cached.
            gsprune.prune_step(model, config.budget, **{**without_data, "importance": "l1"}, dry_run=True)
        elif _scores_now(importance):
            # Raise an error now if the criterion cannot score a group.
            gsprune.prune_step(model, config.sparsity, **without_data, dry_run=True)

    def is_due(self, progress: float) -> bool:
        """True if the scheduled sparsity or budget differs from that of the last step."""
        return self._schedule(progress) != self._requested

    def step(self, progress: float, frames: Tensor) -> gsprune.PruneReport:
        """Prune to the schedule's sparsity at `progress`, with `frames` for calibration."""
        if self._calibrates:
            self._calibration[:] = [frames]  # several batches give worse maps (docs/results/compensation.md, Cost)
        try:
            report = self._pruner.step(progress)
        finally:
            self._calibration.clear()
        self._requested = self._schedule(progress)
        return report

    def state_dict(self) -> dict[str, Any]:
        """The pruner's state. Widths and kept indices are saved with the network."""
        return self._pruner.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a result of `state_dict`."""
        self._pruner.load_state_dict(dict(state))


def build_method(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    config: TrainConfig,
    observation_shape: ObservationShape,
    followers: tuple[nn.Module, ...],
    redo_interval: int,
    ranks: Ranks,
) -> SparsityMethod:
    """Build the method of `config.pruning`; the arguments are those of `GroupPruning`, and the interval of `ReDo`.

    Masks leave out the output layers, whose names are in the model's attribute `heads`.

    Raises:
        ValueError: the method masks layers, but the network has no attribute `heads`, or a wrong one.
    """
    if config.pruning == "none":
        return NoPruning()
    if config.pruning == "group":
        return GroupPruning(model, optimizer, config, observation_shape, followers, ranks)
    if config.pruning == "redo":
        graph = gsprune.trace(model, example_inputs=_example(model, observation_shape))
        seed, average = config.seed, ranks.weighted_mean
        return ReDo(model, graph, (optimizer,), interval=redo_interval, seed=seed, average=average)
    heads = getattr(model, "heads", None)
    if heads is None:
        raise ValueError(
            f"`pruning` {config.pruning} masks layers, so {type(model).__name__} needs an attribute `heads`, a tuple"
            " with the names of its output layers; add it, or use pruning group"
        )
    layers = dict(model.named_modules())
    if not isinstance(heads, tuple | list) or not all(head in layers for head in heads):
        raise ValueError(
            f"`heads` of {type(model).__name__} must be a tuple with the names of its output layers, got {heads!r}; its"
            f" layers are {', '.join(name for name in layers if name)}"
        )
    masked = {"structured": StructuredPruning, "unstructured": UnstructuredPruning}[config.pruning]
    schedule = cast(Callable[[float], float], config.schedule())  # a configuration's sparsity is one number
    return masked(model, schedule, (optimizer,), followers, ignore=heads)


def _scores_now(importance: gsprune.Importance) -> bool:
    """True if the importance needs no data, so that it can score before the training."""
    criterion = importance.criterion
    return isinstance(criterion, gsprune.Criterion) and not criterion.reads_data


def _example(model: nn.Module, observation_shape: ObservationShape) -> Tensor:
    return example_frames(device=next(model.parameters()).device, observation_shape=observation_shape)
