"""Atari 2600 games by the C++ vector environment of ale-py.

Observations are the usual ones (Mnih et al. 2015): stacks of 4 grey images of 84 x 84 pixels. One image is the maximum
of the last two of 4 frames of the game. An episode begins with up to 30 idle steps and, if the game waits for it, a
press of FIRE. In training the loss of a life counts as an end, and rewards are replaced by their signs. Metrics and
evaluations have the game's own rewards over whole games.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from gsprune.arrays import AnyArray, BoolArray, Float32Array, Uint8Array
from gsprune.checks import suggestion
from gsprune.errors import MissingExtraError, needs
from gsprune.rl.envs.atari_scores import HUMAN_SCORES
from gsprune.rl.envs.options import parsed_options, refuse_difficulty
from gsprune.rl.envs.provider import EnvironmentDescription, EnvironmentRequest
from gsprune.rl.envs.wrapped import WrappedGames
from gsprune.rl.evaluation.scores import ScoreRange

__all__ = ["AtariGames", "AtariOptions", "AtariProvider"]

_PREFIX = "ALE/"
_VERSION = "-v5"


@dataclass(frozen=True)
class AtariOptions:
    """Options of an Atari game.

    Attributes:
        sticky_actions: probability that the last action is repeated; 0.25 is the protocol of Machado et al. 2018
            (https://arxiv.org/abs/1709.06009).
        episodic_life: in training, a lost life is an end.
        clip_rewards: in training, replace rewards by their signs.
        noop_max: the most idle steps at the start of an episode.
        full_actions: all 18 actions instead of those that the game reads.
        size: height and width of the images, in pixels.
    """

    sticky_actions: float = 0.0
    episodic_life: bool = True
    clip_rewards: bool = True
    noop_max: int = 30
    full_actions: bool = False
    size: int = 84

    def __post_init__(self) -> None:
        if not 0 <= self.sticky_actions <= 1:
            raise ValueError(f"`env_options`: sticky_actions must be in [0, 1], got {self.sticky_actions}")
        if self.noop_max < 0:
            raise ValueError(f"`env_options`: noop_max must be at least 0, got {self.noop_max}")
        if self.size < 1:
            raise ValueError(f"`env_options`: size must be at least 1, got {self.size}")


class AtariGames(WrappedGames):
    """Environments that all play one Atari game.

    In training a lost life is reported as `terminated`, while the game goes on. The infos of episodes are those of
    whole games in unclipped rewards.
    """

    def __init__(self, game: str, request: EnvironmentRequest, options: AtariOptions) -> None:
        games = _vector_env()(
            game,
            request.num_envs,
            num_threads=request.num_threads or 0,
            repeat_action_probability=options.sticky_actions,
            full_action_space=options.full_actions,
            noop_max=options.noop_max,
            img_height=options.size,
            img_width=options.size,
            reward_clipping=False,
            autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP,
        )
        super().__init__(games, request)
        self._ends_at_life_loss = request.is_training and options.episodic_life
        self._clips = request.is_training and options.clip_rewards
        self._lives: AnyArray = np.zeros(request.num_envs, np.int32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Uint8Array, dict[str, Any]]:
        """Start new games everywhere; see `WrappedGames.reset`."""
        frames, infos = super().reset(seed=seed, options=options)
        self._lives = np.array(infos["lives"])
        return frames, infos

    def step(self, actions: AnyArray) -> tuple[Uint8Array, Float32Array, BoolArray, BoolArray, dict[str, Any]]:
        """Act once in every environment; see `gsprune.rl.envs.provider.EnvironmentProvider.make`."""
        frames, rewards, terminated, truncated, infos = self._games.step(np.asarray(actions, np.int64))
        ended = np.logical_or(terminated, truncated)
        lives = np.array(infos["lives"])
        if self._ends_at_life_loss:
            terminated = terminated | (~ended & (lives < self._lives) & (lives > 0))
        self._lives = lives
        infos = self._infos_of_step(infos, rewards, ended)
        rewards = np.asarray(np.sign(rewards) if self._clips else rewards, np.float32)
        return frames, rewards, np.asarray(terminated), np.asarray(truncated), infos


class AtariProvider:
    """Atari games by their ids in gymnasium, such as ``ALE/Pong-v5``."""

    name = "Atari"

    def ids(self) -> Sequence[str]:
        """The ids that ale-py registers; none if it is not installed."""
        try:
            return list(_games())
        except MissingExtraError:
            return []

    def accepts(self, env_id: str) -> bool:
        """True for an id that begins with ``ALE/``."""
        return env_id.startswith(_PREFIX)

    def require(self) -> None:
        """Raise a MissingExtraError if ale-py is not installed."""
        _vector_env()

    def score_range(self, request: EnvironmentRequest) -> ScoreRange | None:
        """The returns of a random player and of a human."""
        return HUMAN_SCORES.get(request.env_id.removeprefix(_PREFIX).removesuffix(_VERSION))

    def describe(self, request: EnvironmentRequest) -> EnvironmentDescription:
        """Stacks of 4 grey frames, and the actions that the game reads.

        Raises:
            ValueError: no such game, a bad option, or a difficulty.
            MissingExtraError: ale-py is not installed.
        """
        refuse_difficulty(request)
        game, options = _rom(request.env_id), parsed_options(request.options, AtariOptions)
        one = AtariGames(game, EnvironmentRequest(request.env_id), options)
        try:
            shape, space = one.single_observation_space.shape, one.single_action_space
        finally:
            one.close()
        if shape is None:  # for type checkers: it is a Box
            raise TypeError(f"{request.env_id} has observations without a shape")
        channels, height, width = shape
        return EnvironmentDescription(
            observation_shape=(channels, height, width),
            action_space=space,
            stack=channels,
            layout=f"the last 4 frames in grey, {height} x {width}, the newest last; one per 4 frames of the game",
            play={
                "package": "ale-py",
                "game": game,
                "repeat_action_probability": options.sticky_actions,
                "full_action_space": options.full_actions,
                "noop_max": options.noop_max,
                "img_height": height,
                "img_width": width,
            },
        )

    def make(self, request: EnvironmentRequest) -> AtariGames:
        """Make the games."""
        return AtariGames(_rom(request.env_id), request, parsed_options(request.options, AtariOptions))


def _vector_env() -> Any:
    """The class of ale-py's vector environment."""
    with needs("ale-py", "atari"):
        from ale_py.vector_env import AtariVectorEnv
    return AtariVectorEnv


def _games() -> dict[str, str]:
    """Id -> name of the ROM."""
    _vector_env()  # its import registers the ids
    games = {}
    for env_id, spec in gymnasium.registry.items():
        if env_id.startswith(_PREFIX) and env_id.endswith(_VERSION):
            games[env_id] = str(spec.kwargs["game"])
    return games


def _rom(env_id: str) -> str:
    """The name of the ROM of an id."""
    games = _games()
    if env_id not in games:
        way_out = suggestion(env_id, games) or "; ids are like ALE/Pong-v5"
        raise ValueError(f"`env_id`: there is no Atari game {env_id!r}{way_out}")
    return games[env_id]
