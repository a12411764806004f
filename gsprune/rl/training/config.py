"""The options that all trainers share, and their checks.

The docstring under each field is the help of the command line.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, get_args, get_origin, get_type_hints

import torch

from gsprune.checks import suggestion
from gsprune.compensation.calibration import MIN_EXAMPLES
from gsprune.engines import ENGINES, LatencyBudget, WidthPreset, multiple_of
from gsprune.rl.encoders import check_encoder
from gsprune.rl.envs.configured import configured_request
from gsprune.rl.envs.provider import EnvironmentDescription
from gsprune.rl.envs.registry import describe
from gsprune.rl.importance import configured_importance
from gsprune.rl.training.idle_options import refuse_idle
from gsprune.schedules import Polynomial

__all__ = ["PruningMethod", "TrainConfig", "check_at_least", "resolve_device"]

PruningMethod = Literal["none", "group", "structured", "unstructured", "redo"]

_REFERENCE_WIDTH = 2  # the width at which the published learning rates hold


@dataclass(frozen=True, kw_only=True)
class TrainConfig(ABC):
    """Options of every trainer: what is played, by which network, how it is pruned, where it runs."""

    env_id: str = "bigfish"
    """the environment: a Procgen game (bigfish, bossfight, caveflyer, chaser, climber, coinrun, dodgeball, fruitbot,
    heist, jumper, leaper, maze, miner, ninja, plunder or starpilot), an Atari game such as ALE/Pong-v5, an environment
    of gymnasium with images such as CarRacing-v3, or your own as package.module:factory"""
    env_options: str = ""
    """options of the environment, as name=value,name=value: for gymnasium size, grey, stack, key, asynchronous, and
    arguments of its constructor; for Atari sticky_actions, episodic_life, clip_rewards, noop_max, full_actions"""
    distribution_mode: Literal["easy", "hard"] = "easy"
    """difficulty of Procgen's levels; training plays levels 0-199 of easy, 0-499 of hard"""
    seed: int = 1
    """seed of everything that is random: weights, actions, minibatches, episodes"""
    total_timesteps: int = 25_000_000
    """environment steps of the whole training, over all environments"""
    num_envs: int = 64
    """environments that are stepped together"""

    encoder: str = "impoola"
    """the network: nature, impala, or impoola (impala with a mean over space before its dense layer); or your own as
    package.module:factory, a callable(observation_shape) -> torch.nn.Module with an attribute num_features"""
    num_features: int = 256
    """outputs of a built-in encoder, which the heads read; not scaled by width"""
    network: str | None = None
    """your own whole network as package.module:factory, a callable(environment description) -> torch.nn.Module with the
    outputs of the algorithm's network; unset: the encoder with the algorithm's heads"""
    width: float = 2
    """factor on the filters of the convolutions (the paper's tau), at least 1"""
    widths_of: str | None = None
    """folder of a run: begin with the widths it ended at, freshly initialised, instead of the dense ones"""
    learning_rate: float | None = None
    """step size of Adam; unset: the published one of the encoder, which falls with width"""
    adam_eps: float = 1e-5
    """term in the denominator of Adam's steps"""

    pruning: PruningMethod = "group"
    """none; group: coupled channels leave together and the network gets smaller; or a baseline that keeps its size:
    structured and unstructured (masks over filters, over weights), redo (dormant units are drawn anew)"""
    sparsity: float = 0.8
    """fraction that is gone at the end, in [0, 1); of what, `target` says"""
    prune_begin: float = 0.2
    """fraction of the training before the first pruning step"""
    prune_end: float = 0.8
    """fraction of the training after which the final sparsity holds"""
    importance: str = "l1"
    """the score by which channels stay: activation, bn_scale, fpgm, hessian, l1, l2, lamp, random, reconstruction or
    taylor; or your own as package.module:name, a gsprune.Criterion (class or object) or a function of a weight matrix;
    reconstruction belongs to `compensate` linear"""
    scope: Literal["local", "global", "isomorphic"] = "local"
    """where channels compete: within their group, over all groups, or over groups of the same kind"""
    target: Literal["channels", "params", "macs", "latency"] = "channels"
    """what the sparsity counts; with latency, the schedule ends at `latency_budget_ms` instead of a sparsity"""
    latency_budget_ms: float | None = None
    """milliseconds that one forward may take at the end, measured on this machine's CPU"""
    latency_engine: str = "eager"
    """what runs the network when it is timed: eager or compiled (PyTorch), onnxruntime or onnxruntime-int8"""
    latency_batch: int = 1
    """frames per forward when it is measured; it has one thread"""
    round_to: int | WidthPreset = 1
    """widths are rounded up to a multiple; a number, or what suits an engine: onnxruntime (8; the best on CPUs in
    PyTorch, too), tensorrt-fp16 (8), cmsis-nn (4), ethos-u (16)"""
    min_channels: int = 1
    """no group gets narrower than this"""
    rescale: bool = False
    """scale kept channels up by the norm they lose when others go"""
    compensate: Literal["none", "bias", "linear"] = "none"
    """how the layers behind removed channels make up for them: linear predicts them from the kept channels, bias
    replaces them by their mean, none does nothing"""
    calibration_frames: int = 512
    """frames on which `compensate` is fitted and importance reconstruction scores at every pruning step, of the last
    rollout (PPO) or the replay (DQN), in each process"""
    backend: Literal["auto", "cpp", "triton", "torch"] = "auto"
    """what scores and slices: the C++ core, the Triton kernels or plain PyTorch; auto picks by device"""

    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes a GPU where there is one"""
    workers: int | None = None
    """threads that compute pieces of a batch side by side on the CPU; the result does not depend on their number;
    unset: one for each usable core, at most OMP_NUM_THREADS"""
    torch_threads: int | None = None
    """threads of PyTorch in each worker; unset: 1 (PyTorch's own choice with --compile or on a GPU)"""
    env_threads: int | None = None
    """threads that step the environments; unset: one per core, four at most"""
    channels_last: bool = True
    """keep weights and activations channels-last, which is 2 to 4 times as fast on CPUs"""
    amp: Literal["none", "bf16"] = "none"
    """compute the network in float32 or, under autocast, in bfloat16"""
    compile: bool = False
    """compile the network by torch.compile while its widths rest, before and after the schedule; eager in between"""

    eval_episodes: int = 2500
    """episodes at the end, in Procgen on training levels and again on the full distribution; 0 skips them"""
    eval_interval_episodes: int = 1000
    """episodes of each evaluation during training; 0 skips them"""
    eval_points: int = 10
    """evaluations over the training, evenly spread"""
    eval_num_envs: int = 64
    """environments of an evaluation; each plays the same number of episodes"""
    checkpoint_minutes: float = 5.0
    """minutes between checkpoints; 0 writes one after every iteration"""

    @property
    @abstractmethod
    def steps_per_iteration(self) -> int:
        """Environment steps per row of metrics."""

    @property
    @abstractmethod
    def num_iterations(self) -> int:
        """Iterations of the whole training; a last, incomplete one is not begun."""

    def check(self) -> None:
        """Complain of the first option that is wrong; trainers do so before anything else.

        Raises:
            ValueError: names the option, its value, the constraint and the way out.
        """
        _check_choices(self)
        configured_importance(self.importance)
        check_encoder(self.encoder)
        check_at_least(self, 1, "width", "num_features")
        environment = describe(configured_request(vars(self), "train", self.num_envs, self.seed))
        self.check_environment(environment)
        resolve_device(self.device)
        if not 0 <= self.sparsity < 1:
            raise ValueError(f"`sparsity` must be in [0, 1), got {self.sparsity}; 0.8 removes 80 %")
        for name in ("prune_begin", "prune_end"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must be in [0, 1], a fraction of the training, got {getattr(self, name)}")
        if self.prune_begin > self.prune_end:
            raise ValueError(
                f"`prune_begin` must not be after `prune_end`, got {self.prune_begin} and {self.prune_end}; swap them"
            )
        if self.rescale and self.compensate != "none":
            raise ValueError(
                f"`rescale` is True and `compensate` is {self.compensate!r}: both make up for the same channels; leave"
                " one of them out"
            )
        check_at_least(self, MIN_EXAMPLES, "calibration_frames")
        multiple_of(self.round_to)
        if isinstance(self.round_to, int):
            check_at_least(self, 1, "round_to")
        self._check_budget()
        check_at_least(self, 1, "total_timesteps", "min_channels", "eval_points", "eval_num_envs")
        check_at_least(self, 1, "workers", "torch_threads", "env_threads")
        check_at_least(self, 0, "eval_episodes", "eval_interval_episodes", "checkpoint_minutes")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ValueError(f"`learning_rate` must be above 0, got {self.learning_rate}")
        if not self.adam_eps > 0:
            raise ValueError(f"`adam_eps` must be above 0, got {self.adam_eps}")
        refuse_idle(self)

    @abstractmethod
    def check_environment(self, environment: EnvironmentDescription) -> None:
        """Complain of an environment that the algorithm cannot play.

        Raises:
            ValueError: names the property that is unsupported.
        """

    def idle_by_algorithm(self) -> dict[str, str]:
        """Options of the algorithm itself that have no effect beside the others: option -> reason."""
        return {}

    @property
    def calibrates(self) -> bool:
        """True if a pruning step needs frames, for compensation or for its scores."""
        return self.compensate != "none" or configured_importance(self.importance).needs_calibration

    @property
    def num_calibration_frames(self) -> int:
        """Frames that a pruning step reads in each process; 0 if it needs none."""
        return self.calibration_frames if self.calibrates else 0

    @property
    def budget(self) -> LatencyBudget | None:
        """The milliseconds that the schedule ends at; None where it ends at a sparsity."""
        if self.latency_budget_ms is None:
            return None
        return LatencyBudget(self.latency_budget_ms, self.latency_engine, batch=self.latency_batch)

    def _check_frames(self, option: str, frames: int, needed_beside: int = 0) -> None:
        """Complain of too few frames for a pruning step.

        Args:
            option: the options that decide how many frames there are.
            frames: how many these are at the first pruning step.
            needed_beside: how many of them cannot be taken.
        """
        least = MIN_EXAMPLES + needed_beside
        if self.calibrates and frames < least:
            reader = f"`importance` {self.importance}, which scores"
            if self.compensate != "none":
                reader = f"`compensate` {self.compensate}, which is fitted"
            raise ValueError(f"`{option}` must be at least {least} with {reader} on frames, got {frames}")

    def schedule(self) -> Polynomial:
        """The cubic schedule of the sparsity, or of the way to the budget, over the training."""
        final = self.budget or self.sparsity
        return Polynomial(final=final, begin=self.prune_begin, end=self.prune_end, power=3)

    def _check_budget(self) -> None:
        if (self.target == "latency") != (self.latency_budget_ms is not None):
            raise ValueError(
                "`latency_budget_ms` goes with target latency and with no other, got "
                f"{self.latency_budget_ms} and {self.target}; give both or neither"
            )
        if self.budget is None:  # making one has checked it
            return
        if self.pruning != "group":
            raise ValueError(f"`target` latency needs pruning group, got {self.pruning}, which saves no time")
        if self.scope != "local":
            raise ValueError(
                f"`target` latency seeks one ratio for all groups: `scope` must be local, got {self.scope}"
            )

    def scaled_learning_rate(self, base: float, nature: float) -> float:
        """The step size: as given, or by the paper's rule lr / (tau / 2), where the Nature-CNN has one of its own.

        Args:
            base: the published step size of Impala and Impoola at width 2.
            nature: the published step size of the Nature-CNN, which is not scaled.
        """
        if self.learning_rate is not None:
            return self.learning_rate
        return nature if self.encoder == "nature" else base / (self.width / _REFERENCE_WIDTH)


def resolve_device(name: str, local_rank: int | None = None) -> torch.device:
    """The device of that name; "auto" is the GPU where there is one, else the CPU.

    Args:
        name: as in `TrainConfig.device`.
        local_rank: number of this process among several on this machine, each of which has the GPU of that number;
            None for a process alone.

    Raises:
        ValueError: there is no such device here.
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
    """Raise a ValueError for the first option whose value is none of its choices."""
    for name, hint in get_type_hints(type(config)).items():
        value, choices = getattr(config, name), get_args(hint) if get_origin(hint) is Literal else ()
        if name == "latency_engine":
            choices = tuple(ENGINES)
        if choices and value not in choices:
            raise ValueError(f"`{name}` must be one of {', '.join(choices)}, got {value!r}{suggestion(value, choices)}")


def check_at_least(config: TrainConfig, least: int, *names: str) -> None:
    """Raise a ValueError for the first of these options that is set and below `least`."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not value >= least:
            raise ValueError(f"`{name}` must be at least {least}, got {value}")
