"""PPO that drops Adam's state at every pruning step, for a comparison with moments that are sliced along.

Adam starts again from moments of zero, as in a loop that makes a new optimizer for the smaller network. The study
minatar-dropped.yaml uses it:

    gsprune train dropped_state:DROPPED --env-id minatar_games:space_invaders
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from gsprune.rl.algorithms.ppo.algorithm import PPO
from gsprune.rl.algorithms.ppo.trainer import PPOTrainer

__all__ = ["DROPPED"]


class DroppedStateTrainer(PPOTrainer):
    """PPO without Adam's moments after a pruning step."""

    def _prune(self, progress: float, event: int, batch: Tensor) -> bool:
        changed = super()._prune(progress, event, batch)
        if changed:
            self.optimizer.state.clear()
        return changed


DROPPED = replace(PPO, name="dropped_state", trainer=DroppedStateTrainer)
