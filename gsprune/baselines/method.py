"""The methods that make a network sparse, as trainers use them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gsprune.pruning.report import PruneReport

__all__ = ["NoPruning", "SparsityMethod", "SparsityReport", "StepReport"]


@dataclass(frozen=True)
class SparsityReport:
    """The report of a method that masks or re-initialises.

    Attributes:
        changed: True if the network was changed.
        sparsity: the masked fraction of weights (unstructured) or filters (structured), or 0.
        units: number of weights and biases that the step masked, or of units that it re-initialised.
    """

    changed: bool
    sparsity: float
    units: int = 0


StepReport = PruneReport | SparsityReport
"""The report of a step of any method; both have `changed` and `sparsity`."""


class SparsityMethod(ABC):
    """A way to make a network sparse while it trains.

    A trainer calls `step` at its pruning events (at intervals of iterations for PPO, of updates for DQN),
    `after_backward` between ``loss.backward()`` and the clipping of gradients, and `after_optimizer_step` after
    ``optimizer.step()``.
    """

    @abstractmethod
    def is_due(self, progress: float) -> bool:
        """False if `step` will certainly not change the network at this progress; True if it may."""

    @abstractmethod
    def step(self, progress: float, frames: Tensor) -> StepReport:
        """Prune or mask up to the scheduled sparsity.

        Args:
            progress: fraction of training that is done, in [0, 1].
            frames: a recent batch of observations, for methods that read activations and for compensation.
        """

    def after_backward(self) -> None:
        """Adjust the gradients; by default nothing."""
        return

    def after_optimizer_step(self) -> None:
        """Adjust the weights and the optimizer's moments; by default nothing."""
        return

    def state_dict(self) -> dict[str, Any]:
        """The state that a resumed run needs besides model and optimizer: tensors, numbers and strings."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a result of `state_dict`."""
        del state


class NoPruning(SparsityMethod):
    """Leaves the network as it is: dense, or small from scratch."""

    def is_due(self, progress: float) -> bool:
        """Return False: no step changes the network."""
        del progress
        return False

    def step(self, progress: float, frames: Tensor) -> SparsityReport:
        """Change nothing."""
        del progress, frames
        return SparsityReport(changed=False, sparsity=0.0)
