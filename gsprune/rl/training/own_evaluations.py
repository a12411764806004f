"""The evaluations that a run makes itself, during the training and at its end."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from gsprune.errors import EvaluationError
from gsprune.rl.evaluation.episodes import Policy
from gsprune.rl.evaluation.protocol import EVALUATION_SEED, ProtocolConfig, TrackResult, evaluate_tracks
from gsprune.rl.training.config import TrainConfig

__all__ = ["OwnEvaluations"]


class OwnEvaluations:
    """Evaluates the agent of a run on the tracks without noise.

    Attributes:
        seconds: time of all evaluations, including those before the run was resumed.
    """

    def __init__(
        self,
        config: TrainConfig,
        policy: Callable[[torch.Generator], Policy],
        device: torch.device,
        say: Callable[[str], None],
    ) -> None:
        """Store the arguments.

        Args:
            config: the options of the run.
            policy: makes the policy of the present agent.
            device: the agent's device.
            say: prints a line for the user.
        """
        self._config = config
        self._policy = policy
        self._device = device
        self._say = say
        self._has_given_up = False
        self.seconds = 0.0

    def is_due(self, iteration: int) -> bool:
        """True if an evaluation during the training is due. The final evaluation does not count.

        Args:
            iteration: number of finished iterations, at least 1.
        """
        points, last = self._config.eval_points, self._config.num_iterations
        if self._config.eval_interval_episodes == 0 or self._has_given_up or iteration == last:
            return False
        before, now = (points * number // last for number in (iteration - 1, iteration))
        return before != now

    def returns(self, episodes: int) -> dict[str, float]:
        """Mean returns of `episodes` episodes as ``eval/train_return`` and ``eval/test_return``.

        An environment without a test split has only the latter. The result is empty for 0 episodes. It is also empty if
        an episode does not end. Then a line is printed, and `is_due` is False from now on, because the next evaluation
        would probably fail after the same time.
        """
        if episodes == 0:
            return {}
        config = self._config
        seed = EVALUATION_SEED + config.seed
        protocol = ProtocolConfig.of_run(vars(config), episodes=episodes, num_envs=config.eval_num_envs, seed=seed)
        began = time.monotonic()
        results: dict[str, TrackResult] = {}
        try:
            results = evaluate_tracks(self._policy, protocol, device=self._device)
        except EvaluationError as error:
            self._has_given_up = True
            self._say(f"the evaluation was given up: {error}")
        self.seconds += time.monotonic() - began
        return {f"eval/{name}_return": result.mean for name, result in results.items()}
