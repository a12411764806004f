"""The policy's part of an export's contract: observations, action space and training."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from gsprune.rl.trained import TrainedAgent
from gsprune.rl.training.network_size import NetworkSize

__all__ = ["policy_contract"]


def policy_contract(agent: TrainedAgent, folder: Path, dense: NetworkSize) -> dict[str, Any]:
    """Entries of the contract, as JSON values."""
    config = agent.config
    environment = agent.environment
    greedy = agent.acts == "greedy"
    return {
        "observation": {
            "shape": list(environment.observation_shape),
            "dtype": "uint8",
            "range": [0, 255],
            "layout": environment.layout,
            "scaling": "none: the division by 255 is in the graph",
        },
        "action": {
            "output": "Q values" if greedy else agent.algorithm.output_name(environment),
            "choose": _choice(agent),
            **_space(environment.action_space),
            "meanings": None if environment.action_meanings is None else list(environment.action_meanings),
        },
        "environment": None if environment.play is None else dict(environment.play),
        "training": {
            "algorithm": config["algorithm"],
            "game": config["env_id"],
            **({"distribution_mode": config["distribution_mode"]} if environment.has_test_split else {}),
            "encoder": config["encoder"],
            "width": config["width"],
            "pruning": config.get("pruning", "none"),
            "seed": config["seed"],
            "steps": agent.step,
            "checkpoint": agent.checkpoint.name,
            "dense": {"parameters": dense.params, "macs": dense.macs, "widths": dense.widths},
        },
        "return": _newest_return(folder),
    }


def _choice(agent: TrainedAgent) -> str:
    """A description of how actions are chosen from outputs."""
    from gymnasium.spaces import Box, MultiDiscrete

    space = agent.environment.action_space
    if isinstance(space, Box):
        return "the means, clipped to low and high"
    if agent.acts == "greedy":
        return "argmax"
    if isinstance(space, MultiDiscrete):
        return "sample from the softmax of each choice's logits"
    return "sample from softmax(logits)"


def _space(space: Any) -> dict[str, Any]:
    """The action space as JSON values."""
    from gymnasium.spaces import Box, MultiDiscrete

    if isinstance(space, Box):
        bounds = {name: [float(bound) for bound in getattr(space, name).ravel()] for name in ("low", "high")}
        # JSON has no infinity.
        finite = {name: [b if math.isfinite(b) else None for b in values] for name, values in bounds.items()}
        return {"space": "box", "shape": list(space.shape), "dtype": str(space.dtype), **finite}
    if isinstance(space, MultiDiscrete):
        return {"space": "multi-discrete", "sizes": space.nvec.tolist()}
    return {"space": "discrete", "sizes": [int(space.n)]}


def _newest_return(folder: Path) -> dict[str, Any] | None:
    """The newest evaluation in the run folder; None if there is none."""
    evaluation = _read(folder / "eval.json")
    if evaluation is not None:
        tracks = {name: track["mean"] for name, track in evaluation["tracks"].items()}
        return {"source": "eval.json", "steps": evaluation["step"], **tracks}
    summary = _read(folder / "summary.json")
    if summary is not None:
        returns = {"train": summary["train_return"], "test": summary["test_return"]}
        if returns["train"] is None:  # an environment without training levels
            del returns["train"]
        return {"source": "summary.json", "steps": summary["steps"], **returns}
    return None


def _read(file: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{str(file)!r} is damaged: {error}; delete it to export without it") from error
    return content
