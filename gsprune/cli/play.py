"""Play episodes with a run's agent: in a window, or as mp4 and GIF files if there is no display.

The caption shows the return so far, the widths of the network and the milliseconds per frame on one thread. To compare
a pruned agent with a dense one side by side, train a dense run (`gsprune train ppo --pruning none`) and pass its folder
as --beside, because a run does not keep its dense agent.
"""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from gsprune.checks import check_number, check_whole, counted
from gsprune.cli.console import console, open_agent, say
from gsprune.rl.playing.playback import Film, drawn, moments
from gsprune.rl.playing.player import players_of
from gsprune.rl.playing.rollout import check_same_environment
from gsprune.rl.playing.video import check_video_path, write_video
from gsprune.rl.playing.window import no_window, show
from gsprune.rl.trained import TrainedAgent
from gsprune.rl.training.config import resolve_device

__all__ = ["Args", "main"]


@dataclass(frozen=True, kw_only=True)
class Args:
    """Options of ``gsprune play``."""

    run: Annotated[Path, tyro.conf.Positional]
    """the run folder"""
    beside: Path | None = None
    """folder of a second run of the same environment, for example the dense baseline; it is shown on the left"""
    episodes: int | None = None
    """episodes of each agent; unset: as many as fit into --seconds"""
    seconds: float = 20.0
    """maximum length in seconds"""
    levels: Literal["train", "test"] = "test"
    """Procgen's training levels, or all levels; other environments have no such levels"""
    seed: int = 0
    """seed of episodes and actions; both agents play the same episodes"""
    fps: int = 15
    """environment steps per second"""
    scale: int = 4
    """enlargement of frames"""
    out: Path | None = None
    """file to write, .mp4 or .gif; unset: a window, or without a display play.mp4 and play.gif in the run folder"""
    device: str = "cpu"
    """cpu, cuda, cuda:1, ...; auto uses a GPU if there is one"""


def main(args: Args) -> None:
    """Play in a window, or write the files and print their names."""
    _check(args)
    agents = _agents(args)
    obstacle = None if args.out is not None else no_window()
    paths = _paths(args, obstacle)
    for path in paths:
        check_video_path(path)
    with console.status("timing the networks on one thread"):
        players = players_of(agents)
    played = moments(players, args.levels, args.seed, args.episodes, max(1, round(args.seconds * args.fps)))
    if not paths:
        with closing(played):
            show(drawn(players, played, args.scale), args.fps, title=args.run.resolve().name)
        return
    if obstacle is not None:
        say(f"{obstacle}: writing files instead of opening a window")
    with console.status("playing"):
        film = Film(players, list(played), args.scale)
    for path in paths:
        with console.status(f"writing {path}"):
            write_video(path, film, args.fps)
        size = f"{path.stat().st_size / 1e3:,.0f} kB"
        say(f"written to {path} ({counted(len(film), 'frame')}, {len(film) / args.fps:.1f} s, {size})")


def _check(args: Args) -> None:
    """Raise an error for the first number that is out of its bounds."""
    check_whole("seed", args.seed, at_least=0)
    if args.episodes is not None:
        check_whole("episodes", args.episodes, at_least=1)
    check_number("seconds", args.seconds, above=0, below=math.inf)
    check_whole("fps", args.fps, at_least=1)
    check_whole("scale", args.scale, at_least=1)


def _paths(args: Args, obstacle: str | None) -> list[Path]:
    """The files to write; none if a window is opened."""
    if args.out is not None:
        return [args.out]
    return [] if obstacle is None else [args.run / "play.mp4", args.run / "play.gif"]


def _agents(args: Args) -> list[TrainedAgent]:
    device = resolve_device(args.device)
    runs = [args.run] if args.beside is None else [args.beside, args.run]
    agents = [open_agent(run, device) for run in runs]
    if args.beside is not None:
        check_same_environment(agents[1], agents[0])
    return agents
