"""The options of PPO, its presets, and their checks.

The preset "atari" has the hyperparameters of CleanRL's ``ppo_atari.py``
(https://docs.cleanrl.dev/rl-algorithms/ppo/#ppo_ataripy). The encoder keeps PyTorch's initialisation; CleanRL's is
orthogonal.
"""

from __future__ import annotations

from dataclasses import dataclass

from gsprune.rl.algorithms.ppo.actions import distribution_of
from gsprune.rl.envs.provider import EnvironmentDescription
from gsprune.rl.training.config import TrainConfig

__all__ = ["PRESETS", "PPOConfig"]


@dataclass(frozen=True, kw_only=True)
class PPOConfig(TrainConfig):
    """Options of PPO; the defaults are the published ones."""

    num_steps: int = 256
    """steps per environment and iteration"""
    num_minibatches: int = 8
    """minibatches per epoch; num_envs * num_steps must be a multiple of it"""
    update_epochs: int = 3
    """passes over the rollout per iteration"""
    gamma: float = 0.99
    """discount factor of returns, also for the normalisation of rewards"""
    gae_lambda: float = 0.95
    """trade-off between bias (0) and variance (1) of the advantages"""
    clip_coef: float = 0.2
    """clip range of probability ratios around 1"""
    ent_coef: float = 0.01
    """weight of the entropy bonus"""
    vf_coef: float = 0.5
    """weight of the value loss"""
    max_grad_norm: float = 0.5
    """largest norm of the gradients; larger ones are scaled down"""
    anneal_lr: bool = False
    """decrease the step size linearly to 0 over the training"""
    norm_reward: bool = True
    """divide rewards by the running standard deviation of the discounted return"""
    clip_vloss: bool = False
    """clip the change of values since the rollout to clip_coef"""
    norm_adv: bool = True
    """normalise advantages in each minibatch"""
    prune_interval: int = 1
    """iterations between pruning events; the end of the schedule is an event, too"""

    def check(self) -> None:
        """Raise an error for the first invalid option.

        Raises:
            ValueError: names the option, its value, the constraint and the way out.
        """
        super().check()
        self._check_numbers("num_steps", "num_minibatches", "update_epochs", "prune_interval", at_least=1)
        self._check_numbers("gamma", "gae_lambda", at_least=0, at_most=1)
        self._check_numbers("clip_coef", "max_grad_norm", above=0)
        if self.batch_size % self.num_minibatches != 0:
            raise ValueError(
                f"`num_minibatches` must divide num_envs * num_steps = {self.batch_size}, got {self.num_minibatches}"
            )
        if self.batch_size // self.num_minibatches < 2:
            raise ValueError(f"minibatches must hold at least 2 steps; `num_minibatches` is {self.num_minibatches}")
        self._check_frames("num_envs * num_steps", self.batch_size)
        if self.total_timesteps < self.batch_size:
            raise ValueError(
                f"`total_timesteps` must be at least one iteration, num_envs * num_steps = {self.batch_size}, "
                f"got {self.total_timesteps}"
            )

    def check_environment(self, environment: EnvironmentDescription) -> None:
        """Raise an error for an action space without a distribution."""
        distribution_of(environment.action_space)

    @property
    def batch_size(self) -> int:
        """Steps per iteration, over all environments."""
        return self.num_envs * self.num_steps

    @property
    def frames_between_prunings(self) -> int:
        """Frames from which the network learns between two pruning steps."""
        return self.batch_size * self.prune_interval

    @property
    def steps_per_iteration(self) -> int:
        """Environment steps per row of metrics: one rollout."""
        return self.batch_size


PRESETS: dict[str, PPOConfig] = {
    "paper": PPOConfig(),
    "quick": PPOConfig(
        env_id="starpilot",
        width=1,
        total_timesteps=24_576,
        num_envs=16,
        num_steps=64,
        num_minibatches=4,
        round_to=4,
        eval_episodes=64,
        eval_interval_episodes=0,
        eval_num_envs=32,
    ),
    "atari": PPOConfig(
        env_id="ALE/Pong-v5",
        encoder="nature",
        num_features=512,
        width=1,
        learning_rate=2.5e-4,
        anneal_lr=True,
        total_timesteps=10_000_000,
        num_envs=8,
        num_steps=128,
        num_minibatches=4,
        update_epochs=4,
        clip_coef=0.1,
        clip_vloss=True,
        norm_reward=False,
        eval_episodes=100,
        eval_interval_episodes=10,
        eval_num_envs=10,
    ),
}
"""The values of ``--preset``. Options on the command line override them."""
