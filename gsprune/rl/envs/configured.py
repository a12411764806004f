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
    """A request for environments like those of a run; see `EnvironmentRequest`.

    The options of the run, by name, are `env_id`, `distribution_mode` and `env_options`.
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
