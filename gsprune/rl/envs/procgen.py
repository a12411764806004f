"""Procgen as a vector environment of gymnasium.

Procgen (Cobbe et al. 2020, https://arxiv.org/abs/1912.01588) steps all its environments in one call and starts the next
episode in the same step that ends one; it reports neither truncations nor final frames. So every end is `terminated`,
as in the paper, and the frame that comes with it is the first of the next episode.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import platform
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gsprune.checks import suggestion
from gsprune.errors import MissingExtraError, install_command, needs
from gsprune.rl.envs.episodes import EpisodeSums
from gsprune.rl.envs.options import parsed_options
from gsprune.rl.envs.procgen_state import EnvState
from gsprune.rl.envs.provider import EnvironmentDescription, EnvironmentRequest
from gsprune.rl.evaluation.scores import ScoreRange, score_range

with needs("gymnasium", "train"):
    import gymnasium

__all__ = [
    "ACTION_MEANINGS",
    "GAMES",
    "NUM_ACTIONS",
    "EnvConfig",
    "Frames",
    "ProcgenProvider",
    "ProcgenVectorEnv",
    "import_procgen",
]

GAMES = (
    "bigfish", "bossfight", "caveflyer", "chaser", "climber", "coinrun", "dodgeball", "fruitbot",
    "heist", "jumper", "leaper", "maze", "miner", "ninja", "plunder", "starpilot",
)  # fmt: skip
NUM_ACTIONS = 15

ACTION_MEANINGS = (
    "left, down", "left", "left, up", "down", "nothing", "up", "right, down", "right", "right, up",
    "D", "A", "W", "S", "Q", "E",
)  # fmt: skip
"""Procgen's actions in their order: directions, and keys whose meaning is the game's."""

_FRAME_SHAPE = (3, 64, 64)
_START_NEW_EPISODE = -1  # the action by which Procgen abandons an episode
_MAX_SEED = 2**31 - 1
_LEVELS = {"easy": 200, "hard": 500}  # the sizes of the training sets in the paper

Frames = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class EnvConfig:
    """The configuration of a vector environment. A state fits only an environment of an equal configuration.

    Attributes:
        game: one of `GAMES`.
        num_envs: number of environments that step together, >= 1.
        distribution_mode: difficulty of the levels.
        num_levels: number of levels; 0 is the full distribution.
        start_level: seed of the first level.
        seed: seed of the environments' sequences of levels, 0 <= seed < 2**31 - 1.
    """

    game: str
    num_envs: int
    distribution_mode: Literal["easy", "hard"] = "easy"
    num_levels: int = 0
    start_level: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.game not in GAMES:
            way_out = suggestion(self.game, GAMES) or f"; the games are {', '.join(GAMES)}"
            raise ValueError(f"there is no game {self.game!r}{way_out}")
        if self.num_envs < 1:
            raise ValueError(f"`num_envs` must be at least 1, got {self.num_envs}")
        if self.distribution_mode not in _LEVELS:
            raise ValueError(f"`distribution_mode` must be 'easy' or 'hard', got {self.distribution_mode!r}")
        for name in ("num_levels", "start_level", "seed"):
            value = getattr(self, name)
            if not 0 <= value < _MAX_SEED:
                raise ValueError(f"`{name}` must be in [0, 2**31 - 1), got {value}")

    @classmethod
    def of(cls, request: EnvironmentRequest) -> EnvConfig:
        """The paper's training levels, 0-199 for easy and 0-499 for hard, or for the split "test" all levels."""
        num_levels = _LEVELS.get(request.difficulty, 0) if request.split == "train" else 0
        return cls(request.env_id, request.num_envs, request.difficulty, num_levels, seed=request.seed)


@dataclass(frozen=True)
class _NoOptions:
    """Procgen's levels are chosen by the options of the trainer."""


