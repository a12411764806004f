"""Training from Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gymnasium
from torch import nn

from gsprune.networks import ObservationShape
from gsprune.rl.algorithms.registry import algorithm_for
from gsprune.rl.envs.provider import EnvironmentDescription
from gsprune.rl.objects import object_name
from gsprune.rl.trained import TrainedAgent, load_agent
from gsprune.rl.training.config import TrainConfig
from gsprune.rl.training.run_folder import RunFolder
from gsprune.rl.training.summary import summarize, write_summary

__all__ = ["train"]


def train(
    config: TrainConfig,
    run_dir: str | Path,
    *,
    envs: Callable[[], gymnasium.Env[Any, Any]] | None = None,
    encoder: Callable[[ObservationShape], nn.Module] | None = None,
    network: Callable[[EnvironmentDescription], nn.Module] | None = None,
    resume: bool = False,
    say: Callable[[str], None] = print,
) -> TrainedAgent:
    """Train an agent to the end, in a run folder.

    The folder has the format of ``gsprune train``. Other commands can read it if `envs`, `encoder` and `network` are
    top-level objects of an importable module.

    Args:
        config: the options. Their class chooses the algorithm.
        run_dir: a new folder, or the folder of the run to resume.
        envs: makes one environment with image observations; None for ``config.env_id``.
        encoder: makes an encoder with an attribute `num_features`; None for ``config.encoder``.
        network: makes the whole network; None for an encoder with the algorithm's heads. For PPO the outputs are
            (logits or means, values), and a Gaussian policy needs a parameter `log_std` of shape (action size,).
        resume: resume the run in the folder.
        say: prints a line for the user.

    Returns:
        the trained agent.

    Raises:
        ValueError: an option is wrong, or the folder contains a run already.
        TypeError: a function returns an object of a wrong type.
        CheckpointError: there is no undamaged checkpoint to resume from.
    """
    objects = {"env_id": envs, "encoder": encoder, "network": network}
    names: dict[str, Any] = {option: object_name(value) for option, value in objects.items() if value is not None}
    config = replace(config, **names)
    algorithm = algorithm_for(config)
    config.check()
    folder = Path(run_dir)
    run = RunFolder.open(folder) if resume else RunFolder.create(folder, algorithm.name, asdict(config))
    try:
        trainer = algorithm.trainer(config, run, resume=resume, say=say)
        try:
            trainer.train()
            write_summary(summarize(trainer, config), folder)
        finally:
            trainer.close()
    finally:
        run.undo_create()
        run.close()
    return load_agent(folder)
