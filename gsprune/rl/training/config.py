"""The options that all trainers share, and their checks.

The docstring under each field is the help of the command line.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch

from gsprune.checks import check_number, suggestion
from gsprune.compensation.calibration import MIN_EXAMPLES
from gsprune.engines import ENGINES, LatencyBudget, WidthPreset, multiple_of
from gsprune.rl.envs.provider import EnvironmentDescription, EnvironmentRequest
from gsprune.rl.envs.registry import describe
from gsprune.rl.importance import configured_importance
from gsprune.rl.networks import check_encoder
from gsprune.rl.training.idle_options import refuse_idle
from gsprune.schedules import Polynomial

__all__ = ["PruningMethod", "TrainConfig", "resolve_device"]

PruningMethod = Literal["none", "group", "structured", "unstructured", "redo"]

_CALIBRATION_FRAMES = 512
_REFERENCE_WIDTH = 2  # the width at which the published learning rates hold


@dataclass(frozen=True, kw_only=True)
class TrainConfig(ABC):
    """The options of every trainer: environment, network, pruning, machine and evaluation."""

    env_id: str = "bigfish"
    """the environment: a Procgen game (bigfish, bossfight, caveflyer, chaser, climber, coinrun, dodgeball, fruitbot,
    heist, jumper, leaper, maze, miner, ninja, plunder or starpilot), an Atari game such as ALE/Pong-v5, an environment
    of gymnasium with images such as CarRacing-v3, or your own as package.module:factory"""
    env_options: str = ""
    """options of the environment, as name=value,name=value: for gymnasium size, grey, stack, key, asynchronous, and
    arguments of its constructor; for Atari sticky_actions, episodic_life, clip_rewards, noop_max, full_actions,
    size"""
    distribution_mode: Literal["easy", "hard"] = "easy"
    """difficulty of Procgen's levels; training plays levels 0-199 of easy, 0-499 of hard"""
    seed: int = 1
    """seed of all random numbers: weights, actions, minibatches, episodes"""
    total_timesteps: int = 25_000_000
    """environment steps of the whole training, over all environments"""
    num_envs: int = 64
    """number of parallel environments"""

    encoder: str = "impoola"
    """the network: nature, impala, or impoola (impala with a mean over space before its dense layer); or your own as
    package.module:factory, a callable(observation_shape) -> torch.nn.Module with an attribute num_features"""
    num_features: int = 256
    """outputs of a built-in encoder, the input of the heads; not scaled by width"""
    network: str | None = None
    """your own whole network as package.module:factory, a callable(environment description) -> torch.nn.Module with the
    outputs of the algorithm's network; unset: the encoder with the algorithm's heads"""
    width: float = 2
    """multiplier of the convolutions' filters (tau in Impoola), at least 1"""
    widths_of: str | None = None
    """folder of a run: start from its final widths with new random weights, instead of the dense widths"""
    learning_rate: float | None = None
    """step size of Adam; unset: the encoder's published one, which decreases with width"""
    adam_eps: float = 1e-5
    """term in the denominator of Adam's steps"""

    pruning: PruningMethod = "group"
    """none; group: remove coupled channels, so that the network gets smaller; or a baseline that keeps its size:
    structured and unstructured (masks over filters or weights), redo (resets dormant units)"""
    sparsity: float = 0.8
    """final sparsity, in [0, 1): the fraction of channels (or of `target`) that is removed"""
    prune_begin: float = 0.2
    """fraction of the training before the first pruning step"""
    prune_end: float = 0.8
    """fraction of the training after which the final sparsity is reached"""
    importance: str = "l1"
    """score of channels, highest kept: activation, bn_scale, fpgm, hessian, l1, l2, lamp, random, reconstruction or
    taylor; or your own as package.module:name, a gsprune.Criterion (class or object) or a function of a weight matrix;
    reconstruction is made for `compensate` linear"""
    scope: Literal["local", "global", "isomorphic"] = "local"
    """where channels compete: within their group, over all groups, or over groups of the same kind"""
    target: Literal["channels", "params", "macs", "latency"] = "channels"
    """the unit of the sparsity; with latency, the schedule ends at `latency_budget_ms` instead of a sparsity"""
    latency_budget_ms: float | None = None
    """milliseconds that one forward may take at the end, measured on this machine's CPU"""
    latency_engine: str = "eager"
    """engine in which the network is timed: eager or compiled (PyTorch), onnxruntime or onnxruntime-int8"""
    latency_batch: int = 1
    """frames per forward when the network is timed, on one thread"""
    round_to: int | WidthPreset = 1
    """round widths up to a multiple: a number, or the preset of an engine: onnxruntime (8; the best on CPUs in
    PyTorch, too), tensorrt-fp16 (8), cmsis-nn (4), ethos-u (16)"""
    min_channels: int = 1
    """smallest width of a group"""
    rescale: bool = False
    """scale kept channels up, to restore the norm that the removed channels had"""
    compensate: Literal["none", "bias", "linear"] = "none"
    """how the layers that read removed channels are compensated: linear predicts them from the kept channels, bias
    replaces them by their mean, none does nothing"""
    calibration_frames: int | None = None
    """frames per process for `compensate` and for importance reconstruction at every pruning step, from the last
    rollout (PPO) or the replay (DQN); unset: 512, but at most a twentieth of the frames that the network learns between
    two pruning steps"""
    backend: Literal["auto", "cpp", "triton", "torch"] = "auto"
    """backend for scoring and slicing: the C++ core, Triton kernels or plain PyTorch; auto chooses by device"""

    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto uses a GPU if there is one"""
    workers: int | None = None
    """threads that compute pieces of a batch in parallel on the CPU, with the same result for any number of threads;
    unset: one per usable core, at most OMP_NUM_THREADS"""
    torch_threads: int | None = None
    """threads of PyTorch in each worker; unset: 1 (PyTorch's own choice with --compile or on a GPU)"""
    env_threads: int | None = None
    """threads that step the environments; unset: one per core, four at most"""
    channels_last: bool = True
    """keep weights and activations channels-last, which is 2 to 4 times as fast on CPUs"""
    amp: Literal["none", "bf16"] = "none"
    """mixed precision: none (float32) or bf16 (autocast to bfloat16)"""
    microbatch_size: int | None = None
    """size of the pieces of a batch that go through the network; unset: 64 on the CPU (its caches), whole on a GPU"""
    compile: bool = False
    """torch.compile the network while its widths are stable, before and after the schedule; eager in between"""

    eval_episodes: int = 2500
    """episodes of the final evaluation, in Procgen on training levels and again on the full distribution; 0 skips it"""
    eval_interval_episodes: int = 1000
    """episodes of each evaluation during training; 0 skips these evaluations"""
    eval_points: int = 10
    """number of evaluations during training, evenly spaced"""
    eval_num_envs: int = 64
    """environments of an evaluation; each plays the same number of episodes"""
    checkpoint_minutes: float = 5.0
    """minutes between checkpoints; 0 writes one after every iteration"""

    @property
    @abstractmethod
    def frames_between_prunings(self) -> int:
        """Frames from which the network learns between two pruning steps."""

    @property
    @abstractmethod
    def steps_per_iteration(self) -> int:
        """Environment steps per row of metrics."""

    def request(self, num_envs: int, first_env: int = 0) -> EnvironmentRequest:
        """A request for `num_envs` of the training's environments, from number `first_env` on."""
        return EnvironmentRequest.of_run(
            vars(self), num_envs=num_envs, seed=self.seed, first_env=first_env, num_threads=self.env_threads
        )

    @property
    def num_iterations(self) -> int:
        """Iterations of the whole training; a last, incomplete one is omitted."""
        return self.total_timesteps // self.steps_per_iteration

    def check(self) -> None:
        """Raise an error for the first invalid option. Trainers call this first.

        Raises:
            ValueError: names the option, its value, the constraint and the way out.
        """
        _check_choices(self)
        configured_importance(self.importance)
        check_encoder(self.encoder)
        self._check_numbers("width", "num_features", at_least=1)
        self.check_environment(describe(self.request(self.num_envs)))
        resolve_device(self.device)
        self._check_numbers("sparsity", at_least=0, below=1, meaning="0.8 removes 80 %")
        self._check_numbers("prune_begin", "prune_end", at_least=0, at_most=1, meaning="a fraction of the training")
        if self.prune_begin > self.prune_end:
            raise ValueError(
                f"`prune_begin` must not be after `prune_end`, got {self.prune_begin} and {self.prune_end}; swap them"
            )
        if self.rescale and self.compensate != "none":
            raise ValueError(
                f"`rescale` is True and `compensate` is {self.compensate!r}: both make up for the same channels; leave"
                " one of them out"
            )
        self._check_numbers("calibration_frames", at_least=MIN_EXAMPLES)
        multiple_of(self.round_to)
        if isinstance(self.round_to, int):
            self._check_numbers("round_to", at_least=1)
        self._check_budget()
        self._check_numbers("total_timesteps", "min_channels", "eval_points", "eval_num_envs", at_least=1)
        self._check_numbers("workers", "torch_threads", "env_threads", "microbatch_size", at_least=1)
        self._check_numbers("eval_episodes", "eval_interval_episodes", "checkpoint_minutes", at_least=0)
        self._check_numbers("learning_rate", "adam_eps", above=0)
        refuse_idle(self)

    @abstractmethod
    def check_environment(self, environment: EnvironmentDescription) -> None:
        """Raise an error for an environment that the algorithm does not support.

        Raises:
            ValueError: names the property that is unsupported.
        """

    def idle_by_algorithm(self) -> dict[str, str]:
        """Options of the algorithm that have no effect because of others: option -> reason."""
        return {}

    @property
    def calibrates(self) -> bool:
        """True if a pruning step needs frames, for compensation or for its scores."""
        return self.compensate != "none" or configured_importance(self.importance).needs_calibration

    @property
    def num_calibration_frames(self) -> int:
        """Frames per process that a pruning step reads; 0 if it needs none.

        Unless the option is set, the number is so small that pruning steps take at most 3 % of the time.
        """
        few = max(MIN_EXAMPLES, min(_CALIBRATION_FRAMES, self.frames_between_prunings // 20))
        return (self.calibration_frames or few) if self.calibrates else 0

    @property
    def budget(self) -> LatencyBudget | None:
        """The latency budget at the end of the schedule; None if the schedule ends at a sparsity."""
        if self.latency_budget_ms is None:
            return None
        return LatencyBudget(self.latency_budget_ms, self.latency_engine, batch=self.latency_batch)

    def _check_numbers(self, *names: str, **bounds: Any) -> None:
        """Raise an error for the first of these options that is set and out of its bounds; see `check_number`."""
        for name in names:
            value = getattr(self, name)
            if value is not None:
                check_number(name, value, **bounds)

    def _check_frames(self, option: str, frames: int, needed_beside: int = 0) -> None:
        """Raise an error if there are too few frames for a pruning step.

        Args:
            option: the options that determine the number of frames.
            frames: number of frames at the first pruning step.
            needed_beside: number of frames that are not available for calibration.
        """
        least = MIN_EXAMPLES + needed_beside
        if self.calibrates and frames < least:
            reader = f"`importance` {self.importance}, which scores"
            if self.compensate != "none":
                reader = f"`compensate` {self.compensate}, which is fitted"
            raise ValueError(f"`{option}` must be at least {least} with {reader} on frames, got {frames}")

    def schedule(self) -> Polynomial:
        """The cubic schedule of the training, which ends at the sparsity or the latency budget."""
        final = self.budget or self.sparsity
        return Polynomial(final=final, begin=self.prune_begin, end=self.prune_end, power=3)

    def _check_budget(self) -> None:
        if (self.target == "latency") != (self.latency_budget_ms is not None):
            raise ValueError(
                "`latency_budget_ms` needs target latency, and target latency needs `latency_budget_ms`, got "
                f"{self.latency_budget_ms} and {self.target}; set both or neither"
            )
        if self.budget is None:  # otherwise `LatencyBudget` has checked its values
            return
        if self.pruning != "group":
            raise ValueError(f"`target` latency needs pruning group, got {self.pruning}, which saves no time")
        if self.scope != "local":
            raise ValueError(
                f"`scope` must be local with `target` latency, which finds one ratio for all groups, got {self.scope}"
            )

    def scaled_learning_rate(self, base: float, nature: float) -> float:
        """The option `learning_rate`, or by default lr / (tau / 2), the paper's rule, except for the Nature-CNN.

        Args:
            base: lr, the published step size of Impala and Impoola at width 2.
            nature: the published step size of the Nature-CNN, which is not scaled.
        """
        if self.learning_rate is not None:
            return self.learning_rate
        return nature if self.encoder == "nature" else base / (self.width / _REFERENCE_WIDTH)


def resolve_device(name: str, local_rank: int | None = None) -> torch.device:
    """The device of that name; "auto" is a GPU if there is one, else the CPU.

    Args:
        name: as in `TrainConfig.device`.
        local_rank: number of this process among those of this machine, which is the number of its GPU; None for a
            single process.

    Raises:
        ValueError: the machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if local_rank is not None and name != "cpu":
        if name != "cuda":
            raise ValueError(f"`device` must be auto, cpu or cuda with several processes, got {name!r}")
        if local_rank >= torch.cuda.device_count():
            raise ValueError(
                f"process {local_rank} of this machine has no GPU of its own, PyTorch sees "
                f"{torch.cuda.device_count()}: start no more processes per machine than that, or use --device cpu"
            )
        name = f"cuda:{local_rank}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"`device` must be auto, cpu, cuda or cuda:N, got {name!r}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"`device` is {name!r}, but PyTorch sees {torch.cuda.device_count()} GPUs; use --device cpu")
    return device


def _check_choices(config: TrainConfig) -> None:
    """Raise a ValueError for the first option whose value is not among its choices."""
    for name, hint in get_type_hints(type(config)).items():
        value, choices = getattr(config, name), get_args(hint) if get_origin(hint) is Literal else ()
        if name == "latency_engine":
            choices = tuple(ENGINES)
        if choices and value not in choices:
            raise ValueError(f"`{name}` must be one of {', '.join(choices)}, got {value!r}{suggestion(value, choices)}")
