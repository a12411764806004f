"""Remove channels of a run's network that do not affect its output, and write the smaller network to a file.

These are channels that are constant for every input and channels that no layer reads, as after unstructured pruning.
With --calibration-frames, channels that are constant on frames of the environment (dormant ones) are removed, too. The
run is not changed. Read the file with gsprune.load, or show its groups with gsprune inspect.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

import gsprune
from gsprune.checks import check_whole
from gsprune.cli.console import console, open_agent, say
from gsprune.networks import example_frames
from gsprune.rl.evaluation.protocol import EVALUATION_SEED
from gsprune.rl.exporting.frames import played_frames
from gsprune.rl.trained import TrainedAgent
from gsprune.rl.training.checkpoints import MODEL_FILE

__all__ = ["Args", "main"]

_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Args:
    """Options of ``gsprune compact``."""

    run: Annotated[Path, tyro.conf.Positional]
    """the run folder"""
    out: Path | None = None
    """the file to write; unset: compact/model.safetensors in the run folder"""
    calibration_frames: int = 0
    """frames of the environment for finding dormant channels, at least 16; 0 uses the weights only"""
    tolerance: float = 0.0
    """largest spread of a dormant channel's values, as a fraction of the largest value in its consumer's input"""
    dry_run: bool = False
    """only show what would be removed"""
    seed: int = 0
    """seed of the episodes and actions for the calibration frames"""


def main(args: Args) -> None:
    """Compact the network of the newest checkpoint, and print the report."""
    check_whole("calibration_frames", args.calibration_frames, at_least=0)
    agent = open_agent(args.run)
    report = gsprune.compact(
        agent.network,
        example_inputs=example_frames(observation_shape=agent.environment.observation_shape),
        calibration=_calibration(args, agent),
        tolerance=args.tolerance,
        dry_run=args.dry_run,
    )
    say(str(report))
    if args.dry_run:
        return
    path = args.out or args.run / "compact" / MODEL_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    gsprune.save(agent.network, path, run=str(args.run), step=agent.step)
    say(f"wrote {path}")


def _calibration(args: Args, agent: TrainedAgent) -> list[torch.Tensor] | None:
    """Batches of frames that the agent plays; None without calibration."""
    if not args.calibration_frames:
        return None
    with console.status("playing frames to calibrate on"):
        frames = played_frames(agent, args.calibration_frames, EVALUATION_SEED + args.seed)
    return list(torch.split(torch.from_numpy(frames), _BATCH))
