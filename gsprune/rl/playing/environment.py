"""The environment in which an agent is shown."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from gsprune.rl.envs.procgen import EnvConfig, ProcgenVectorEnv
from gsprune.rl.evaluation.protocol import EVALUATION_SEED
from gsprune.rl.trained import TrainedAgent

__all__ = ["Levels", "check_same_environment", "make_environment"]

Levels: TypeAlias = Literal["train", "test"]

_OPTIONS = ("env_id", "distribution_mode")


def make_environment(agent: TrainedAgent, levels: Levels, seed: int) -> Any:
    """One environment of the agent's run, as a vector environment that resets itself within a step.

    Args:
        agent: of the run.
        levels: "train" for the training levels, "test" for all levels.
        seed: of the levels, >= 0.
    """
    make = EnvConfig.train if levels == "train" else EnvConfig.test
    config = make(agent.config["env_id"], 1, agent.config["distribution_mode"], EVALUATION_SEED + seed)
    return ProcgenVectorEnv(config, num_threads=0)


def check_same_environment(first: TrainedAgent, second: TrainedAgent) -> None:
    """Check that two runs have the same environment, so that both agents meet the same levels.

    Raises:
        ValueError: names the option that differs.
    """
    for option in _OPTIONS:
        values = [agent.config.get(option) for agent in (first, second)]
        if values[0] != values[1]:
            raise ValueError(
                f"`beside` must be a run with the same `{option}`, {values[0]!r}, got {values[1]!r}; choose another run"
            )
