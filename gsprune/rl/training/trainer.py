"""What PPO and DQN share: a run that counts iterations, logs, evaluates, prunes, and can be interrupted and resumed."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

import gsprune
from gsprune.distributed.gradients import GradientSum
from gsprune.distributed.ranks import Ranks
from gsprune.rl.envs.registry import describe, make_environments
from gsprune.rl.evaluation.episodes import Policy
from gsprune.rl.training.checkpoints import (
    MODEL_FILE,
    TrainingState,
    checkpoint_folders,
    latest_checkpoint,
    load_state,
    save_checkpoint,
)
from gsprune.rl.training.compilation import CompiledWhileResting
from gsprune.rl.training.config import TrainConfig, resolve_device
from gsprune.rl.training.environment_states import EnvironmentStates, training_request
from gsprune.rl.training.from_scratch import take_widths
from gsprune.rl.training.metrics import EpisodeLog, EpisodeTracker, MetricWriter, NoMetrics, Row, RowSink
from gsprune.rl.training.own_evaluations import OwnEvaluations
from gsprune.rl.training.pruning import NetworkSize, build_method
from gsprune.rl.training.run_folder import RunFolder
from gsprune.rl.training.step_effect import AgentOutputs, StepEffect
from gsprune.rl.training.workers import start_workers

__all__ = ["OnActivity", "Trainer"]

ConfigT = TypeVar("ConfigT", bound=TrainConfig)
OnActivity = Callable[[int, str], None]
"""Takes the environment steps so far, those of the present iteration included, and what the trainer is doing."""


class Trainer(ABC, Generic[ConfigT]):
    """A training run; its subclasses are the algorithms.

    Attributes:
        algorithm: the name of the algorithm in checkpoints.
        config: the options.
        environment: the description of the environment.
        agent: the network, as small as it is now.
        dense: how large the network was at the start.
        size: how large it is now.
        iteration: iterations that are over.
        global_step: environment steps that are over.
        sparsity: what the pruning method has reached, in its own unit.
        ranks: the processes that train together. Each plays its share of the environments; the gradients add up, so
            that all hold the same network, and the first writes the files.
        share: the environments of this process, by their numbers among all.
    """

    algorithm: ClassVar[str]
    policy_metric: ClassVar[str]
    """The name of the metric for the change of the policy by a pruning step."""

    def __init__(
        self,
        config: ConfigT,
        run: RunFolder,
        resume: bool = False,
        say: Callable[[str], None] = print,
        ranks: Ranks | None = None,
    ) -> None:
        """Create everything, or read it from the run's newest undamaged checkpoint.

        Args:
            config: the options.
            run: the folder that takes metrics and checkpoints.
            resume: go on with the run in the folder.
            say: tells the user a line.
            ranks: the processes of this training; None for this one alone.

        Raises:
            ValueError: an option is wrong.
            CheckpointError: nothing undamaged to go on from.
            DistributedError: the processes do not begin with the same network.
        """
        config.check()
        self.config, self.run, self.say, self.ranks = config, run, say, ranks or Ranks()
        self.share = self.ranks.share(config.num_envs, "num_envs")
        self.device = resolve_device(config.device, None if self.ranks.is_alone else self.ranks.local_rank)
        whole_batches = config.compile or self.device.type != "cpu"
        self.workers = start_workers(config.workers, config.torch_threads, whole_batches)
        # Without a checkpoint, the run was killed before it wrote one, so it starts over.
        resumes = self.ranks.from_first(lambda: resume and bool(checkpoint_folders(run.checkpoints)))
        self._build_network(is_new=not resumes)
        self._build_environments()
        self._start_counting()
        state = self._load_network() if resumes else None
        self._set_up()
        self._build_pruning()
        self.ranks.check_equal("the networks at the start", self.agent)
        if state is None:
            self.next_frames, metric_bytes = self._env_states.begin(), 0
        else:
            metric_bytes = self._load_rest(state)
        self.compilation.rest(self._widths_rest(self.progress))
        self.metrics: RowSink = (
            MetricWriter(run.path, metric_bytes, next_step=self.global_step + 1) if self.ranks.is_first else NoMetrics()
        )
        self._started = self._checkpointed = time.monotonic()
        if state is None:
            self.save_checkpoint()

    def _build_network(self, is_new: bool) -> None:
        """The dense network, or a new one with the widths of `widths_of`, and its optimizer."""
        config = self.config
        torch.manual_seed(config.seed)
        self.environment = describe(training_request(config, config.num_envs))
        self.agent = self.build_dense()
        self.dense = self.size = NetworkSize.of(self.agent, self.environment.observation_shape)
        if config.widths_of is not None and is_new:
            take_widths(self.agent, Path(config.widths_of))
            self.size = NetworkSize.of(self.agent, self.environment.observation_shape)
        self.optimizer = torch.optim.Adam(self.agent.parameters(), lr=self._learning_rate(), eps=1e-5)
        self.sum_gradients = GradientSum(self.agent.parameters(), self.ranks)
        self.compilation = CompiledWhileResting(config.compile, self.say)

    def _build_environments(self) -> None:
        """The environments of this process, and what plays and records episodes."""
        config = self.config
        self.envs: Any = make_environments(training_request(config, len(self.share), self.share.start))
        self._env_states = EnvironmentStates(config, self.environment, self.envs, self.ranks, self.share)
        self.ended = EpisodeLog(self.share.start)
        self.episodes = EpisodeTracker()
        self._evaluations = OwnEvaluations(config, self.policy, self.device, self.say)

    def _start_counting(self) -> None:
        self.iteration = self.global_step = 0
        self.sparsity = 0.0
        self._seconds_before = 0.0  # of training, in the processes before this one
        self._saved_iteration = -1  # of the newest checkpoint
        self._on_activity: OnActivity = lambda step, activity: None

    def _build_pruning(self) -> None:
        """The pruning method, and the measurement of its steps."""
        shape, followers = self.environment.observation_shape, self._followers()
        self.method = build_method(
            self.agent, self.optimizer, self.config, shape, followers, self._redo_interval, self.ranks
        )
        self.step_effect = StepEffect(self.agent, self._outputs, self._policy_change, self.policy_metric, self.ranks)

    @abstractmethod
    def _build_agent(self) -> nn.Module:
        """The dense network, on the CPU, initialised from PyTorch's global random state."""

    @abstractmethod
    def _learning_rate(self) -> float:
        """The step size of Adam."""

    @property
    @abstractmethod
    def _redo_interval(self) -> int:
        """Calls of the method's `step` between two looks of ReDo at the activations."""

    @abstractmethod
    def _set_up(self) -> None:
        """Create what the algorithm needs besides the network, whose present widths are known by now."""

    @abstractmethod
    def _followers(self) -> tuple[nn.Module, ...]:
        """Networks that are sliced or masked with the agent."""

    @abstractmethod
    def _iterate(self) -> dict[str, float | int | None]:
        """One iteration of `config.steps_per_iteration` environment steps, pruning included; returns its metrics."""

    @abstractmethod
    def _held_out_frames(self) -> Tensor:
        """(B, C, H, W) recent observations for a pruning event, other ones than compensation is fitted on."""

    @abstractmethod
    def _outputs(self, frames: Tensor) -> AgentOutputs:
        """The agent's outputs for B frames, without gradients."""

    @abstractmethod
    def _policy_change(self, before: Tensor, after: Tensor) -> Tensor:
        """(B,) changes from one `AgentOutputs.policy` to another."""

    @abstractmethod
    def _put_state(self, state: TrainingState) -> None:
        """Add what the algorithm needs to go on."""

    @abstractmethod
    def _take_state(self, state: TrainingState) -> None:
        """Go on from what `_put_state` added."""

    @abstractmethod
    def _must_checkpoint(self) -> bool:
        """Whether the next iteration may not begin without a checkpoint."""

    @abstractmethod
    def _discard(self) -> None:
        """Delete what lies on disk for further training alone."""

    @abstractmethod
    def policy(self, generator: torch.Generator) -> Policy:
        """The agent as it is evaluated."""

    @property
    def progress(self) -> float:
        """The share of the training that is over, in [0, 1]."""
        return self.iteration / self.config.num_iterations

    @property
    def seconds(self) -> float:
        """Seconds of training without evaluations, of the processes before this one, too."""
        return self._seconds_before + time.monotonic() - self._started

    @property
    def evaluation_seconds(self) -> float:
        """Seconds of all evaluations, of the processes before this one, too."""
        return self._evaluations.seconds

    def build_dense(self) -> nn.Module:
        """The network as it is at the start, initialised from PyTorch's global random state."""
        agent = self._build_agent().to(self.device)
        if self.config.channels_last:
            agent.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return agent

    def train(
        self,
        should_stop: Callable[[], bool] = lambda: False,
        on_row: Callable[[int, Row], None] = lambda step, row: None,
        on_activity: OnActivity = lambda step, activity: None,
    ) -> bool:
        """Train to the end, or until asked to stop.

        Args:
            should_stop: asked after every iteration; one process that is to stop stops all.
            on_row: called with the environment steps and the metrics of every iteration.
            on_activity: called often within an iteration, which may take minutes.

        Returns:
            whether the training is complete; if not, the last checkpoint is that of now.
        """
        self._on_activity = on_activity
        while self.iteration < self.config.num_iterations:
            before = self.seconds
            metrics = self._iterate()
            self.iteration += 1
            self.global_step += self.config.steps_per_iteration
            row = {
                **self._episode_row(),
                **metrics,
                "pruning/sparsity": self.sparsity,
                **self.step_effect.take_row(),
                **self.size.row(self.dense),
                **self._evaluate_if_due(),
                "time/sps": self.config.steps_per_iteration / (self.seconds - before),
                "time/seconds": self.seconds,
            }
            self.metrics.write(self.global_step, row)
            on_row(self.global_step, row)
            due = self._checkpoint_is_due() or self._must_checkpoint()
            stop, due = self.ranks.any(should_stop(), due)
            if stop or due:
                self.save_checkpoint()
            if stop:
                break
        return self.iteration == self.config.num_iterations

    def evaluate(self, episodes: int) -> dict[str, float]:
        """Mean returns of `episodes` episodes; see `OwnEvaluations.returns`."""
        before = self.evaluation_seconds
        returns = self._evaluations.returns(episodes)
        self._started += self.evaluation_seconds - before  # An evaluation is not part of the training time.
        return returns

    def save_checkpoint(self) -> None:
        """Write a checkpoint of now, between two iterations; all processes together.

        It is that of one process with all environments, so that any number of processes can go on from it.
        """
        state = TrainingState(
            {
                "iteration": self.iteration,
                "global_step": self.global_step,
                "seconds": self.seconds,
                "evaluation_seconds": self.evaluation_seconds,
                "metric_bytes": self.metrics.sync(),
                "sparsity": self.sparsity,
                "compilations": self.compilation.compilations,
            }
        )
        state.put_tree("method", self.method.state_dict())
        self._env_states.put(state)
        state.put("episodes", self.episodes.state_arrays())
        state.put("rng", {"torch": torch.get_rng_state().numpy()})
        self._put_state(state)
        config = self.config
        labels = {"algorithm": self.algorithm, "encoder": config.encoder, "width": config.width}
        if self.ranks.is_first:
            save_checkpoint(self.run.checkpoints, self.global_step, self.agent, self.optimizer, state, **labels)
        self._saved_iteration = self.iteration
        self._checkpointed = time.monotonic()

    def close(self) -> None:
        """Close environments and files; a training whose end is on disk drops what only training needs."""
        self.envs.close()
        self.metrics.close()
        if self.ranks.is_first and self._saved_iteration == self.config.num_iterations:
            self._discard()

    def _report_activity(self, steps: int, activity: str) -> None:
        """Say what is being done, `steps` environment steps after the last whole iteration."""
        self._on_activity(self.global_step + steps, activity)

    def _prune(self, progress: float, frames: Tensor) -> None:
        """A pruning event.

        Args:
            progress: the share of the training that is over now, in [0, 1].
            frames: a recent batch of observations.
        """
        self.ranks.check_equal("the networks before a pruning step", self.agent)
        due = self.method.is_due(progress)
        before = self.step_effect.observe(self._held_out_frames()) if due else None
        report = self.method.step(progress, frames)
        if before is not None and report.changed:
            self.step_effect.compare(before)
        self.size = self.size.after(report)
        self.sparsity = report.sparsity
        self.compilation.rest(self._widths_rest(progress))

    def _widths_rest(self, progress: float) -> bool:
        """Whether no width changes until the schedule's next corner."""
        config = self.config
        return config.pruning != "group" or not config.prune_begin <= progress < config.prune_end

    def _evaluate_if_due(self) -> dict[str, float]:
        """Mean returns, at `eval_points` points of the training; the first process plays, the others wait for it."""
        if not self.ranks.is_first or not self._evaluations.is_due(self.iteration):
            return {}
        self._report_activity(0, "evaluating")
        return self.evaluate(self.config.eval_interval_episodes)

    def _checkpoint_is_due(self) -> bool:
        is_last = self.iteration == self.config.num_iterations
        return is_last or time.monotonic() - self._checkpointed >= 60 * self.config.checkpoint_minutes

    def _episode_row(self) -> dict[str, float | int | None]:
        """The metrics of the episodes of all processes, on the first."""
        parts = self.ranks.gather(self.ended.take()) or ()
        self.episodes.add(episode for part in parts for episode in part)
        return self.episodes.take_row()

    def _load_network(self) -> TrainingState:
        """Network and optimizer of the newest undamaged checkpoint; returns the rest of it."""
        checkpoint, complaints = self.ranks.from_first(lambda: latest_checkpoint(self.run.checkpoints))
        for complaint in complaints:
            self.say(complaint)
        gsprune.load(checkpoint / MODEL_FILE, into=self.agent, optimizer=self.optimizer)
        self.size = NetworkSize.of(self.agent, self.environment.observation_shape)
        self.say(f"going on from {checkpoint}")
        return load_state(checkpoint)

    def _load_rest(self, state: TrainingState) -> int:
        """Everything but network and optimizer; returns how many bytes of the metrics the checkpoint knows of."""
        values = state.values
        self.iteration, self.global_step = values["iteration"], values["global_step"]
        self._saved_iteration = self.iteration
        self._seconds_before = values["seconds"]
        self._evaluations.seconds = values.get("evaluation_seconds", 0.0)  # Older checkpoints count it as training.
        self.sparsity = values["sparsity"]
        self.compilation.compilations = values["compilations"]
        self.method.load_state_dict(state.get_tree("method"))
        self.next_frames = self._env_states.resume(state, self.global_step, self.say)
        self.episodes.load_state_arrays(state.get("episodes"))
        torch.set_rng_state(torch.from_numpy(state.get("rng")["torch"]))
        self._take_state(state)
        return int(values["metric_bytes"])
