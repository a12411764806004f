"""What the contract of an exported policy says besides shapes: layout of frames, meaning of actions, training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gsprune.rl.trained import TrainedAgent
from gsprune.rl.training.pruning import NetworkSize

__all__ = ["ACTIONS", "policy_contract"]

ACTIONS = (
    "left, down", "left", "left, up", "down", "nothing", "up", "right, down", "right", "right, up",
    "D", "A", "W", "S", "Q", "E",
)  # fmt: skip
"""Procgen's actions in their order: directions, and keys whose meaning is the game's."""


def policy_contract(agent: TrainedAgent, folder: Path, dense: NetworkSize) -> dict[str, Any]:
    """Entries of the contract, as JSON values.

    Args:
        agent: what is exported.
        folder: its run.
        dense: size of the network that the run began with.
    """
    config = agent.config
    greedy = agent.acts == "greedy"
    return {
        "observation": {
            "shape": [3, 64, 64],
            "dtype": "uint8",
            "range": [0, 255],
            "layout": "channels first; Procgen draws (64, 64, 3): transpose(2, 0, 1)",
            "scaling": "none: the division by 255 is in the graph",
        },
        "action": {
            "output": "Q values" if greedy else "logits",
            "choose": "argmax" if greedy else "sample from softmax(logits)",
            "meanings": list(ACTIONS),
        },
        "training": {
            "algorithm": config["algorithm"],
            "game": config["env_id"],
            "distribution_mode": config["distribution_mode"],
            "encoder": config["encoder"],
            "width": config["width"],
            "pruning": config.get("pruning", "none"),
            "seed": config["seed"],
            "steps": agent.step,
            "checkpoint": agent.checkpoint.name,
            "dense": {"parameters": dense.params, "macs": dense.macs, "widths": dense.widths},
        },
        "return": _known_return(folder),
    }


def _known_return(folder: Path) -> dict[str, Any] | None:
    """The newest evaluation in the run folder; None where there is none."""
    evaluation = _read(folder / "eval.json")
    if evaluation is not None:
        tracks = {name: track["mean"] for name, track in evaluation["tracks"].items()}
        return {"source": "eval.json", "steps": evaluation["step"], **tracks}
    summary = _read(folder / "summary.json")
    if summary is not None:
        returns = {"train": summary["train_return"], "test": summary["test_return"]}
        return {"source": "summary.json", "steps": summary["steps"], **returns}
    return None


def _read(file: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{str(file)!r} is damaged: {error}; delete it to go on without") from error
    return content
