"""The options of DQN, its presets, and their checks.

The preset "atari" has the hyperparameters of CleanRL's ``dqn_atari.py``
(https://docs.cleanrl.dev/rl-algorithms/dqn/#dqn_ataripy). CleanRL plays one environment and learns after every fourth
step; here four environments step together and each of their steps is followed by one update, which is the same ratio.
Targets are those of double DQN. ``docs/guide/dqn.md`` compares the two line by line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gsprune.rl.algorithms.dqn.agent import num_actions
from gsprune.rl.envs.provider import EnvironmentDescription
from gsprune.rl.training.config import TrainConfig

__all__ = ["PRESETS", "DQNConfig"]


@dataclass(frozen=True, kw_only=True)
class DQNConfig(TrainConfig):
    """Options of DQN; the defaults are the published ones."""

    num_envs: int = 128
    """environments that are stepped together; each step of all of them is followed by one gradient step"""
    batch_size: int = 512
    """transitions per gradient step"""
    replay_capacity: int = 1_000_000
    """transitions kept; each takes the bytes of one image, 12,288 for Procgen and 7,056 for Atari"""
    replay_storage: Literal["disk", "memory"] = "disk"
    """storage of the replay's frames: disk, a memory-mapped file in the run folder, which a resumed run opens again; or
    memory, where a resumed run fills a new replay"""
    replay_spare: int = 250_000
    """spare transitions in the file, so that a crash loses none; a checkpoint comes after half of them"""
    n_step: int = 3
    """rewards per return before the bootstrap"""
    gamma: float = 0.99
    """discount factor"""
    priority_alpha: float = 0.5
    """how much priorities count when sampling; 0 samples uniformly"""
    priority_beta: float = 0.5
    """how much of the bias of prioritised sampling the weights correct; 1 corrects it fully"""
    priority_eps: float = 1e-6
    """added to every error's magnitude, so that no transition is forgotten"""
    target_interval: int = 64_000
    """environment steps between copies of the network to its target network"""
    learning_starts: int = 250_000
    """environment steps before the first gradient step"""
    epsilon_final: float = 0.025
    """share of random actions after exploration; it begins at 1"""
    exploration_fraction: float = 0.1
    """fraction of the training over which the share of random actions falls"""
    max_grad_norm: float | None = 10.0
    """largest norm of the gradients; larger ones are scaled down; None leaves them as they are"""
    prune_interval: int = 2_000
    """gradient steps between pruning events (and searches of ReDo); the end of the schedule is an event, too"""
    log_interval: int = 50
    """steps of all environments per row of metrics"""

    def check(self) -> None:
        """Raise an error for the first invalid option.

        Raises:
            ValueError: names the option, its value, the constraint and the way out.
        """
        super().check()
        self._check_numbers("batch_size", "n_step", "target_interval", "prune_interval", "log_interval", at_least=1)
        self._check_numbers("gamma", "priority_alpha", "priority_beta", "epsilon_final", at_least=0, at_most=1)
        self._check_numbers("exploration_fraction", above=0, at_most=1)
        self._check_numbers("max_grad_norm", "priority_eps", above=0)
        window = self.num_envs * self.n_step
        for name in ("replay_capacity", "learning_starts"):
            if getattr(self, name) < window + self.num_envs:
                raise ValueError(
                    f"`{name}` must be at least num_envs * (n_step + 1) = {window + self.num_envs}, "
                    f"got {getattr(self, name)}"
                )
        self._check_frames("learning_starts", self.learning_starts, window)
        if self.learning_starts >= self.total_timesteps:
            raise ValueError(
                f"`learning_starts` must be below total_timesteps = {self.total_timesteps}, got {self.learning_starts}"
            )
        if self.total_timesteps < self.steps_per_iteration:
            raise ValueError(
                "`total_timesteps` must be at least num_envs * log_interval = "
                f"{self.steps_per_iteration}, got {self.total_timesteps}"
            )
        if self.replay_storage == "disk" and self.replay_spare < 2 * self.steps_per_iteration:
            raise ValueError(
                f"`replay_spare` must be at least 2 * num_envs * log_interval = {2 * self.steps_per_iteration}, "
                f"got {self.replay_spare}"
            )

    def check_environment(self, environment: EnvironmentDescription) -> None:
        """Raise an error for actions that are not discrete."""
        num_actions(environment)

    def idle_by_algorithm(self) -> dict[str, str]:
        """Options of the replay that have no effect beside the others: option -> reason."""
        idle = {}
        if self.replay_storage == "memory":
            idle["replay_spare"] = "with `replay_storage` memory"
        if self.priority_alpha == 0:
            idle |= dict.fromkeys(("priority_beta", "priority_eps"), "with `priority_alpha` 0")
        return idle

    @property
    def frames_between_prunings(self) -> int:
        """Frames from which the network learns between two pruning steps."""
        return self.batch_size * self.prune_interval

    @property
    def steps_per_iteration(self) -> int:
        """Environment steps per row of metrics."""
        return self.num_envs * self.log_interval


PRESETS: dict[str, DQNConfig] = {
    "paper": DQNConfig(),
    "quick": DQNConfig(
        env_id="starpilot",
        width=1,
        total_timesteps=24_576,
        num_envs=32,
        batch_size=64,
        replay_capacity=24_576,
        replay_spare=4_096,
        learning_starts=2_048,
        target_interval=2_048,
        exploration_fraction=0.5,
        prune_interval=10,
        log_interval=16,
        round_to=4,
        eval_episodes=64,
        eval_interval_episodes=0,
        eval_num_envs=32,
    ),
    "atari": DQNConfig(
        env_id="ALE/Pong-v5",
        encoder="nature",
        num_features=512,
        width=1,
        learning_rate=1e-4,
        adam_eps=1e-8,
        max_grad_norm=None,
        total_timesteps=10_000_000,
        num_envs=4,
        batch_size=32,
        replay_capacity=1_000_000,
        replay_spare=20_000,
        n_step=1,
        priority_alpha=0.0,
        target_interval=1_000,
        learning_starts=80_000,
        epsilon_final=0.01,
        exploration_fraction=0.1,
        prune_interval=10_000,
        log_interval=500,
        eval_episodes=100,
        eval_interval_episodes=10,
        eval_num_envs=10,
    ),
}
"""The values of ``--preset``. Options on the command line override them."""
