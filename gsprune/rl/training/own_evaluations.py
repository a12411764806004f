"""The evaluations of a run by itself: at some points of the training, and at its end."""

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
        seconds: of all evaluations, those of earlier processes of the run included.
    """

    def __init__(
        self,
        config: TrainConfig,
        policy: Callable[[torch.Generator], Policy],
        device: torch.device,
        say: Callable[[str], None],
    ) -> None:
        """Evaluate nothing yet.

        Args:
            config: the options of the run.
            policy: makes the policy of the present agent.
            device: of the agent.
            say: tells the user a line.
        """
        self._config = config
        self._policy = policy
        self._device = device
        self._say = say
        self._has_given_up = False
        self.seconds = 0.0

    def is_due(self, iteration: int) -> bool:
        """True after the iterations at which the training is evaluated; the end has an evaluation of its own.

        Args:
            iteration: number of iterations that are over, at least 1.
        """
        points, last = self._config.eval_points, self._config.num_iterations
        if self._config.eval_interval_episodes == 0 or self._has_given_up or iteration == last:
            return False
        before, now = (points * number // last for number in (iteration - 1, iteration))
        return before != now

    def returns(self, episodes: int) -> dict[str, float]:
        """Mean returns of `episodes` episodes as ``eval/train_return`` and ``eval/test_return``.

        An environment without a test split has the latter alone. The result is empty for 0 episodes, and if an episode
        does not end. The user is told so, and `is_due` is False from then on, because the next evaluation would
        probably take as long for nothing.
        """
        if episodes == 0:
            return {}
        began = time.monotonic()
        results: dict[str, TrackResult] = {}
        try:
            results = evaluate_tracks(self._policy, self._protocol(episodes), device=self._device)
        except EvaluationError as error:
            self._has_given_up = True
            self._say(f"the evaluation was given up: {error}")
        self.seconds += time.monotonic() - began
        return {f"eval/{name}_return": result.mean for name, result in results.items()}

    def _protocol(self, episodes: int) -> ProtocolConfig:
        config = self._config
        return ProtocolConfig(
            config.env_id,
            config.distribution_mode,
            episodes,
            config.eval_num_envs,
            seed=EVALUATION_SEED + config.seed,
            env_options=config.env_options,
        )
