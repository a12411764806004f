"""The protocol of environment providers: from an id to a vector environment and its description.

A provider knows one family of environments (Procgen, Atari, Gymnasium). Everything else of the package takes the shape
of observations and the kind of actions from an `EnvironmentDescription`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from gsprune.arrays import AnyArray, Uint8Array
from gsprune.rl.evaluation.scores import ScoreRange

if TYPE_CHECKING:
    from gymnasium.spaces import Space
    from gymnasium.vector import VectorEnv

__all__ = ["EnvironmentDescription", "EnvironmentProvider", "EnvironmentRequest", "Environments", "SavedState"]

Environments: TypeAlias = "VectorEnv[Uint8Array, AnyArray, AnyArray]"
"""N environments that step together; see `EnvironmentProvider.make`."""


@dataclass(frozen=True)
class EnvironmentRequest:
    """The environments that a trainer or an evaluation asks for.

    Attributes:
        env_id: the id, as `bigfish` or `ALE/Pong-v5`.
        num_envs: environments that step together.
        seed: of levels and episodes, for environment 0 of the training.
        split: "train" for the training levels, "test" for all levels, where the provider has both.
        difficulty: of the levels, where the provider has it.
        options: the provider's own options as text, "size=84,stack=4".
        is_training: False for evaluations, which play whole episodes and count the game's own rewards.
        first_env: number of the first of these environments among those of all processes.
        num_threads: threads that step the environments; None leaves the choice to the provider.
    """

    env_id: str
    num_envs: int = 1
    seed: int = 0
    split: Literal["train", "test"] = "train"
    difficulty: Literal["easy", "hard"] = "easy"
    options: str = ""
    is_training: bool = True
    first_env: int = 0
    num_threads: int | None = None

    @classmethod
    def of_run(cls, options: Mapping[str, Any], **others: Any) -> EnvironmentRequest:
        """A request for environments like those of a run; `others` are fields that its options do not have.

        The options of the run, by name, are `env_id`, `distribution_mode` and `env_options`.
        """
        difficulty, text = options.get("distribution_mode", "easy"), options.get("env_options", "")
        return cls(options["env_id"], difficulty=difficulty, options=text, **others)


class SavedState(Protocol):
    """The state of a vector environment in a checkpoint."""

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of the environments as JSON values."""

    @property
    def arrays(self) -> dict[str, AnyArray]:
        """Everything that changes while the environments run."""

    def __init__(self, config: dict[str, Any], arrays: dict[str, AnyArray]) -> None:
        """Make a state from the parts of a checkpoint."""

    def part(self, envs: range) -> SavedState:
        """The state of some neighbouring environments."""

    @staticmethod
    def joined(states: Sequence[Any]) -> SavedState:
        """One state of all environments of `states`."""


@dataclass(frozen=True)
class EnvironmentDescription:
    """Properties of an environment that networks, buffers, evaluations and exports need.

    Attributes:
        observation_shape: (C, H, W) of its uint8 observations.
        action_space: of one environment: Discrete, MultiDiscrete or Box.
        state_type: class of saved states. The vector environment then has ``get_state()``, which returns one, and
            ``set_state(state)``, which returns the present observations. None where states cannot be saved.
        has_test_split: False if training and test levels are the same.
        action_meanings: a name per action; None if they have none.
        layout: how the environment's own frames relate to the observations, for the contract of an export.
        play: JSON values by which the environment can be made without gsprune, for the contract of an export.
        stack: images in one observation, of C / `stack` channels each, the oldest first; DQN's replay stores every
            image once. Each observation is the one before with its oldest image replaced by a new one at the end. The
            first of an episode is one image behind black ones, or behind copies of itself. The replay verifies this.
            `gsprune play` shows the newest image.
    """

    observation_shape: tuple[int, int, int]
    action_space: Space[Any]
    state_type: type[SavedState] | None = None
    has_test_split: bool = False
    action_meanings: tuple[str, ...] | None = None
    layout: str = "channels first"
    play: Mapping[str, Any] | None = None
    stack: int = 1

    @property
    def can_save_states(self) -> bool:
        """True if a resumed run goes on within the episodes of the checkpoint."""
        return self.state_type is not None


class EnvironmentProvider(Protocol):
    """One family of environments; `gsprune.rl.envs.registry` holds the providers."""

    name: str

    def ids(self) -> Sequence[str]:
        """The ids that can be listed, for suggestions."""

    def accepts(self, env_id: str) -> bool:
        """True if the id belongs to this provider."""

    def require(self) -> None:
        """Raise a MissingExtraError if a package that the environments need is not installed."""

    def score_range(self, request: EnvironmentRequest) -> ScoreRange | None:
        """The published returns that normalised scores map to 0 and 1; cheap, and None if there are none."""

    def describe(self, request: EnvironmentRequest) -> EnvironmentDescription:
        """Describe the environment.

        Raises:
            ValueError: the request is wrong: an unknown option, or observations that are no images.
        """

    def make(self, request: EnvironmentRequest) -> Environments:
        """Make the vector environment, which resets itself by ``AutoresetMode.SAME_STEP``.

        The infos of a step that ends an episode hold ``{"episode": {"r": returns, "l": lengths}, "_episode": mask}``.
        The returns are those of whole episodes in the game's own rewards. Where a step truncates an episode,
        ``final_obs[i]`` is its last observation, i the number of its environment. ``reset()`` without a seed uses that
        of the request. Observations that were returned are not overwritten later.

        Raises:
            ValueError: as `describe`.
            MissingExtraError: a package is missing.
        """
