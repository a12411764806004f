"""What a trainer knows of the ways to make a network sparse: one protocol, so that a flag chooses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

__all__ = ["NoPruning", "SparsityMethod", "SparsityReport", "StepReport"]


class StepReport(Protocol):
    """What a trainer reads of the report of a step; `gsprune.PruneReport` has it too."""

    @property
    def changed(self) -> bool:
        """Whether the network was changed."""

    @property
    def sparsity(self) -> float:
        """Fraction that is gone since the start: of channels, or of masked weights."""


@dataclass(frozen=True)
class SparsityReport:
    """The report of a method that masks or re-initialises.

    Attributes:
        changed: whether the network was changed.
        sparsity: fraction of the maskable weights (unstructured), of the filters (structured), or 0.
        units: how many weights, filters or units the step has newly masked or re-initialised.
    """

    changed: bool
    sparsity: float
    units: int = 0


class SparsityMethod(Protocol):
    """A way to make a network sparse while it trains.

    A trainer calls `step` at its pruning events (PPO: every iteration; DQN: every so many updates), `after_backward`
    between ``loss.backward()`` and the clipping of gradients, `after_optimizer_step` after ``optimizer.step()``.
    """

    def is_due(self, progress: float) -> bool:
        """True if `step` may change the network at this progress; False is certain, True is not."""

    def step(self, progress: float, frames: Tensor) -> StepReport:
        """Follow the schedule.

        Args:
            progress: fraction of training that is over, in [0, 1].
            frames: a recent batch of observations, for methods that look at activations and for compensation.
        """

    def after_backward(self) -> None:
        """See to the gradients."""

    def after_optimizer_step(self) -> None:
        """See to the weights and the optimizer's moments."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs beyond model and optimizer: tensors, numbers and strings."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""


class NoPruning:
    """The dense network, or a small one from scratch."""

    def is_due(self, progress: float) -> bool:
        """False: no step changes anything."""
        del progress
        return False

    def step(self, progress: float, frames: Tensor) -> SparsityReport:
        """Change nothing."""
        del progress, frames
        return SparsityReport(changed=False, sparsity=0.0)

    def after_backward(self) -> None:
        """Change nothing."""

    def after_optimizer_step(self) -> None:
        """Change nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take nothing."""
        del state
