"""Stable-Baselines3's PPO with a network that shrinks: one callback. Needs stable-baselines3 besides gsprune."""

from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback

import gsprune


class PruneCallback(BaseCallback):
    """Takes a pruning step at the end of every rollout.

    Args:
        schedule: progress in [0, 1] -> sparsity.
        options: options of `gsprune.prune_step`.
    """

    def __init__(self, schedule: gsprune.schedules.Schedule, **options: object) -> None:
        super().__init__()
        self.schedule, self.options = schedule, options

    def _on_training_start(self) -> None:
        policy = self.model.policy
        observation, _ = policy.obs_to_tensor(self.training_env.reset())
        self.pruner = gsprune.Pruner(
            policy, self.schedule, optimizer=policy.optimizer, example_inputs=observation, **self.options
        )

    def _on_rollout_end(self) -> None:
        # Between rollout and update there is no pending backward: the place for a pruning step.
        report = self.pruner.step(min(self.num_timesteps / self.model._total_timesteps, 1.0))
        self.logger.record("pruning/channel_sparsity", report.channel_sparsity)
        self.logger.record("pruning/params", report.params_after)

    def _on_step(self) -> bool:
        return True


if __name__ == "__main__":
    agent = PPO("MlpPolicy", "CartPole-v1", n_steps=256, seed=0, device="cpu", policy_kwargs={"net_arch": [256, 256]})
    print(agent.policy.mlp_extractor)
    agent.learn(10_000, callback=PruneCallback(gsprune.schedules.Cubic(final=0.8)))
    print(agent.policy.mlp_extractor)
