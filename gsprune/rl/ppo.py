"""Proximal policy optimisation on Procgen, with a network that shrinks while it trains.

Source: Schulman et al. 2017, https://arxiv.org/abs/1707.06347. What the paper on pruning left open is as in CleanRL's
``ppo_procgen.py``, whose names this file uses; `PPOTrainer.train` reads from top to bottom.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import gsprune
from gsprune.networks import ActorCritic, build_encoder
from gsprune.rl.checkpointing import (
    MODEL_FILE,
    TrainingState,
    checkpoint_folders,
    latest_checkpoint,
    load_state,
    save_checkpoint,
)
from gsprune.rl.config import resolve_device
from gsprune.rl.envs import NUM_ACTIONS, EnvConfig, EnvState, ProcgenVectorEnv
from gsprune.rl.evaluate import Policy, sampled_policy
from gsprune.rl.losses import categorical_entropy, categorical_logprobs, normalized, policy_loss, value_loss
from gsprune.rl.metrics import EpisodeTracker, MetricWriter, Row
from gsprune.rl.ppo_config import PPOConfig
from gsprune.rl.protocol import ProtocolConfig, evaluate_tracks
from gsprune.rl.pruning import NetworkSize, build_method
from gsprune.rl.returns import RewardNormalizer
from gsprune.rl.rollout import Minibatch, Rollout
from gsprune.rl.run import RunFolder

__all__ = ["PPOTrainer"]

_CPU_MICROBATCH = 64  # measured: from 256 on, activations fall out of the caches of a server core
_EVALUATION_SEED = 1_000_000  # evaluations draw other levels and actions than the training
_LOSSES = ("policy_loss", "value_loss", "entropy", "approx_kl", "clipfrac")


class PPOTrainer:
    """A training run.

    Attributes:
        config: its options.
        agent: the network, as small as it is now.
        dense: how large the network was at the start.
        iteration: iterations that are over.
        global_step: environment steps that are over.
        size: how large the network is now.
        sparsity: what the pruning method has reached, in its own unit.
    """

    def __init__(
        self, config: PPOConfig, run: RunFolder, resume: bool = False, say: Callable[[str], None] = print
    ) -> None:
        """Create everything, or read it from the run's newest undamaged checkpoint.

        Args:
            config: the options.
            run: the folder that takes metrics and checkpoints.
            resume: go on with the run in the folder.
            say: tells the user a line.

        Raises:
            CheckpointError: nothing undamaged to go on from.
        """
        config.check()
        self.config = config
        self.run = run
        self.device = resolve_device(config.device)
        if config.torch_threads is not None:
            torch.set_num_threads(config.torch_threads)
        torch.manual_seed(config.seed)
        self.generator = torch.Generator(self.device).manual_seed(config.seed)
        self.agent = self.build_dense()
        self.dense = self.size = NetworkSize.of(self.agent)
        learning_rate = config.scaled_learning_rate(base=3.5e-4, nature=5e-4)
        self.optimizer = torch.optim.Adam(self.agent.parameters(), lr=learning_rate, eps=1e-5)
        self.method = build_method(self.agent, self.optimizer, config, heads=("actor", "critic"), redo_interval=100)
        env_config = EnvConfig.train(config.env_id, config.num_envs, config.distribution_mode, config.seed)
        self.envs = ProcgenVectorEnv(env_config, config.env_threads)
        self.rollout = Rollout(config.num_steps, config.num_envs, self.device)
        self.reward_normalizer = RewardNormalizer(config.num_envs, config.gamma)
        self.episodes = EpisodeTracker()
        self.iteration = self.global_step = 0
        self.sparsity = 0.0
        self._seconds_before = 0.0  # of training, in the processes before this one
        if resume and checkpoint_folders(run.checkpoints):
            metric_bytes = self._load_checkpoint(say)
        else:  # a run that died before its first checkpoint begins again
            self.next_frames, _ = self.envs.reset()
            metric_bytes = 0
        self.metrics = MetricWriter(run.path, metric_bytes, next_step=self.global_step + 1)
        self._started = self._checkpointed = time.monotonic()
        if self.iteration == 0:
            self.save_checkpoint()

    def train(
        self,
        should_stop: Callable[[], bool] = lambda: False,
        on_row: Callable[[int, Row], None] = lambda step, row: None,
    ) -> bool:
        """Train to the end, or until asked to stop.

        Args:
            should_stop: asked after every iteration.
            on_row: called with the environment steps and the metrics of every iteration.

        Returns:
            whether the training is complete; if not, the last checkpoint is that of now.
        """
        config = self.config
        while self.iteration < config.num_iterations:
            started = time.monotonic()
            explained_variance = self._collect()
            losses = self._update()
            self.iteration += 1
            self.global_step += config.batch_size
            report = self.method.step(self.iteration / config.num_iterations, self.rollout.frames[-1])
            self.size, self.sparsity = self.size.after(report), report.sparsity
            row = {
                **self.episodes.take_row(),
                **losses,
                "losses/explained_variance": explained_variance,
                "pruning/sparsity": self.sparsity,
                **self.size.row(self.dense),
                **self._evaluate_if_due(),
                "time/sps": config.batch_size / (time.monotonic() - started),
                "time/seconds": self.seconds,
            }
            self.metrics.write(self.global_step, row)
            on_row(self.global_step, row)
            stop = should_stop()
            if stop or self._checkpoint_is_due():
                self.save_checkpoint()
            if stop:
                break
        return self.iteration == config.num_iterations

    @property
    def seconds(self) -> float:
        """Seconds of training, in all processes."""
        return self._seconds_before + time.monotonic() - self._started

    def build_dense(self) -> ActorCritic:
        """The network as it is at the start, initialised from PyTorch's global random state."""
        agent = ActorCritic(build_encoder(self.config.encoder, self.config.width), NUM_ACTIONS).to(self.device)
        if self.config.channels_last:
            agent.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return agent

    def policy(self, generator: torch.Generator) -> Policy:
        """The agent as it is evaluated: it samples its actions."""
        return sampled_policy(lambda frames: self.agent(frames)[0], generator, self.device)

    def close(self) -> None:
        """Close environments and files."""
        self.envs.close()
        self.metrics.close()

    @torch.no_grad()
    def _collect(self) -> float:
        """Play one rollout; returns the explained variance of the values."""
        rollout = self.rollout
        for step in range(self.config.num_steps):
            frames = rollout.frames[step]
            frames.copy_(torch.from_numpy(self.next_frames))
            logits, values = self._forward(frames)
            actions = torch.multinomial(torch.softmax(logits, -1), 1, generator=self.generator).squeeze(-1)
            rollout.actions[step] = actions
            rollout.logprobs[step] = categorical_logprobs(logits, actions)
            rollout.values[step] = values
            self.next_frames, rewards, terminated, _, infos = self.envs.step(actions.cpu().numpy())
            rollout.rewards[step] = self.reward_normalizer(rewards, terminated)
            rollout.discounts[step] = self.config.gamma * ~terminated
            self.episodes.add(infos)
        rollout.values[-1] = self._forward(torch.from_numpy(self.next_frames).to(self.device))[1]
        return rollout.finish(self.config.gae_lambda)

    def _update(self) -> dict[str, float]:
        """Some epochs over the rollout; returns the mean losses of all minibatches."""
        config = self.config
        minibatch_size = config.batch_size // config.num_minibatches
        totals = torch.zeros(len(_LOSSES), device=self.device)
        for _ in range(config.update_epochs):
            permutation = torch.randperm(config.batch_size, generator=self.generator, device=self.device)
            for indices in torch.split(permutation, minibatch_size):
                self.optimizer.zero_grad(set_to_none=True)
                totals += self._backward(self.rollout.minibatch(indices))
                self.method.after_backward()
                torch.nn.utils.clip_grad_norm_(self.agent.parameters(), config.max_grad_norm)
                self.optimizer.step()
                self.method.after_optimizer_step()
        means = totals / (config.update_epochs * config.num_minibatches)
        return {f"losses/{name}": value for name, value in zip(_LOSSES, means.tolist(), strict=True)}

    def _backward(self, minibatch: Minibatch) -> Tensor:
        """Gradients of one minibatch, piece by piece; returns its losses, (len(_LOSSES),)."""
        config = self.config
        if config.norm_adv:
            minibatch = minibatch._replace(advantages=normalized(minibatch.advantages))
        size = len(minibatch.actions)
        piece_size = config.microbatch_size or (_CPU_MICROBATCH if self.device.type == "cpu" else size)
        losses = torch.zeros(len(_LOSSES), device=self.device)
        for tensors in zip(*(torch.split(tensor, piece_size) for tensor in minibatch), strict=True):
            piece = Minibatch(*tensors)
            logits, values = self._forward(piece.frames)
            logprobs = categorical_logprobs(logits, piece.actions)
            policy = policy_loss(logprobs, piece.logprobs, piece.advantages, config.clip_coef)
            v_loss = value_loss(values, piece.returns)
            entropy = categorical_entropy(logits).mean()
            weight = len(piece.actions) / size  # the pieces' means add up to the mean over the minibatch
            loss = policy.loss - config.ent_coef * entropy + config.vf_coef * v_loss
            (loss * weight).backward()  # type: ignore[no-untyped-call]
            terms = (policy.loss, v_loss, entropy, policy.approx_kl, policy.clipfrac)
            losses += weight * torch.stack([term.detach() for term in terms])
        return losses

    def _forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and values in float32, whatever the network computes in."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.amp == "bf16"):
            logits, values = self.agent(frames)
        return logits.float(), values.float()

    def _evaluate_if_due(self) -> dict[str, float]:
        """Returns on training levels and on the full distribution, at `eval_points` points of the training."""
        config = self.config
        before, now = (config.eval_points * i // config.num_iterations for i in (self.iteration - 1, self.iteration))
        if before == now or self.iteration == config.num_iterations:  # the end has an evaluation of its own
            return {}
        return self.evaluate(config.eval_interval_episodes)

    def evaluate(self, episodes: int) -> dict[str, float]:
        """Mean returns of `episodes` episodes as ``eval/train_return`` and ``eval/test_return``; {} for none."""
        if episodes == 0:
            return {}
        config = self.config
        protocol = ProtocolConfig(
            config.env_id, config.distribution_mode, episodes, config.eval_num_envs, seed=_EVALUATION_SEED + config.seed
        )
        results = evaluate_tracks(self.policy, protocol, device=self.device)
        return {f"eval/{name}_return": result.mean for name, result in results.items()}

    def _checkpoint_is_due(self) -> bool:
        is_last = self.iteration == self.config.num_iterations
        return is_last or time.monotonic() - self._checkpointed >= 60 * self.config.checkpoint_minutes

    def save_checkpoint(self) -> None:
        """Write a checkpoint of now, between two iterations."""
        env_state = self.envs.get_state()
        state = TrainingState(
            {
                "iteration": self.iteration,
                "sparsity": self.sparsity,
                "global_step": self.global_step,
                "seconds": self.seconds,
                "metric_bytes": self.metrics.sync(),
                "envs": env_state.config,
            }
        )
        state.put_tree("method", self.method.state_dict())
        state.put("envs", env_state.arrays)
        state.put("episodes", self.episodes.state_arrays())
        state.put("rewards", self.reward_normalizer.state_arrays())
        state.put("rng", {"actions": self.generator.get_state().numpy(), "torch": torch.get_rng_state().numpy()})
        save_checkpoint(
            self.run.checkpoints,
            self.global_step,
            self.agent,
            self.optimizer,
            state,
            algorithm="ppo",
            encoder=self.config.encoder,
            width=self.config.width,
        )
        self._checkpointed = time.monotonic()

    def _load_checkpoint(self, say: Callable[[str], None]) -> int:
        """Go on from the newest undamaged checkpoint; returns how many bytes of the metrics it knows of."""
        checkpoint, complaints = latest_checkpoint(self.run.checkpoints)
        for complaint in complaints:
            say(complaint)
        gsprune.load(checkpoint / MODEL_FILE, into=self.agent, optimizer=self.optimizer)
        state = load_state(checkpoint)
        values: dict[str, Any] = state.values
        self.iteration, self.global_step = values["iteration"], values["global_step"]
        self.sparsity = values["sparsity"]
        self._seconds_before = values["seconds"]
        self.method.load_state_dict(state.get_tree("method"))
        self.next_frames = self.envs.set_state(EnvState(values["envs"], state.get("envs")))
        self.episodes.load_state_arrays(state.get("episodes"))
        self.reward_normalizer.load_state_arrays(state.get("rewards"))
        rng = state.get("rng")
        self.generator.set_state(torch.from_numpy(rng["actions"]))
        torch.set_rng_state(torch.from_numpy(rng["torch"]))
        self.size = NetworkSize.of(self.agent)
        say(f"going on from {checkpoint}")
        return int(values["metric_bytes"])
