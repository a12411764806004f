"""Frames of a game that an agent plays, for checking an export or calibrating a quantisation."""

from __future__ import annotations

import numpy as np
import torch

from gsprune.arrays import Uint8Array
from gsprune.checks import check_whole
from gsprune.rl.envs.provider import EnvironmentRequest
from gsprune.rl.envs.registry import make_environments
from gsprune.rl.trained import TrainedAgent

__all__ = ["played_frames"]

_NUM_ENVS = 50
_STEPS_BETWEEN = 5  # neighbouring frames are nearly the same


def played_frames(agent: TrainedAgent, count: int, seed: int) -> Uint8Array:
    """(count, C, H, W) uint8 frames that the agent sees while it plays the full distribution of levels of its game."""
    check_whole("count", count, at_least=1)
    num_envs = min(_NUM_ENVS, count)
    request = EnvironmentRequest.of_run(agent.config, split="test", num_envs=num_envs, seed=seed, is_training=False)
    envs = make_environments(request)
    policy = agent.policy(torch.Generator(device=agent.device).manual_seed(seed))
    kept: list[Uint8Array] = []
    try:
        frames, _ = envs.reset()
        for step in range(-(-count // num_envs) * _STEPS_BETWEEN):
            if step % _STEPS_BETWEEN == 0:
                kept.append(frames.copy())
            frames = envs.step(policy(torch.from_numpy(frames)))[0]
    finally:
        envs.close()
    return np.ascontiguousarray(np.concatenate(kept)[:count])
