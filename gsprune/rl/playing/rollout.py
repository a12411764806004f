"""The frames of an agent's episodes, of one agent or of several side by side."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Literal, TypeAlias

import numpy as np
import torch

from gsprune.arrays import Uint8Array
from gsprune.rl.envs.provider import EnvironmentRequest
from gsprune.rl.envs.registry import make_environments
from gsprune.rl.evaluation.protocol import EVALUATION_SEED
from gsprune.rl.trained import TrainedAgent

__all__ = ["Levels", "Moment", "check_same_environment", "episode_moments", "side_by_side"]

Levels: TypeAlias = Literal["train", "test"]

_OPTIONS = ("env_id", "distribution_mode", "env_options")


@dataclass(frozen=True)
class Moment:
    """One frame of an episode.

    Attributes:
        frame: (C, H, W) uint8, the observation that the agent acts on.
        episode: number of the episode, from 1.
        episode_return: sum of the rewards of this episode so far.
        is_end: True for the last frame of an episode, which has the return of the whole episode.
    """

    frame: Uint8Array
    episode: int
    episode_return: float
    is_end: bool = False


def episode_moments(
    agent: TrainedAgent, levels: Levels, seed: int, episodes: int | None = None
) -> Generator[Moment, None, None]:
    """Play episodes one after the other in one environment, and yield their moments.

    The step that ends an episode returns the first frame of the next episode. So the last frame of an episode appears
    twice, the second time with the whole return.

    Args:
        agent: the agent, which plays with its policy for evaluation: PPO samples actions, DQN takes the best.
        levels: "train" for the training levels, "test" for all levels.
        seed: seed of levels and actions, >= 0.
        episodes: number of episodes, >= 1; None never ends.
    """
    policy = agent.policy(torch.Generator(device=agent.device).manual_seed(seed))
    request = EnvironmentRequest.of_run(agent.config, split=levels, seed=EVALUATION_SEED + seed, is_training=False)
    with closing(make_environments(request)) as environment:
        observations, _ = environment.reset()
        moment = Moment(observations[0].copy(), 1, 0.0)
        yield moment
        while True:
            actions = policy(torch.from_numpy(observations))
            observations, rewards, terminated, truncated, _ = environment.step(actions)
            episode_return = moment.episode_return + float(np.asarray(rewards)[0])
            if terminated[0] or truncated[0]:
                yield replace(moment, episode_return=episode_return, is_end=True)
                if moment.episode == episodes:
                    return
                moment = Moment(observations[0].copy(), moment.episode + 1, 0.0)
            else:
                moment = replace(moment, frame=observations[0].copy(), episode_return=episode_return)
            yield moment


def side_by_side(streams: Sequence[Iterator[Moment]]) -> Iterator[tuple[Moment, ...]]:
    """Yield the moments of several agents at the same time, until all streams have ended.

    Every stream has at least one moment. After its end its last moment is repeated.
    """
    latest: list[Moment] = []
    for moments in zip_longest(*streams):
        latest = [moment or latest[index] for index, moment in enumerate(moments)]
        yield tuple(latest)


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
