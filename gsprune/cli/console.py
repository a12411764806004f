"""Plain lines on the console, and agents whose damaged checkpoints are reported there."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Console

from gsprune.rl.trained import TrainedAgent, load_agent

__all__ = ["open_agent", "say"]


def say(console: Console, line: str) -> None:
    """Print a line as it is: not wrapped, without colours, and with its square brackets."""
    console.print(line, highlight=False, soft_wrap=True, markup=False)


def open_agent(run: Path, console: Console, device: torch.device | str = "cpu") -> TrainedAgent:
    """Load the agent of a run, and print a line for every newer checkpoint that is damaged."""
    agent = load_agent(run, device)
    for complaint in agent.complaints:
        say(console, complaint)
    return agent
