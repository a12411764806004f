"""Train an agent on images with PPO while its network shrinks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gsprune.cli.option_groups import groups_of
from gsprune.cli.presets import RunOptions, base_of, defaults_for
from gsprune.cli.training import run_training
from gsprune.rl.algorithms.ppo.algorithm import PPO
from gsprune.rl.algorithms.ppo.config import PRESETS, PPOConfig
from gsprune.rl.training.idle_options import without_idle

__all__ = ["Args", "defaults", "groups_of", "main"]


@dataclass(frozen=True, kw_only=True)
class Args(PPOConfig, RunOptions):
    """Options of ``gsprune train ppo``."""


def defaults(argv: Sequence[str]) -> Args:
    """The values of the preset, or those of the run to resume."""
    return defaults_for(Args, PRESETS, "ppo", argv)


def main(args: Args) -> int:
    """Train; the exit code is 130 if the user stopped the run."""
    args = without_idle(args, base_of(args, PRESETS))
    return run_training(args, args, PPO)
