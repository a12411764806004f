"""Evaluations of the agent during its training and at its end."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from gsprune.errors import EvaluationError
from gsprune.rl.envs.provider import EnvironmentDescription
from gsprune.rl.evaluation.episodes import Policy
from gsprune.rl.evaluation.protocol import EVALUATION_SEED, ProtocolConfig, TrackResult, evaluate_tracks, tracks_of
from gsprune.rl.training.config import TrainConfig

__all__ = ["Evaluations"]


class Evaluations:
    """Plays the agent of a training without noise.

    Args:
        config: the options of the training.
        environment: the description of its environment.
        make_policy: builds the policy of the present agent from a generator on `device`.
        device: where the agent is.
        say: prints a line.

    Attributes:
        seconds: time of all evaluations, including those before the training was resumed.
    """

    def __init__(
        self,
        config: TrainConfig,
        environment: EnvironmentDescription,
        make_policy: Callable[[torch.Generator], Policy],
        device: torch.device,
        say: Callable[[str], None],
    ) -> None:
        self.seconds = 0.0
        self._config, self._environment = config, environment
        self._make_policy, self._device, self._say = make_policy, device, say
        self._has_given_up = False

    def is_due(self, iteration: int) -> bool:
        """True after `eval_points` of the iterations. The evaluation at the end is not one of them."""
        config, last = self._config, self._config.num_iterations
        if config.eval_interval_episodes == 0 or self._has_given_up or iteration == last:
            return False
        before, now = (config.eval_points * number // last for number in (iteration - 1, iteration))
        return before < now

    def run(self, episodes: int) -> dict[str, float]:
        """Mean returns of `episodes` episodes as ``eval/train_return`` and ``eval/test_return``.

        An environment without a test split has only the latter. The result is empty for 0 episodes. It is also empty if
        an episode does not end. Then a line is printed, and no evaluation is due any more, because the next one would
        probably fail after the same time.
        """
        if episodes == 0:
            return {}
        config = self._config
        seed = EVALUATION_SEED + config.seed
        protocol = ProtocolConfig(vars(config), episodes=episodes, num_envs=config.eval_num_envs, seed=seed)
        began = time.monotonic()
        results: dict[str, TrackResult] = {}
        try:
            results = evaluate_tracks(self._make_policy, protocol, tracks_of(self._environment), self._device)
        except EvaluationError as error:
            self._has_given_up = True
            self._say(f"the evaluation was given up: {error}")
        self.seconds += time.monotonic() - began
        return {f"eval/{name}_return": result.mean for name, result in results.items()}
