"""DQN whose target network does not follow the pruning: it becomes a copy of the network after every pruning step.

For a comparison with a target network that keeps its own, older weights and loses the same channels. The study
minatar-copied.yaml uses it:

    gsprune train copied_target:COPIED --env-id minatar_games:space_invaders
"""

from __future__ import annotations

import copy
from dataclasses import replace

from torch import Tensor, nn

from gsprune.rl.algorithms.dqn.algorithm import DQN
from gsprune.rl.algorithms.dqn.trainer import DQNTrainer

__all__ = ["COPIED"]


class CopiedTargetTrainer(DQNTrainer):
    """DQN with a new target network after a pruning step."""

    def _followers(self) -> tuple[nn.Module, ...]:
        return ()

    def _prune(self, progress: float, event: int, batch: Tensor) -> bool:
        changed = super()._prune(progress, event, batch)
        if changed:
            self.target = copy.deepcopy(self.agent).requires_grad_(False)
        return changed


COPIED = replace(DQN, name="copied_target", trainer=CopiedTargetTrainer)
