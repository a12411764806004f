"""The states of a training's environments: starts, saves and resumes episodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np

from gsprune.arrays import Uint8Array
from gsprune.distributed.ranks import Ranks
from gsprune.rl.envs.checked import check_observations
from gsprune.rl.envs.provider import EnvironmentDescription
from gsprune.rl.envs.registry import make_environments
from gsprune.rl.training.config import TrainConfig

__all__ = ["EnvironmentStates"]

_MAX_SEED = 2**30  # leaves room for the number of an environment below 2**31


class EnvironmentStates:
    """The states of the environments of one process among those of all.

    Checkpoints have the states of all environments as if one process had them, so any number of processes can resume.
    """

    def __init__(
        self, config: TrainConfig, description: EnvironmentDescription, envs: Any, ranks: Ranks, share: range
    ) -> None:
        self._config = config
        self._description = description
        self._envs = envs
        self._ranks = ranks
        self._share = share

    def begin(self) -> Uint8Array:
        """Start the episodes: the same ones as in a single process with all environments."""
        if self._ranks.is_alone or not self._description.can_save_states:
            return self._checked(self._envs.reset()[0])
        whole: Any = make_environments(replace(self._config.request(self._config.num_envs), num_threads=0))
        state = whole.get_state()
        whole.close()
        return cast(Uint8Array, self._envs.set_state(state.part(self._share)))

    def state_dict(self) -> dict[str, Any]:
        """The states of all processes' environments, on the first process; {} if they cannot be saved."""
        saved = self._description.state_type
        parts = None if saved is None else self._ranks.gather(self._envs.get_state())
        if saved is None or parts is None:
            return {}
        joined = saved.joined(parts)
        return {"config": joined.config, "arrays": joined.arrays}

    def resume(self, state: Mapping[str, Any], global_step: int, say: Callable[[str], None]) -> Uint8Array:
        """Resume the episodes of a checkpoint, or start new ones if states cannot be saved."""
        saved = self._description.state_type
        if saved is not None:
            whole = saved(state["config"], state["arrays"])
            return cast(Uint8Array, self._envs.set_state(whole.part(self._share)))
        say(f"{self._config.env_id} cannot save its state: new episodes begin; all else is as in the checkpoint")
        # The seed differs from that of the training's start, and each environment has its own.
        sequence = np.random.SeedSequence([self._config.seed, global_step])
        seed = int(sequence.generate_state(1)[0]) % _MAX_SEED + self._share.start
        return self._checked(self._envs.reset(seed=seed)[0])

    def _checked(self, observations: Any) -> Uint8Array:
        """The first observations, which must be as described."""
        shape = (len(self._share), *self._description.observation_shape)
        return check_observations(observations, shape, self._config.env_id)
