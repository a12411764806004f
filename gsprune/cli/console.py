"""The console of the commands, plain lines on it, and agents whose damaged checkpoints are reported there."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Console

from gsprune.rl.trained import TrainedAgent, load_agent

__all__ = ["console", "open_agent", "say"]

console = Console(markup=False)


def say(line: str, on: Console = console) -> None:
    """Print a line as it is: not wrapped, without colours, and with its square brackets."""
    on.print(line, highlight=False, soft_wrap=True, markup=False)


def open_agent(run: Path, device: torch.device | str = "cpu") -> TrainedAgent:
    """Load the agent of a run, and print a line for every newer checkpoint that is damaged."""
    agent = load_agent(run, device)
    for complaint in agent.complaints:
        say(complaint)
    return agent
