"""Evaluate the newest checkpoint of a run, even of one in progress.

Procgen is evaluated on its training levels and on all levels, other environments once. Every environment plays the same
number of episodes, so that short episodes are not over-counted. The result is printed and written to eval.json in the
run folder, where `gsprune report` reads it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.table import Table

from gsprune.checks import check_whole, counted
from gsprune.cli.console import console, open_agent, say
from gsprune.files import write_atomically
from gsprune.rl.evaluation.episodes import MAX_EPISODE_STEPS
from gsprune.rl.evaluation.protocol import (
    EVALUATION_SEED,
    ProtocolConfig,
    TrackResult,
    evaluate_tracks,
    tracks_of,
)
from gsprune.rl.trained import TrainedAgent
from gsprune.rl.training.config import resolve_device

__all__ = ["Args", "main"]


@dataclass(frozen=True, kw_only=True)
class Args:
    """Options of ``gsprune eval``."""

    run: Annotated[Path, tyro.conf.Positional]
    """the run folder"""
    episodes: int = 1000
    """episodes per track, rounded up to the same number for every environment"""
    noise: bool = False
    """also play with Gaussian pixel noise of standard deviation 5, 15 and 30 in grey levels"""
    num_envs: int = 64
    """number of parallel environments"""
    max_episode_steps: int = MAX_EPISODE_STEPS
    """longest allowed episode; a longer one ends the evaluation with an error"""
    seed: int | None = None
    """seed of episodes, actions and noise; unset: that of the run's own evaluation"""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto uses a GPU if there is one"""
    torch_threads: int | None = None
    """threads of PyTorch on the CPU; unset: PyTorch's own choice"""


def main(args: Args) -> None:
    """Evaluate, print a table and write ``eval.json``."""
    if args.torch_threads is not None:
        torch.set_num_threads(check_whole("torch_threads", args.torch_threads, at_least=1))
    agent = open_agent(args.run, resolve_device(args.device))
    seed = EVALUATION_SEED + agent.config["seed"] if args.seed is None else args.seed
    config = ProtocolConfig(agent.config, args.episodes, args.num_envs, seed, args.max_episode_steps)
    tracks = tracks_of(agent.environment, args.noise)
    with console.status("") as status:
        results = evaluate_tracks(
            agent.policy, config, tracks, agent.device, lambda track: status.update(f"playing: {track.name}")
        )
    console.print(_table(results, agent, config))
    path = args.run / "eval.json"
    write_atomically(path, _document(results, agent, config))
    say(f"written to {path}")


def _table(results: dict[str, TrackResult], agent: TrainedAgent, config: ProtocolConfig) -> Table:
    has_levels = agent.environment.has_test_split
    game = agent.config["env_id"]
    if has_levels:
        game += f" ({agent.config['distribution_mode']})"
    title = f"{game} after {agent.step:,} steps, {agent.acts} actions"
    count = config.environments * config.episodes_per_env
    each = " each" if len(results) > 1 else ""
    caption = f"{counted(count, 'episode')}{each}; interval: 95 % bootstrap over episodes"
    table = Table("levels" if has_levels else "observations", title=title, caption=caption)
    is_normalised = all(result.normalised is not None for result in results.values())
    for heading in ("return", "interval", *(["normalised"] if is_normalised else []), "episode length"):
        table.add_column(heading, justify="right")
    for name, result in results.items():
        table.add_row(
            name if has_levels else _observations(name),
            f"{result.mean:.2f}",
            f"{result.low:.2f} to {result.high:.2f}",
            *([f"{result.normalised:.3f}"] if is_normalised else []),
            f"{result.mean_length:.0f}",
        )
    return table


def _observations(track: str) -> str:
    """The description of the observations on a track of an environment without a test split."""
    return "as they are" if track == "test" else track.removeprefix("test, ")


def _document(results: dict[str, TrackResult], agent: TrainedAgent, config: ProtocolConfig) -> bytes:
    document = {
        "step": agent.step,
        "checkpoint": agent.checkpoint.name,
        "game": agent.config["env_id"],
        **({"distribution_mode": agent.config["distribution_mode"]} if agent.environment.has_test_split else {}),
        "actions": agent.acts,
        "num_envs": config.environments,
        "episodes_per_env": config.episodes_per_env,
        "seed": config.seed,
        "tracks": {name: asdict(result) for name, result in results.items()},
    }
    return json.dumps(document, indent=1).encode()
