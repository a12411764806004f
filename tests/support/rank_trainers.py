"""Trainings that run as one process or as one rank of several."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch import distributed as dist

import gsprune
from gsprune.distributed.ranks import Ranks
from gsprune.pruning import latency_target
from gsprune.rl.algorithms.dqn.config import DQNConfig
from gsprune.rl.algorithms.dqn.trainer import DQNTrainer
from gsprune.rl.algorithms.ppo.config import PPOConfig
from gsprune.rl.algorithms.ppo.trainer import PPOTrainer
from gsprune.rl.training.config import TrainConfig
from gsprune.rl.training.metrics import read_metrics
from gsprune.rl.training.run_folder import RunFolder
from gsprune.rl.training.trainer import Trainer


class Outcome(NamedTuple):
    """What a rank has seen.

    Attributes:
        digests: of all weights, the target network's too, after every optimizer step and every iteration.
        weights: at the end.
        lines: what it would have told the user.
    """

    digests: list[str]
    weights: dict[str, Tensor]
    lines: list[str]


def train(
    folder: Path, config: TrainConfig, stop_after: int | None = None, resume: bool = False, ranks: Ranks | None = None
) -> Outcome:
    """Train, perhaps only some iterations."""
    lines: list[str] = []
    run = _folder(folder, config, resume, ranks)
    trainer = _trainer(config, run, resume, lines, ranks)
    digests: list[str] = []
    step = trainer.optimizer.step

    def watched() -> None:
        step()
        digests.append(_digest(trainer))

    trainer.optimizer.step = watched  # type: ignore[assignment, method-assign]
    done = trainer.iteration

    def should_stop() -> bool:
        digests.append(_digest(trainer))
        # One rank asks, all stop.
        return stop_after is not None and trainer.share.start == 0 and trainer.iteration - done >= stop_after

    trainer.train(should_stop)
    weights = {name: tensor.detach().clone() for name, tensor in trainer.agent.state_dict().items()}
    trainer.close()
    run.close()
    return Outcome(digests, weights, lines)


def train_rank(rank: int, folder: Path, config: TrainConfig, stop_after: int | None, resume: bool) -> Outcome:
    """The same as one of several."""
    del rank
    return train(folder, config, stop_after, resume, Ranks(dist.group.WORLD))


def die_after(rank: int, folder: Path, config: TrainConfig, iterations: int) -> tuple[str, float]:
    """The last rank dies in the middle of a training; the error of the others, and the seconds until it came."""
    ranks = Ranks(dist.group.WORLD)
    run = _folder(folder, config, False, ranks)
    trainer = _trainer(config, run, False, [], ranks)
    reached = [0.0]

    def should_stop() -> bool:
        if trainer.iteration == iterations:
            reached[0] = time.monotonic()
            if rank == ranks.size - 1:
                os._exit(9)
        return False

    try:
        trainer.train(should_stop)
    except gsprune.DistributedError as error:
        return str(error), time.monotonic() - reached[0]
    finally:
        run.close()
    return "", 0.0


def train_to_budget(rank: int, folder: Path, config: TrainConfig) -> Outcome:
    """One of several, whose clock is another on each: it counts parameters, and on the later ranks goes faster."""

    def milliseconds(model: nn.Module, *_: Any) -> float:
        return (1 + rank) * sum(parameter.numel() for parameter in model.parameters()) / 1e5

    variables = {"GSPRUNE_CACHE": str(folder.parent / f"cache-{rank}")}
    with patch.object(latency_target, "_measured_milliseconds", milliseconds), patch.dict(os.environ, variables):
        return train(folder, config, ranks=Ranks(dist.group.WORLD))


def rows(folder: Path) -> list[dict[str, Any]]:
    """The metrics without those that depend on the clock."""
    return [{key: row[key] for key in row if not key.startswith("time/")} for row in read_metrics(folder)]


def disagree(rank: int) -> str:
    """Networks that differ between the ranks."""
    torch.manual_seed(rank)
    try:
        Ranks(dist.group.WORLD).check_equal("the networks", nn.Linear(2, 2))
    except gsprune.DistributedError as error:
        return str(error)
    return ""


def _folder(folder: Path, config: TrainConfig, resume: bool, ranks: Ranks | None) -> RunFolder:
    if ranks is not None and not ranks.is_first:
        return RunFolder.without_lock(folder)
    return RunFolder.open(folder) if resume else RunFolder.create(folder, "ppo", asdict(config))


def _trainer(config: TrainConfig, run: RunFolder, resume: bool, lines: list[str], ranks: Ranks | None) -> Trainer[Any]:
    if isinstance(config, PPOConfig):
        return PPOTrainer(config, run, resume, lines.append, ranks)
    assert isinstance(config, DQNConfig)
    return DQNTrainer(config, run, resume, lines.append, ranks)


def _digest(trainer: Trainer[Any]) -> str:
    digest = hashlib.sha256()
    for network in (trainer.agent, *trainer._followers()):
        for tensor in network.state_dict().values():
            digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()
