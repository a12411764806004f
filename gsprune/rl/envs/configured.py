"""The environment of a run, from its options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from gsprune.rl.envs.provider import EnvironmentRequest

__all__ = ["configured_request"]


def configured_request(
    options: Mapping[str, Any],
    split: Literal["train", "test"] = "train",
    num_envs: int = 1,
    seed: int = 0,
    is_training: bool = True,
) -> EnvironmentRequest:
    """A request for environments like those of a run.

    Args:
        options: of the run, by name: `env_id`, `distribution_mode` and `env_options`.
        split: "train" for the training levels, "test" for all.
        num_envs: environments that step together.
        seed: of levels and episodes.
        is_training: False for evaluations.
    """
    return EnvironmentRequest(
        env_id=options["env_id"],
        num_envs=num_envs,
        seed=seed,
        split=split,
        difficulty=options.get("distribution_mode", "easy"),
        options=options.get("env_options", ""),
        is_training=is_training,
    )
