"""Proximal policy optimisation, with a network that shrinks while it trains.

Source: Schulman et al. 2017, https://arxiv.org/abs/1707.06347. Details that the paper on pruning leaves open are as in
CleanRL's ``ppo_procgen.py``, and so are the names in this file. An iteration collects a rollout, updates the network on
it for several epochs, and prunes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gsprune.arrays import Float32Array, IntArray
from gsprune.rl.algorithms.ppo.actions import distribution_of, sampled_policy
from gsprune.rl.algorithms.ppo.agent import build_network, check_outputs
from gsprune.rl.algorithms.ppo.config import PPOConfig
from gsprune.rl.algorithms.ppo.losses import clipped_value_loss, policy_loss, value_loss
from gsprune.rl.algorithms.ppo.returns import RewardNormalizer
from gsprune.rl.algorithms.ppo.rollout import Minibatch, Rollout
from gsprune.rl.evaluation.episodes import Policy
from gsprune.rl.training.step_effect import AgentOutputs
from gsprune.rl.training.trainer import Trainer
from gsprune.rl.training.truncation import Truncated, truncated_episodes

__all__ = ["PPOTrainer"]

_LOSSES = ("policy_loss", "value_loss", "entropy", "approx_kl", "clipfrac")


class PPOTrainer(Trainer[PPOConfig]):
    """A training run by PPO."""

    policy_metric = "pruning/kl"
    _redo_interval = 100
    build_network = staticmethod(build_network)

    def _check_outputs(self, outputs: Any) -> None:
        check_outputs(outputs, self.agent, self.environment)

    def _learning_rate(self) -> float:
        return self.config.scaled_learning_rate(base=3.5e-4, nature=5e-4)

    def _set_up(self) -> None:
        config = self.config
        self.generator = torch.Generator(self.device).manual_seed(config.seed)
        self.actions = distribution_of(self.environment.action_space)
        self.rollout = Rollout(
            config.num_steps,
            config.num_envs,
            self.device,
            self.share,
            observation_shape=self.environment.observation_shape,
            action_shape=self.actions.action_shape,
            action_dtype=self.actions.dtype,
        )
        self.reward_normalizer = RewardNormalizer(config.num_envs, config.gamma)
        self._policy = self.compilation.wrap("the network for acting", self._forward)
        # With several processes the pieces of a minibatch differ in size, and every size would need a compilation.
        self._losses_of = (
            self.compilation.wrap("the network for learning", self._losses) if self.ranks.is_alone else self._losses
        )

    def _iterate(self) -> dict[str, float | int | None]:
        if self.config.anneal_lr:
            for group in self.optimizer.param_groups:
                group["lr"] = self._learning_rate() * (1 - self.progress)
        explained_variance = self._collect()
        losses = self._update()
        done = self.iteration + 1
        progress = done / self.config.num_iterations
        # The end of the schedule is an event, also between multiples of the interval.
        schedule_ends = self.progress < self.config.prune_end <= progress
        if done % self.config.prune_interval == 0 or schedule_ends:
            self._prune(progress, self.iteration, self.rollout.frames[-1])
        return {**losses, "losses/explained_variance": explained_variance}

    def _num_recent_frames(self) -> int:
        return self.rollout.rewards.size

    def _recent_frames(self, positions: IntArray) -> Tensor:
        return self.rollout.frames_at(torch.from_numpy(positions).to(self.device))

    def _outputs(self, frames: Tensor) -> AgentOutputs:
        """Parameters of the actions' distribution, and values."""
        parameters, values = zip(*self.workers.forward(self._forward, frames), strict=True)
        return AgentOutputs(torch.cat(parameters), torch.cat(values))

    def _policy_change(self, before: Tensor, after: Tensor) -> Tensor:
        """KL(policy before || policy after) of a pruning step, per frame."""
        return self.actions.divergence(before, after)

    @torch.no_grad()
    def _collect(self) -> float:
        """Play one rollout; return the explained variance of the values."""
        rollout = self.rollout
        for step in range(self.config.num_steps):
            frames = rollout.frames[step]
            frames.copy_(torch.from_numpy(self.next_frames))
            parameters, values = self._act(frames)
            actions = self._sample(parameters)
            rollout.actions[step] = actions
            rollout.logprobs[step] = self.actions.logprobs(parameters, actions)
            rollout.values[step] = values
            played = self.actions.to_environment(actions)
            _, rewards, terminated, truncated, infos = self._step(played)
            rollout.rewards[step] = rewards
            rollout.ended[step] = terminated | truncated
            rollout.final_values[step] = self._final_values(truncated_episodes(terminated, truncated, infos))
            self._report_activity((step + 1) * self.config.num_envs, "playing")
        rollout.values[-1] = self._act(torch.from_numpy(self.next_frames).to(self.device))[1]
        return self._finish()

    def _final_values(self, episodes: Truncated | None) -> Float32Array:
        """(N,) values of the last observations of truncated episodes, 0 elsewhere."""
        values = np.zeros(len(self.share), np.float32)
        if episodes is not None:
            frames = torch.from_numpy(episodes.observations).to(self.device)
            values[episodes.envs] = self._outputs(frames).values.cpu().numpy()
        return values

    def _sample(self, parameters: Tensor) -> Tensor:
        """Sample actions for this process's environments.

        Every process draws the noise of all environments, so the actions do not depend on the number of processes.
        """
        noise = self.actions.noise(self.config.num_envs, self.device, self.generator)
        return self.actions.sample(parameters, noise[self.share.start : self.share.stop])

    def _finish(self) -> float:
        """Compute advantages and returns of all processes' environments in every process, because they are small."""
        rollout, columns = self.rollout, self.ranks.gather_columns
        ended = columns(rollout.ended)
        rewards = columns(rollout.rewards)
        if self.config.norm_reward:
            steps = zip(rewards, ended, strict=True)
            rewards = np.stack([self.reward_normalizer(raw, ends) for raw, ends in steps])
        # The rest of a truncated episode counts as a reward of its last step, in the unit of the values.
        rewards = rewards + self.config.gamma * columns(rollout.final_values)
        discounts = (self.config.gamma * ~ended).astype(np.float32)
        return rollout.finish(rewards, columns(rollout.values.cpu().numpy()), discounts, self.config.gae_lambda)

    def _update(self) -> dict[str, float]:
        """Train for several epochs on the rollout; return the mean losses of all minibatches."""
        config = self.config
        totals = torch.zeros(len(_LOSSES), device=self.device)
        for epoch in range(config.update_epochs):
            permutation = torch.randperm(config.batch_size, generator=self.generator, device=self.device)
            for mb_inds in permutation.view(config.num_minibatches, -1):
                self._report_activity(config.batch_size, f"learning, epoch {epoch + 1} of {config.update_epochs}")
                totals += self._learn_minibatch(self.rollout.minibatch(mb_inds, config.norm_adv))
        means = self.ranks.sum(totals) / (config.update_epochs * config.num_minibatches)
        return {f"losses/{name}": value for name, value in zip(_LOSSES, means.tolist(), strict=True)}

    def _learn_minibatch(self, minibatch: Minibatch) -> Tensor:
        """Make a gradient step on this process's part of a minibatch; return its part of the losses.

        Returns:
            (len(_LOSSES),); the processes' parts add up to the means over the minibatch.
        """
        size = self.config.batch_size // self.config.num_minibatches

        def loss_of(piece: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
            loss, losses = self._losses_of(*piece)
            share = len(piece[0]) / size  # the sum over all pieces and processes is the mean over the minibatch
            return loss * share, losses * share

        start = torch.zeros(len(_LOSSES), device=self.device)
        return sum(self._learn(loss_of, minibatch, size, self.config.max_grad_norm), start)

    def _losses(
        self,
        frames: Tensor,
        actions: Tensor,
        old_logprobs: Tensor,
        advantages: Tensor,
        returns: Tensor,
        old_values: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The loss to minimise, and its parts without gradient, (len(_LOSSES),); arguments as in `Minibatch`."""
        config = self.config
        parameters, values = self._forward(frames)
        logprobs = self.actions.logprobs(parameters, actions)
        p_loss = policy_loss(logprobs, old_logprobs, advantages, config.clip_coef)
        v_loss = (
            clipped_value_loss(values, old_values, returns, config.clip_coef)
            if config.clip_vloss
            else value_loss(values, returns)
        )
        entropy = self.actions.entropy(parameters).mean()
        loss = p_loss.loss - config.ent_coef * entropy + config.vf_coef * v_loss
        parts = torch.stack([p_loss.loss, v_loss, entropy, p_loss.approx_kl, p_loss.clipfrac])
        return loss, parts.detach()

    def _act(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters of the actions' distribution and values, without gradients, computed by the workers."""
        parameters, values = zip(*self.workers.forward(self._policy, frames), strict=True)
        return torch.cat(parameters), torch.cat(values)

    def _forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters of the actions' distribution, and values, in float32 even with autocast."""
        with self._autocast():
            outputs, values = self.agent(frames)
        return self.actions.parameters(outputs.float(), self.agent), values.float()

    def policy(self, generator: torch.Generator) -> Policy:
        """The policy for evaluations, which samples its actions."""

        def outputs(frames: Tensor) -> Tensor:
            return self._act(frames)[0][:, : self.actions.num_outputs]  # without a Gaussian's standard deviations

        return sampled_policy(self.actions, outputs, self.agent, generator, self.device)

    def _put_state(self, state: dict[str, Any]) -> None:
        state["ppo"] = {"rewards": self.reward_normalizer.state_dict(), "generator": self.generator.get_state()}

    def _take_state(self, state: Mapping[str, Any]) -> None:
        self.reward_normalizer.load_state_dict(state["ppo"]["rewards"])
        self.generator.set_state(state["ppo"]["generator"])
