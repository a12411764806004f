"""The base of all trainers: counts iterations, logs, evaluates, prunes, and can be interrupted and resumed."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

import gsprune
from gsprune.arrays import AnyArray, IntArray
from gsprune.compensation.spread import spread, spread_apart
from gsprune.distributed.ranks import Ranks
from gsprune.networks import Encoder, example_frames
from gsprune.rl.envs.checked import Step, checked_step
from gsprune.rl.envs.provider import EnvironmentDescription
from gsprune.rl.envs.registry import describe, make_environments
from gsprune.rl.evaluation.episodes import Policy
from gsprune.rl.networks import configured_network
from gsprune.rl.training.checkpoints import (
    MODEL_FILE,
    checkpoint_folders,
    latest_checkpoint,
    load_state,
    save_checkpoint,
)
from gsprune.rl.training.compilation import StableWidthCompiler
from gsprune.rl.training.config import TrainConfig, resolve_device
from gsprune.rl.training.environment_states import EnvironmentStates
from gsprune.rl.training.evaluations import Evaluations
from gsprune.rl.training.from_scratch import take_widths
from gsprune.rl.training.metrics import EpisodeTracker, MetricWriter, Row, as_row
from gsprune.rl.training.network_size import NetworkSize
from gsprune.rl.training.pruning import build_method
from gsprune.rl.training.run_folder import RunFolder
from gsprune.rl.training.step_effect import AgentOutputs, StepEffect, held_out_count
from gsprune.rl.training.workers import CPU_MICROBATCH, start_workers
from gsprune.tracing.temporary_eval import temporary_eval

__all__ = ["OnActivity", "Trainer"]

ConfigT = TypeVar("ConfigT", bound=TrainConfig)
ResultT = TypeVar("ResultT")
OnActivity = Callable[[int, str], None]
"""(environment steps so far, including the present iteration, activity of the trainer) -> None."""


class Trainer(ABC, Generic[ConfigT]):
    """A training run. Each algorithm is a subclass.

    Attributes:
        config: the options.
        environment: the description of the environment.
        agent: the network at its present size.
        dense: the size of the network at the start.
        size: the present size of the network.
        iteration: number of finished iterations.
        global_step: number of environment steps in them.
        sparsity: the sparsity that the pruning method has reached, in its own unit.
        evaluations: play the agent during the training and at its end.
        ranks: the processes that train together. Each plays its share of the environments. Gradients are summed, so all
            have the same network. The first process writes the files.
        share: the numbers of this process's environments among all.
    """

    policy_metric: ClassVar[str]
    """The name of the metric for the change of the policy by a pruning step."""
    _redo_interval: ClassVar[int]
    """Number of `step` calls between two checks of ReDo for dormant units."""

    def __init__(
        self,
        config: ConfigT,
        run: RunFolder,
        resume: bool = False,
        say: Callable[[str], None] = print,
        ranks: Ranks | None = None,
    ) -> None:
        """Start a training, or restore it from the run's newest undamaged checkpoint.

        Raises:
            ValueError: an option is wrong.
            CheckpointError: there is no undamaged checkpoint to resume from.
            DistributedError: the processes do not start with the same network.
        """
        config.check()
        self.config, self.run, self.say, self.ranks = config, run, say, ranks or Ranks()
        self.share = self.ranks.share(config.num_envs, "num_envs")
        self.device = resolve_device(config.device, None if self.ranks.is_alone else self.ranks.local_rank)
        whole_batches = config.compile or self.device.type != "cpu"
        self.workers = start_workers(config.workers, config.torch_threads, whole_batches)
        # Without a checkpoint, the run was killed before it wrote one, so it starts over.
        resumes = self.ranks.from_first(lambda: resume and bool(checkpoint_folders(run.checkpoints)))
        self._build_agent(is_new=not resumes)
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
        self.compilation.set_stable(self._widths_are_stable(self.progress))
        self.metrics: MetricWriter | None = None  # the first process writes for all
        if self.ranks.is_first:
            self.metrics = MetricWriter(run.path, metric_bytes, next_step=self.global_step + 1)
        self._started = self._checkpointed = time.monotonic()
        if state is None:
            self.save_checkpoint()

    def _build_agent(self, is_new: bool) -> None:
        """The dense network, or a new one with the widths of `widths_of`, and its optimizer."""
        config = self.config
        torch.manual_seed(config.seed)
        self.environment = describe(config.request(config.num_envs))
        self.agent = self.build_dense()
        self.dense = self.size = NetworkSize.of(self.agent, self.environment.observation_shape)
        with temporary_eval(self.agent):
            self._check_outputs(self.agent(example_frames(2, self.device, self.environment.observation_shape)))
        if config.widths_of is not None and is_new:
            take_widths(self.agent, Path(config.widths_of))
            self.size = NetworkSize.of(self.agent, self.environment.observation_shape)
        self.optimizer = torch.optim.Adam(self.agent.parameters(), lr=self._learning_rate(), eps=config.adam_eps)
        self.compilation = StableWidthCompiler(config.compile, self.say)

    def _build_environments(self) -> None:
        """The environments of this process, and what records episodes."""
        config = self.config
        self.envs: Any = make_environments(config.request(len(self.share), self.share.start))
        self._env_states = EnvironmentStates(config, self.environment, self.envs, self.ranks, self.share)
        self.episodes = EpisodeTracker(self.ranks, self.share.start)

    def _start_counting(self) -> None:
        self.iteration = self.global_step = 0
        self.sparsity = 0.0
        self._seconds_before = 0.0  # with evaluations, before the run was resumed
        self.evaluations = Evaluations(self.config, self.environment, self.policy, self.device, self.say)
        self._saved_iteration = -1  # iteration of the newest checkpoint
        self._on_activity: OnActivity = lambda step, activity: None

    def _build_pruning(self) -> None:
        """The pruning method, and the measurement of its steps."""
        shape, followers = self.environment.observation_shape, self._followers()
        self.method = build_method(
            self.agent, self.optimizer, self.config, shape, followers, self._redo_interval, self.ranks
        )
        self.step_effect = StepEffect(self.agent, self._outputs, self._policy_change, self.policy_metric, self.ranks)

    @staticmethod
    @abstractmethod
    def build_network(encoder: Encoder, environment: EnvironmentDescription) -> nn.Module:
        """The algorithm's network on an encoder. Evaluations and exports call this, too."""

    def _check_outputs(self, outputs: Any) -> None:
        """Raise an error if a network of the user has other outputs than the algorithm needs; by default never.

        Args:
            outputs: those of `agent` for a batch of 2 frames.

        Raises:
            ValueError: names the expected and the actual outputs.
        """
        del outputs

    @abstractmethod
    def _learning_rate(self) -> float:
        """The step size of Adam."""

    @abstractmethod
    def _set_up(self) -> None:
        """Create the algorithm's state. The network has its present widths already."""

    def _followers(self) -> tuple[nn.Module, ...]:
        """Networks that are sliced or masked with the agent; by default none."""
        return ()

    @abstractmethod
    def _iterate(self) -> dict[str, float | int | None]:
        """Run one iteration of `config.steps_per_iteration` environment steps, with pruning; return its metrics."""

    @abstractmethod
    def _num_recent_frames(self) -> int:
        """Number of this process's recent observations, for calibration and for measuring pruning events."""

    @abstractmethod
    def _recent_frames(self, positions: IntArray) -> Tensor:
        """(B, C, H, W) recent observations by their numbers, (B,) in [0, `_num_recent_frames`)."""

    @abstractmethod
    def _outputs(self, frames: Tensor) -> AgentOutputs:
        """The agent's outputs for B frames, without gradients."""

    @abstractmethod
    def _policy_change(self, before: Tensor, after: Tensor) -> Tensor:
        """(B,) differences between two values of `AgentOutputs.policy`."""

    @abstractmethod
    def _put_state(self, state: dict[str, Any]) -> None:
        """Add the algorithm's state to a checkpoint."""

    @abstractmethod
    def _take_state(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `_put_state` added."""

    def _must_checkpoint(self) -> bool:
        """True if a checkpoint must be written before the next iteration; by default never."""
        return False

    def _discard(self) -> None:
        """Delete files that are needed only for further training; by default there are none."""
        return

    @abstractmethod
    def policy(self, generator: torch.Generator) -> Policy:
        """The agent's policy for evaluation."""

    @property
    def progress(self) -> float:
        """The fraction of the training that is done, in [0, 1]."""
        return self.iteration / self.config.num_iterations

    @property
    def seconds(self) -> float:
        """Seconds of training without evaluations, including those before the run was resumed."""
        return self._seconds_before + time.monotonic() - self._started - self.evaluations.seconds

    def build_dense(self) -> nn.Module:
        """The dense network, initialised from PyTorch's global random state."""
        agent = configured_network(vars(self.config), self.environment, self.build_network).to(self.device)
        if self.config.channels_last:
            agent.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return agent

    def train(
        self,
        should_stop: Callable[[], bool] = lambda: False,
        on_row: Callable[[int, Row], None] = lambda step, row: None,
        on_activity: OnActivity = lambda step, activity: None,
    ) -> bool:
        """Train to the end, or until `should_stop` returns True.

        Args:
            should_stop: called after every iteration; all processes stop if it returns True in one.
            on_row: called with the environment steps and the metrics of every iteration.
            on_activity: called often within an iteration, which may take minutes.

        Returns:
            True if the training is complete; otherwise the newest checkpoint has the present state.
        """
        self._on_activity = on_activity
        while self.iteration < self.config.num_iterations:
            before = self.seconds
            metrics = as_row(self._iterate(), type(self).__name__)
            self.iteration += 1
            self.global_step += self.config.steps_per_iteration
            row = {
                **self.episodes.take_row(),
                **metrics,
                "pruning/sparsity": self.sparsity,
                **self.step_effect.take_row(),
                **self.size.row(self.dense),
                **self._evaluate_if_due(),
                "time/sps": self.config.steps_per_iteration / (self.seconds - before),
                "time/seconds": self.seconds,
            }
            if self.metrics is not None:
                self.metrics.write(self.global_step, row)
            on_row(self.global_step, row)
            due = self._checkpoint_is_due() or self._must_checkpoint()
            stop, due = self.ranks.any(should_stop(), due)
            if stop or due:
                self.save_checkpoint()
            if stop:
                break
        return self.iteration == self.config.num_iterations

    def save_checkpoint(self) -> None:
        """Write a checkpoint between two iterations. All processes must call this.

        The checkpoint is that of a single process with all environments, so any number of processes can resume it.
        """
        state = {
            "iteration": self.iteration,
            "global_step": self.global_step,
            "seconds": self.seconds,
            "evaluation_seconds": self.evaluations.seconds,
            "metric_bytes": 0 if self.metrics is None else self.metrics.sync(),
            "sparsity": self.sparsity,
            "compilations": self.compilation.compilations,
            "method": self.method.state_dict(),
            "envs": self._env_states.state_dict(),
            "episodes": self.episodes.state_dict(),
            "rng": torch.get_rng_state(),
        }
        self._put_state(state)
        if self.ranks.is_first:
            save_checkpoint(self.run.checkpoints, self.global_step, self.agent, self.optimizer, state)
        self._saved_iteration = self.iteration
        self._checkpointed = time.monotonic()

    def close(self) -> None:
        """Close environments and files. If the final checkpoint is written, delete files needed only for training."""
        self.envs.close()
        if self.metrics is not None:
            self.metrics.close()
        if self.ranks.is_first and self._saved_iteration == self.config.num_iterations:
            self._discard()

    def _step(self, actions: AnyArray) -> Step:
        """Act once in this process's environments: check the result, count episodes, and replace `next_frames`."""
        step = checked_step(self.envs, actions, self.next_frames, self.config.env_id)
        self.next_frames = step.observations
        self.episodes.add(step.infos)
        return step

    def _learn(
        self,
        loss_of: Callable[[tuple[Tensor, ...]], tuple[Tensor, ResultT]],
        batch: Iterable[Tensor],
        batch_size: int,
        max_grad_norm: float | None,
    ) -> list[ResultT]:
        """Make one gradient step. The batch goes through the network in pieces, whose losses add up.

        Args:
            loss_of: a piece of `batch` -> (its part of the loss of all processes' batches, another result).
            batch: this process's rows.
            batch_size: number of all processes' rows.
            max_grad_norm: gradients are scaled down to this norm; None leaves them as they are.

        Returns:
            the other results of `loss_of`, in the order of the pieces.
        """
        parameters = list(self.agent.parameters())
        size = self.config.microbatch_size or (CPU_MICROBATCH if self.device.type == "cpu" else batch_size)
        pieces = list(zip(*(torch.split(tensor, size) for tensor in batch), strict=True))
        results = self.workers.backward(parameters, loss_of, pieces)
        self.ranks.sum_gradients(parameters)
        self.method.after_backward()
        if max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm)
        self.optimizer.step()
        self.method.after_optimizer_step()
        return results

    def _autocast(self) -> torch.autocast:
        """The context of a forward, with the precision of `amp`.

        Autocast's cache of cast weights is not safe for several threads, so it is off. Each weight is used only once.
        """
        return torch.autocast(self.device.type, torch.bfloat16, self.config.amp == "bf16", cache_enabled=False)

    def _report_activity(self, steps: int, activity: str) -> None:
        """Report the present activity, `steps` environment steps after the last iteration."""
        self._on_activity(self.global_step + steps, activity)

    def _prune(self, progress: float, event: int, batch: Tensor) -> bool:
        """Run a pruning event; return True if it changed the network or its masks.

        Args:
            progress: the fraction of the training that is done, in [0, 1].
            event: the number of the event, which determines its frames.
            batch: a recent batch of observations, for events without calibration.
        """
        self.ranks.check_equal("the networks before a pruning step", self.agent)
        due = self.method.is_due(progress)
        frames = self._calibration_frames(event) if self.config.calibrates else batch
        before = self.step_effect.observe(self._held_out_frames(event)) if due else None
        report = self.method.step(progress, frames)
        if before is not None and report.changed:
            self.step_effect.compare(before)
        self.size = self.size.after(report)
        self.sparsity = report.sparsity
        self.compilation.set_stable(self._widths_are_stable(progress))
        return report.changed

    def _calibration_frames(self, event: int) -> Tensor:
        config = self.config
        return self._recent_frames(
            spread(config.num_calibration_frames, self._num_recent_frames(), (config.seed, event))
        )

    def _held_out_frames(self, event: int) -> Tensor:
        """Recent observations that are not used for calibration, to measure the event."""
        config, total = self.config, self._num_recent_frames()
        seed = (config.seed, event)
        return self._recent_frames(spread_apart(held_out_count(total), total, seed, config.num_calibration_frames))

    def _widths_are_stable(self, progress: float) -> bool:
        """True before the schedule begins and after it ends, and always without group pruning."""
        config = self.config
        return config.pruning != "group" or not config.prune_begin <= progress < config.prune_end

    def _evaluate_if_due(self) -> dict[str, float]:
        """Mean returns if an evaluation is due. The first process plays; the others wait for it."""
        if not self.ranks.is_first or not self.evaluations.is_due(self.iteration):
            return {}
        self._report_activity(0, "evaluating")
        return self.evaluations.run(self.config.eval_interval_episodes)

    def _checkpoint_is_due(self) -> bool:
        is_last = self.iteration == self.config.num_iterations
        return is_last or time.monotonic() - self._checkpointed >= 60 * self.config.checkpoint_minutes

    def _load_network(self) -> dict[str, Any]:
        """Load network and optimizer from the newest undamaged checkpoint; return the other state."""
        checkpoint, complaints = self.ranks.from_first(lambda: latest_checkpoint(self.run.checkpoints))
        for complaint in complaints:
            self.say(complaint)
        gsprune.load(checkpoint / MODEL_FILE, into=self.agent, optimizer=self.optimizer)
        self.size = NetworkSize.of(self.agent, self.environment.observation_shape)
        self.say(f"resuming from {checkpoint}")
        return load_state(checkpoint)

    def _load_rest(self, state: Mapping[str, Any]) -> int:
        """Load everything but network and optimizer; return the size of the metrics file at the checkpoint."""
        self.iteration, self.global_step = state["iteration"], state["global_step"]
        self._saved_iteration = self.iteration
        self.evaluations.seconds = state["evaluation_seconds"]
        self._seconds_before = state["seconds"] + self.evaluations.seconds
        self.sparsity = state["sparsity"]
        self.compilation.compilations = state["compilations"]
        self.method.load_state_dict(state["method"])
        self.next_frames = self._env_states.resume(state["envs"], self.global_step, self.say)
        self.episodes.load_state_dict(state["episodes"])
        torch.set_rng_state(state["rng"])
        self._take_state(state)
        return int(state["metric_bytes"])
