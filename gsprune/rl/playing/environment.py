"""The environment in which an agent plays for a viewer."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from gsprune.rl.envs.configured import configured_request
from gsprune.rl.envs.registry import make_environments
from gsprune.rl.evaluation.protocol import EVALUATION_SEED
from gsprune.rl.trained import TrainedAgent

__all__ = ["Levels", "check_same_environment", "make_environment"]

Levels: TypeAlias = Literal["train", "test"]

_OPTIONS = ("env_id", "distribution_mode", "env_options")


def make_environment(agent: TrainedAgent, levels: Levels, seed: int) -> Any:
    """One environment of the agent's run, as a vector environment that resets within the last step of an episode.

    Args:
        agent: the run's agent.
        levels: "train" for the training levels, "test" for all levels.
        seed: seed of the levels, >= 0.
    """
    return make_environments(configured_request(agent.config, levels, 1, EVALUATION_SEED + seed, is_training=False))


def check_same_environment(first: TrainedAgent, second: TrainedAgent) -> None:
    """Check that two runs have the same environment, so that both agents play the same levels.

    Raises:
        ValueError: an option of the environment differs; the message names it.
    """
    for option in _OPTIONS:
        values = [agent.config.get(option) for agent in (first, second)]
        if values[0] != values[1]:
            raise ValueError(
                f"`beside` must be a run with the same `{option}`, {values[0]!r}, got {values[1]!r}; choose another run"
            )
