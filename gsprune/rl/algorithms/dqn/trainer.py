"""Double DQN with n-step returns and prioritised replay, with a network that shrinks while it trains.

Sources: Mnih et al. 2015, https://doi.org/10.1038/nature14236; van Hasselt et al. 2016,
https://arxiv.org/abs/1509.06461; Schaul et al. 2016, https://arxiv.org/abs/1511.05952.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gsprune.arrays import IntArray, Uint8Array
from gsprune.rl.algorithms.dqn.agent import build_network, check_outputs, num_actions
from gsprune.rl.algorithms.dqn.config import DQNConfig
from gsprune.rl.algorithms.dqn.losses import double_dqn_targets, epsilon_at, epsilon_greedy, q_loss
from gsprune.rl.algorithms.dqn.replay import PrioritizedReplay, ReplayBatch, ReplayOptions
from gsprune.rl.evaluation.episodes import Policy, greedy_policy
from gsprune.rl.training.step_effect import AgentOutputs
from gsprune.rl.training.trainer import Trainer
from gsprune.rl.training.truncation import truncated_episodes

__all__ = ["DQNTrainer"]

_REPLAY_FILES = "replay*.bin"


class DQNTrainer(Trainer[DQNConfig]):
    """A training run of DQN.

    One gradient step follows every step of all environments, and a pruning event every `prune_interval`-th gradient
    step. The target network is a follower in the same transaction: it keeps its older weights without the removed
    channels.

    Attributes:
        target: the target network, with the agent's widths.
        replay: the replay buffer.
        env_steps: environment steps so far, also within an iteration.
        updates: gradient steps so far.
    """

    policy_metric = "pruning/action_change"
    _redo_interval = 1
    build_network = staticmethod(build_network)

    def _check_outputs(self, outputs: Any) -> None:
        check_outputs(outputs, self.agent, self.environment)

    def _learning_rate(self) -> float:
        return self.config.scaled_learning_rate(base=1e-4, nature=1e-4)

    def _set_up(self) -> None:
        config = self.config
        self.target = copy.deepcopy(self.agent).requires_grad_(False)
        self._batch_size = len(self.ranks.share(config.batch_size, "batch_size"))
        self._num_actions = num_actions(self.environment)
        self.replay = self._build_replay()
        self.env_steps = self.updates = 0
        self._learning_starts = config.learning_starts
        self._rng = np.random.default_rng(config.seed)
        # A single process has one generator. Several processes explore with a common one and sample with separate ones.
        self._sampling_rng = (
            self._rng if self.ranks.is_alone else np.random.default_rng([config.seed, self.ranks.size, self.ranks.rank])
        )
        self._greedy = self.compilation.wrap("the acting network", self._greedy_actions)
        self._targets = self.compilation.wrap("the targets", self._double_dqn_targets)
        self._loss = self.compilation.wrap("the loss", self._q_loss)

    def _build_replay(self) -> PrioritizedReplay:
        """The replay of this process's environments, which may reopen a file."""
        config, stack = self.config, self.environment.stack
        on_disk = config.replay_storage == "disk"
        options = ReplayOptions(
            capacity=config.replay_capacity // config.num_envs * len(self.share),
            n_step=config.n_step,
            gamma=config.gamma,
            alpha=config.priority_alpha,
            beta=config.priority_beta,
            eps=config.priority_eps,
        )
        replay = PrioritizedReplay(
            options,
            len(self.share),
            self._as_stored(np.empty((1, *self.environment.observation_shape), np.uint8)).shape[1:],
            path=self._replay_file() if on_disk else None,
            spare_steps=config.replay_spare // config.num_envs,
            stack=stack,
        )
        frames, rest = replay.frames.nbytes, replay.index_nbytes
        disk, memory = (frames, rest) if on_disk else (0, frames + rest)
        self.say(
            f"the replay takes {disk / 1e9:.2f} GB of disk and {memory / 1e9:.2f} GB of memory"
            + ("" if self.ranks.is_alone else " in each process")
            + ("" if stack == 1 else f"; observations are stacks of {stack} images, each image is stored once")
        )
        return replay

    def _followers(self) -> tuple[nn.Module, ...]:
        return (self.target,)

    def policy(self, generator: torch.Generator) -> Policy:
        """The policy for evaluations, which takes the action with the highest value."""
        return greedy_policy(self._all_values, self.device)

    def _iterate(self) -> dict[str, float | int | None]:
        totals = torch.zeros(2, device=self.device)
        updates = self.updates
        for step in range(self.config.log_interval):
            self._act()
            learns = self.env_steps >= self._learning_starts
            if learns:
                totals += self._update()
            activity = "playing and learning" if learns else "filling the replay"
            self._report_activity((step + 1) * self.config.num_envs, activity)
            # True if a multiple of the interval is within the last step of all environments.
            if self.env_steps % self.config.target_interval < self.config.num_envs:
                self.target.load_state_dict(self.agent.state_dict())
        totals = self.ranks.sum(totals)
        means = (totals / (self.updates - updates)).tolist() if self.updates > updates else [None, None]
        return {
            "losses/td_loss": means[0],
            "losses/q_values": means[1],
            "charts/epsilon": self.epsilon,
            "charts/updates": self.updates,
            "charts/replay_size": int(self.ranks.sum(torch.tensor(self.replay.size))),
        }

    @property
    def epsilon(self) -> float:
        """The present probability of a random action."""
        config = self.config
        return epsilon_at(self.env_steps, config.total_timesteps, config.epsilon_final, config.exploration_fraction)

    def _act(self) -> None:
        """Act once in all environments, and add the step to the replay."""
        frames = self.next_frames
        pieces = self.workers.forward(self._greedy, torch.from_numpy(frames).to(self.device))
        greedy = torch.cat(pieces).cpu().numpy()
        # Every process draws the random numbers of all environments, so that processes use different ones.
        chosen = np.zeros(self.config.num_envs, np.int64)
        mine = slice(self.share.start, self.share.stop)
        chosen[mine] = greedy
        actions = epsilon_greedy(chosen, self.epsilon, self._num_actions, self._rng)[mine]
        _, rewards, terminated, truncated, infos = self._step(actions)
        cut = truncated_episodes(terminated, truncated, infos)
        if cut is not None:
            cut = cut._replace(observations=self._as_stored(cut.observations))
        self.replay.add(self._as_stored(frames), actions, rewards, terminated | truncated, cut)
        self.env_steps += self.config.num_envs

    def _update(self) -> Tensor:
        """Take a gradient step, and a pruning step if one is due; return (2,) loss and mean value.

        Each of several processes samples its share of the batch from its own replay by its own priorities, and returns
        its part of the sums.
        """
        config = self.config
        batch = self.replay.sample(self._batch_size, self._sampling_rng)
        tensors = self._tensors(batch)
        parts, errors = zip(
            *self._learn(self._piece_loss, tensors, config.batch_size, config.max_grad_norm), strict=True
        )
        self.replay.update(batch.leaves, torch.cat(errors).cpu().numpy())
        self.updates += 1
        before, progress = self._progress_at(self.env_steps - config.num_envs), self._progress_at(self.env_steps)
        schedule_ends = before < config.prune_end <= progress  # an event, also between multiples of the interval
        if self.updates % config.prune_interval == 0 or schedule_ends:
            self._prune(progress, self.updates, tensors[0])
        return sum(parts, torch.zeros(2, device=self.device))

    def _as_stored(self, frames: Uint8Array) -> Uint8Array:
        """Observations (N, C, H, W) as the replay stores them.

        Stacks are stored image by image. Other observations are stored with channels last, the memory order of Procgen
        and of the network, so no copy changes the order.
        """
        return frames if self.environment.stack > 1 else frames.transpose(0, 2, 3, 1)

    def _frames(self, stored: Uint8Array) -> Tensor:
        """Observations of the replay as (B, C, H, W), channels last in memory."""
        frames = torch.from_numpy(stored).to(self.device)
        if self.environment.stack > 1:
            # One conversion here saves one in each of three forwards; `stack` is twice as fast as `contiguous`.
            frames = torch.stack(frames.unbind(1), dim=-1)
        return frames.permute(0, 3, 1, 2)

    def _tensors(self, batch: ReplayBatch) -> tuple[Tensor, ...]:
        """Observations, actions, returns, discounts, next observations and weights."""
        return (
            self._frames(batch.observations),
            torch.from_numpy(batch.actions).to(self.device),
            torch.from_numpy(batch.returns).to(self.device),
            torch.from_numpy(batch.discounts).to(self.device),
            self._frames(batch.next_observations),
            torch.from_numpy(batch.weights).to(self.device),
        )

    def _num_recent_frames(self) -> int:
        return self.replay.size

    def _recent_frames(self, positions: IntArray) -> Tensor:
        return self._frames(self.replay.frames_at(positions))

    def _outputs(self, frames: Tensor) -> AgentOutputs:
        """The values of all actions, which also determine the policy."""
        values = self._all_values(frames)
        return AgentOutputs(values, values)

    def _all_values(self, frames: Tensor) -> Tensor:
        """(B, actions) values of the agent, computed by the workers."""
        return torch.cat(self.workers.forward(partial(self._values, self.agent), frames))

    def _policy_change(self, before: Tensor, after: Tensor) -> Tensor:
        """1 where another action has the highest value, else 0."""
        return before.argmax(1) != after.argmax(1)

    def _piece_loss(self, piece: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """A piece's part of the loss, of the (loss, mean value) of the batch, and its errors."""
        observations, actions, returns, discounts, next_observations, weights = piece
        with torch.no_grad():
            targets = self._targets(next_observations, returns, discounts)
        loss, error = self._loss(observations, actions, targets, weights)
        share = len(actions) / self.config.batch_size  # the pieces' means, of all processes, add up to the batch's
        return loss * share, (share * torch.stack([loss.detach(), (targets - error).mean()]), error)

    def _progress_at(self, env_steps: int) -> float:
        """The progress of the training after a number of environment steps."""
        return env_steps / (self.config.num_iterations * self.config.steps_per_iteration)

    def _values(self, network: nn.Module, frames: Tensor) -> Tensor:
        """The values of all actions in float32."""
        with self._autocast():
            values: Tensor = network(frames)
        return values.float()

    def _greedy_actions(self, frames: Tensor) -> Tensor:
        return self._values(self.agent, frames).argmax(1)

    def _double_dqn_targets(self, frames: Tensor, returns: Tensor, discounts: Tensor) -> Tensor:
        online, target = self._values(self.agent, frames), self._values(self.target, frames)
        return double_dqn_targets(returns, discounts, online, target)

    def _q_loss(self, frames: Tensor, actions: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        return q_loss(self._values(self.agent, frames), actions, targets, weights)

    def _must_checkpoint(self) -> bool:
        return self.replay.needs_checkpoint(self.config.log_interval)

    def _discard(self) -> None:
        for file in self.run.path.glob(_REPLAY_FILES):
            file.unlink(missing_ok=True)

    def _replay_file(self) -> Path:
        """The file of this process's replay. Files of another number of processes are deleted."""
        ranks = self.ranks
        names = ["replay.bin"] if ranks.is_alone else [f"replay-{i}-of-{ranks.size}.bin" for i in range(ranks.size)]
        if ranks.is_first:
            for file in self.run.path.glob(_REPLAY_FILES):
                if file.name not in names:
                    file.unlink(missing_ok=True)
        return self.run.path / names[ranks.rank]

    def _put_state(self, state: dict[str, Any]) -> None:
        values = state["dqn"] = {
            "env_steps": self.env_steps,
            "updates": self.updates,
            "learning_starts": self._learning_starts,
            "rng": self._rng.bit_generator.state,
            "target": self.target.state_dict(),
            "sampling": self.ranks.gather(self._sampling_rng.bit_generator.state),
        }
        if self.config.replay_storage == "disk":
            self.replay.frames.flush()  # before the checkpoint is written
            values["replays"] = self.ranks.gather(self.replay.state_dict())
            self.replay.checkpointed()

    def _take_state(self, state: Mapping[str, Any]) -> None:
        values = state["dqn"]
        self.env_steps, self.updates = values["env_steps"], values["updates"]
        self._learning_starts = values["learning_starts"]
        self._rng.bit_generator.state = values["rng"]
        self.target.load_state_dict(values["target"])
        if len(values["sampling"]) == self.ranks.size:
            self._sampling_rng.bit_generator.state = values["sampling"][self.ranks.rank]
        is_missing = self.ranks.any(not self.replay.frames.is_reopened)[0]  # if one file is missing, all start over
        if not is_missing:
            self.replay.load_state_dict(values["replays"][self.ranks.rank])
            if not self.environment.can_save_states:
                self.replay.cut_episodes()
        elif self.iteration < self.config.num_iterations:
            self._learning_starts = self.env_steps + self.config.learning_starts
            file = self.replay.frames.path
            where = "in memory" if file is None else f"in {file.name}, which is missing,"
            self.say(
                f"the replay was {where} and is lost: learning goes on after {self.config.learning_starts:,} new steps"
            )
