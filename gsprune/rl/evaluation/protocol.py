"""The tracks on which an agent is evaluated, and their results.

Every track is played in new environments with the same seed, so that agents are compared on the same levels. It has a
separate random generator, so an evaluation during a training does not change the training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from gsprune.checks import check_whole
from gsprune.rl.envs.provider import EnvironmentDescription, EnvironmentRequest
from gsprune.rl.envs.registry import make_environments, score_range_of
from gsprune.rl.evaluation.episodes import MAX_EPISODE_STEPS, NOISE_SIGMAS, EpisodeReturns, Policy, evaluate
from gsprune.rl.evaluation.statistics import bootstrap_interval, mean

__all__ = [
    "CLEAN_TRACKS",
    "EVALUATION_SEED",
    "NOISE_TRACKS",
    "ProtocolConfig",
    "Track",
    "TrackResult",
    "evaluate_tracks",
    "tracks_of",
]


EVALUATION_SEED = 1_000_000
"""Added to a training's seed, so that evaluations draw other levels and actions than the training."""


@dataclass(frozen=True)
class Track:
    """One setting of the evaluation.

    Attributes:
        name: key of the result, unique.
        levels: "train" for the training levels, "test" for the full distribution; the same without a test split.
        noise_sigma: standard deviation of Gaussian pixel noise, grey levels.
    """

    name: str
    levels: Literal["train", "test"]
    noise_sigma: float = 0.0


CLEAN_TRACKS = (Track("train", "train"), Track("test", "test"))
NOISE_TRACKS = tuple(Track(f"test, noise {sigma:g}", "test", sigma) for sigma in NOISE_SIGMAS)


def tracks_of(environment: EnvironmentDescription, with_noise: bool = False) -> tuple[Track, ...]:
    """The tracks of an environment: without a test split, the track "test" alone."""
    clean = CLEAN_TRACKS if environment.has_test_split else CLEAN_TRACKS[1:]
    return clean + NOISE_TRACKS if with_noise else clean


@dataclass(frozen=True)
class ProtocolConfig:
    """Environment and size of an evaluation.

    Attributes:
        options: the options of a run; those of its environment are used.
        episodes: number of episodes per track, rounded up to a multiple of the number of environments.
        num_envs: environments that step together.
        seed: seed of the levels, the sampled actions and the noise.
        max_episode_steps: the most steps of an episode.
    """

    options: Mapping[str, Any]
    episodes: int = 1_000
    num_envs: int = 64
    seed: int = 0
    max_episode_steps: int = MAX_EPISODE_STEPS

    def __post_init__(self) -> None:
        check_whole("episodes", self.episodes, at_least=1)
        check_whole("num_envs", self.num_envs, at_least=1)
        check_whole("max_episode_steps", self.max_episode_steps, at_least=1)

    @property
    def environments(self) -> int:
        """Number of environments that are used: at most one per episode."""
        return min(self.num_envs, self.episodes)

    @property
    def episodes_per_env(self) -> int:
        """Episodes of each environment."""
        return -(-self.episodes // self.environments)


@dataclass(frozen=True)
class TrackResult:
    """The result of one track.

    Attributes:
        mean: mean return, reward units.
        low: lower end of the 95 % bootstrap interval of the mean over episodes of this agent.
        high: upper end of the interval. Agents of other training seeds may be outside of it.
        normalised: the mean on the game's 0-to-1 scale; None if the game has none.
        mean_length: mean length of an episode, environment steps.
        returns: every episode's return; those of one environment are next to each other.
    """

    mean: float
    low: float
    high: float
    normalised: float | None
    mean_length: float
    returns: tuple[float, ...]


def evaluate_tracks(
    make_policy: Callable[[torch.Generator], Policy],
    config: ProtocolConfig,
    tracks: Sequence[Track],
    device: torch.device | str = "cpu",
    on_track: Callable[[Track], None] | None = None,
) -> dict[str, TrackResult]:
    """Play all tracks with one agent.

    Args:
        make_policy: builds the policy of a track from a generator on `device`; a greedy one ignores it.
        config: environment and size of the evaluation.
        tracks: the tracks.
        device: the device of the generator.
        on_track: called before each track, to show progress.

    Returns:
        track name -> result, in the order of `tracks`.

    Raises:
        MissingExtraError: a package of the environment is not installed.
        EvaluationError: an episode is longer than `config.max_episode_steps`.
    """
    results: dict[str, TrackResult] = {}
    for track in tracks:
        if on_track is not None:
            on_track(track)
        results[track.name] = _played(make_policy, config, track, device)
    return results


def _played(
    make_policy: Callable[[torch.Generator], Policy], config: ProtocolConfig, track: Track, device: torch.device | str
) -> TrackResult:
    """Play one track."""
    generator = torch.Generator(device=device).manual_seed(config.seed)
    request = EnvironmentRequest.of_run(
        config.options, split=track.levels, num_envs=config.environments, seed=config.seed, is_training=False
    )
    envs = make_environments(request)
    try:
        episodes = evaluate(
            make_policy(generator),
            envs,
            config.episodes_per_env,
            noise_sigma=track.noise_sigma,
            rng=np.random.default_rng(config.seed),
            max_episode_steps=config.max_episode_steps,
        )
    finally:
        envs.close()
    return _result(episodes, request)


def _result(episodes: EpisodeReturns, request: EnvironmentRequest) -> TrackResult:
    interval = bootstrap_interval(
        {request.env_id: episodes.returns.ravel()}, mean, rng=np.random.default_rng(request.seed), resamples=2_000
    )
    scale = score_range_of(request)
    return TrackResult(
        mean=episodes.mean,
        low=interval.low,
        high=interval.high,
        normalised=None if scale is None else scale.normalised(episodes.mean),
        mean_length=float(episodes.lengths.mean()),
        returns=tuple(episodes.returns.ravel().tolist()),
    )
