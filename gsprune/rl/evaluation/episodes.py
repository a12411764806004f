"""Plays a fixed number of episodes per environment, with or without pixel noise.

The first episodes that end in a vector environment are short ones, so they would bias the mean return. Therefore every
environment contributes the same number of episodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gsprune.arrays import AnyArray, BoolArray, Float64Array, IntArray, Uint8Array
from gsprune.checks import check_number, check_whole
from gsprune.errors import EvaluationError
from gsprune.rl.envs.episodes import EpisodeSums

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv

__all__ = [
    "MAX_EPISODE_STEPS",
    "NOISE_SIGMAS",
    "EpisodeReturns",
    "Policy",
    "evaluate",
    "greedy_policy",
    "pixel_noise",
]

Policy = Callable[[Tensor], AnyArray]
"""Maps uint8 observations (N, C, H, W) on the host to actions (N, ...)."""

MAX_EPISODE_STEPS = 30_000
"""The most steps of an episode. The longest episodes are games of Atari, which end after 27,000 steps."""

NOISE_SIGMAS = (5.0, 15.0, 30.0)
"""Standard deviations of the robustness track, in grey levels of 0..255."""


@dataclass(frozen=True)
class EpisodeReturns:
    """The episodes of one evaluation.

    Attributes:
        returns: (N, K) float64, sums of rewards; row i has the K episodes of environment i in the order of their ends.
        lengths: (N, K) int64, environment steps.
    """

    returns: Float64Array
    lengths: IntArray

    @property
    def mean(self) -> float:
        """The mean return over all episodes, in reward units."""
        return float(self.returns.mean())


def evaluate(
    policy: Policy,
    envs: VectorEnv[Any, Any, Any],
    episodes_per_env: int,
    noise_sigma: float = 0.0,
    rng: np.random.Generator | None = None,
    max_episode_steps: int = MAX_EPISODE_STEPS,
) -> EpisodeReturns:
    """Play a fixed number of episodes in every environment.

    The environments are reset first. All environments step together, so those that are done continue with action 0, and
    their rewards are ignored. The policy gets fewer rows as environments finish, in at most log2(N) + 1 batch sizes.

    Args:
        policy: observations (n, C, H, W) uint8 -> actions (n, ...), n <= N.
        envs: N environments with uint8 pixel observations, which begin an episode in the step that ends the one before;
            not closed here.
        episodes_per_env: K, at least 1.
        noise_sigma: standard deviation of Gaussian pixel noise, in grey levels; 0 for none.
        rng: source of the noise; needed if `noise_sigma` > 0.
        max_episode_steps: the most steps of an episode, at least 1.

    Returns:
        The (N, K) returns and lengths.

    Raises:
        ValueError: `episodes_per_env` < 1, a negative `noise_sigma` or one without `rng`, or environments that reset
            themselves in another step or not at all.
        EvaluationError: an episode has more than `max_episode_steps` steps.
    """
    from gymnasium.vector import AutoresetMode

    check_whole("episodes_per_env", episodes_per_env, at_least=1)
    check_number("noise_sigma", noise_sigma, at_least=0)
    if noise_sigma > 0 and rng is None:
        raise ValueError("`rng` is needed for pixel noise, got None; pass numpy.random.default_rng(seed)")
    mode = envs.metadata.get("autoreset_mode", AutoresetMode.SAME_STEP)
    if mode != AutoresetMode.SAME_STEP:
        raise ValueError(f"`envs` must reset themselves in the step that ends an episode, got {mode}")
    tally = _Tally(envs.num_envs, episodes_per_env)
    rows = np.arange(envs.num_envs)
    observations, _ = envs.reset()
    while len(active := np.flatnonzero(tally.unfinished)) > 0:
        # Halving keeps the number of batch sizes small: compiled networks and cuDNN plans depend on the size.
        if len(active) <= len(rows) // 2:
            rows = active
        seen = observations[rows]  # a copy in the same memory order, for example channels last
        if rng is not None and noise_sigma > 0:
            seen = pixel_noise(seen, noise_sigma, rng)
        chosen = policy(torch.from_numpy(seen))
        actions = np.zeros((envs.num_envs, *chosen.shape[1:]), dtype=chosen.dtype)
        actions[rows] = chosen
        observations, rewards, terminated, truncated, _ = envs.step(actions)
        tally.add(np.asarray(rewards), np.logical_or(terminated, truncated))
        if tally.longest > max_episode_steps:
            raise EvaluationError(
                f"an episode has not ended after {max_episode_steps:,} steps; limit episodes by"
                " gymnasium.wrappers.TimeLimit; only gsprune eval can allow longer ones (--max-episode-steps)"
            )
    return EpisodeReturns(tally.returns, tally.lengths)


def pixel_noise(observations: Uint8Array, sigma: float, rng: np.random.Generator) -> Uint8Array:
    """Gaussian noise on every pixel and colour, rounded to the nearest grey level and clipped.

        out = clip(round(x + sigma * n), 0, 255),  n ~ N(0, 1)

    Args:
        observations: (...) uint8; not modified.
        sigma: standard deviation in grey levels.
        rng: source of the noise.

    Returns:
        (...) uint8, a new array in the same memory order.
    """
    noisy = observations.astype(np.float32)  # keeps the memory order
    noisy += np.float32(sigma) * rng.standard_normal(observations.shape, dtype=np.float32)
    return np.clip(np.rint(noisy, out=noisy), 0, 255, out=noisy).astype(np.uint8)


def greedy_policy(values: Callable[[Tensor], Tensor], device: torch.device | str = "cpu") -> Policy:
    """A policy that takes the action with the highest value, and the first one of equal values.

    Args:
        values: observations (n, C, H, W) uint8 on `device` -> action values (n, actions).
        device: the device of the network.
    """

    def act(observations: Tensor) -> npt.NDArray[np.integer[Any]]:
        with torch.no_grad():
            actions = values(observations.to(device)).argmax(dim=-1)
        return np.asarray(actions.cpu().numpy())

    return act


class _Tally:
    """Running returns and lengths of N environments, and the first K finished episodes of each."""

    def __init__(self, num_envs: int, episodes_per_env: int) -> None:
        self.returns = np.zeros((num_envs, episodes_per_env), dtype=np.float64)
        self.lengths = np.zeros((num_envs, episodes_per_env), dtype=np.int64)
        self._finished = np.zeros(num_envs, dtype=np.int64)
        self._running = EpisodeSums(num_envs)

    @property
    def unfinished(self) -> BoolArray:
        """(N,) bool, True for environments with fewer than K finished episodes."""
        return self._finished < self.returns.shape[1]

    @property
    def longest(self) -> int:
        """Steps of the longest running episode that will count."""
        return int(self._running.lengths[self.unfinished].max(initial=0))

    def add(self, rewards: AnyArray, ended: BoolArray) -> None:
        """Add the rewards (N,) and ends (N,) of one step."""
        episodes = self._running.add(rewards, ended).get("episode")
        if episodes is None:
            return
        counted = np.flatnonzero(ended & self.unfinished)
        self.returns[counted, self._finished[counted]] = episodes["r"][counted]
        self.lengths[counted, self._finished[counted]] = episodes["l"][counted]
        self._finished[counted] += 1