class ProcgenVectorEnv(gymnasium.vector.VectorEnv[Frames, npt.NDArray[np.integer[Any]], npt.NDArray[Any]]):
    """`num_envs` environments with one Procgen game.

    Frames are (num_envs, 3, 64, 64) uint8, channels last in memory as Procgen draws them, without a copy. If episodes
    end, the infos of `step` have ``{"episode": {"r": returns, "l": lengths}, "_episode": mask}`` like gymnasium's
    `RecordEpisodeStatistics`: (num_envs,) vectors that are valid where the mask is True.
    """

    metadata: dict[str, Any] = {"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP, "render_modes": []}  # noqa: RUF012

    def __init__(self, config: EnvConfig, num_threads: int | None = None) -> None:
        """Create the environments.

        Args:
            config: the configuration.
            num_threads: threads that step the environments; 0 uses the caller's; None uses one per core, at most 4. The
                results do not depend on it.

        Raises:
            MissingExtraError: procgen is not installed.
        """
        self.config = config
        self.num_envs = config.num_envs
        self.single_observation_space = gymnasium.spaces.Box(0, 255, _FRAME_SHAPE, np.uint8)
        self.single_action_space = gymnasium.spaces.Discrete(NUM_ACTIONS)
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, self.num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, self.num_envs)
        self._num_threads = min(4, os.cpu_count() or 1) if num_threads is None else num_threads
        self._episodes = EpisodeSums(self.num_envs)
        self._games = _make_games(config, self._num_threads)
        self._is_fresh = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Frames, dict[str, Any]]:
        """Start new episodes everywhere, with no infos.

        Args:
            seed: seed of a new sequence of levels; None continues the present one.
            options: must be None or empty; Procgen has none.

        Raises:
            ValueError: there are options.
        """
        if options:
            raise ValueError(f"`options` must be empty, got {options}; levels are chosen by `EnvConfig`")
        super().reset(seed=seed)
        if seed is not None:
            self.config = EnvConfig(**{**asdict(self.config), "seed": seed})
            self._games.close()
            self._games = _make_games(self.config, self._num_threads)
            self._is_fresh = True
        if not self._is_fresh:
            self._games.act(np.full(self.num_envs, _START_NEW_EPISODE, np.int32))
        self._is_fresh = False
        self._episodes.reset()
        return self._observe()[0], {}

    def step(
        self, actions: npt.NDArray[np.integer[Any]]
    ) -> tuple[Frames, npt.NDArray[np.float32], npt.NDArray[np.bool_], npt.NDArray[np.bool_], dict[str, Any]]:
        """Act once in every environment. Nothing is truncated; the class describes frames and infos."""
        self._games.act(np.asarray(actions, np.int32))
        frames, rewards, is_first = self._observe()
        self._is_fresh = False
        infos = self._episodes.add(rewards, is_first)
        return frames, rewards, is_first, np.zeros(self.num_envs, np.bool_), infos

    def get_state(self) -> EnvState:
        """The state of all environments and of their running episodes."""
        games: list[bytes] = self._games.callmethod("get_state")
        arrays: dict[str, npt.NDArray[Any]] = {
            "games": np.frombuffer(b"".join(games), np.uint8),
            "ends": np.cumsum([len(game) for game in games], dtype=np.int64),
            "returns": self._episodes.returns.copy(),
            "lengths": self._episodes.lengths.copy(),
        }
        return EnvState(asdict(self.config), arrays)

    def set_state(self, state: EnvState) -> Frames:
        """Continue from a state, also of another process; return the present frames.

        Raises:
            ValueError: `state` is of another configuration. Procgen itself would load it and play other levels.
        """
        if state.config != asdict(self.config):
            raise ValueError(
                f"`state` was taken from {json.dumps(state.config)}, this environment plays "
                f"{json.dumps(asdict(self.config))}; create it with the configuration of the state"
            )
        ends = state.arrays["ends"].tolist()
        blob = state.arrays["games"].tobytes()
        games = [blob[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        self._games.callmethod("set_state", games)
        self._episodes.returns[:] = state.arrays["returns"]
        self._episodes.lengths[:] = state.arrays["lengths"]
        self._is_fresh = False
        return self._observe()[0]

    def close_extras(self, **kwargs: Any) -> None:
        """Free the games; called by `close`."""
        self._games.close()

    def _observe(self) -> tuple[Frames, npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Frames, rewards, and which environments show the first frame of an episode."""
        rewards, observations, is_first = self._games.observe()
        return observations["rgb"].transpose(0, 3, 1, 2), rewards, is_first


class ProcgenProvider:
    """The sixteen games of Procgen."""

    name = "Procgen"

    def ids(self) -> Sequence[str]:
        """The names of the games."""
        return GAMES

    def accepts(self, env_id: str) -> bool:
        """True for the name of a game."""
        return env_id in GAMES

    def require(self) -> None:
        """Raise a MissingExtraError if Procgen is not installed."""
        import_procgen()

    def score_range(self, request: EnvironmentRequest) -> ScoreRange:
        """The constants of Cobbe et al. 2020."""
        return score_range(request.env_id, request.difficulty)

    def describe(self, request: EnvironmentRequest) -> EnvironmentDescription:
        """Frames of 64 x 64 pixels in colour, and 15 actions; needs no Procgen.

        Raises:
            ValueError: a bad game, number or seed.
        """
        config = EnvConfig.of(request)
        parsed_options(request.options, _NoOptions)
        return EnvironmentDescription(
            observation_shape=_FRAME_SHAPE,
            action_space=gymnasium.spaces.Discrete(NUM_ACTIONS),
            state_type=EnvState,
            has_test_split=True,
            action_meanings=ACTION_MEANINGS,
            layout="channels first; Procgen draws (64, 64, 3): transpose(2, 0, 1)",
            play={"package": "procgen", "env_name": config.game, "distribution_mode": config.distribution_mode},
        )

    def make(self, request: EnvironmentRequest) -> ProcgenVectorEnv:
        """Make a `ProcgenVectorEnv`. `first_env` is ignored: the trainer sets states that include it."""
        parsed_options(request.options, _NoOptions)
        return ProcgenVectorEnv(EnvConfig.of(request), request.num_threads)


def _make_games(config: EnvConfig, num_threads: int) -> Any:
    """The gym3 environment behind a `ProcgenVectorEnv`."""
    make = import_procgen()
    with _no_garbage_collected():
        return make(
            num=config.num_envs,
            env_name=config.game,
            distribution_mode=config.distribution_mode,
            num_levels=config.num_levels,
            start_level=config.start_level,
            rand_seed=config.seed,
            num_threads=num_threads,
        )


@contextlib.contextmanager
def _no_garbage_collected() -> Iterator[None]:
    """Disable garbage collection: gym3 has a lock here, and an environment that is collected waits for it forever."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def import_procgen() -> Any:
    """Procgen's constructor, without the notice that the gym it imports prints.

    Raises:
        MissingExtraError: procgen is not installed; the message says if this Python or machine has no wheel of it.
    """
    try:
        with _gym_keeps_quiet(), warnings.catch_warnings():
            # Procgen leaves a file open, and gym uses deprecated functions of Python. Users cannot change either.
            warnings.simplefilter("ignore")
            from procgen import ProcgenGym3Env
    except ModuleNotFoundError as error:
        missing = MissingExtraError("procgen", "train")
        if sys.version_info >= (3, 13) or (sys.platform, platform.machine()) != ("linux", "x86_64"):
            version = f"{sys.version_info.major}.{sys.version_info.minor}"
            missing.msg = (
                f"the games need Procgen, which has no wheel for Python {version} on {sys.platform} "
                f"{platform.machine()}. Use Python 3.10, 3.11 or 3.12 on x86-64 Linux: "
                f"python3.12 -m venv venv && . venv/bin/activate && {install_command('train')}"
            )
        raise missing from error
    return ProcgenGym3Env


@contextlib.contextmanager
def _gym_keeps_quiet() -> Iterator[None]:
    """A block in which the import of gym does not print that it is unmaintained."""
    try:
        gym_notices: Any = importlib.import_module("gym_notices.notices")
    except ModuleNotFoundError:
        yield
        return
    notices = gym_notices.notices
    gym_notices.notices = {}
    try:
        yield
    finally:
        gym_notices.notices = notices
