"""Frames of a game as an agent meets them: to check an export on, to calibrate a quantisation."""

from __future__ import annotations

import numpy as np
import torch

from gsprune.rl.envs.procgen import EnvConfig, Frames, ProcgenVectorEnv
from gsprune.rl.trained import TrainedAgent

__all__ = ["played_frames"]

_NUM_ENVS = 50
_STEPS_BETWEEN = 5  # neighbouring frames are nearly the same


def played_frames(agent: TrainedAgent, count: int, seed: int) -> Frames:
    """Frames that the agent sees while it plays the full distribution of levels of its game.

    Args:
        agent: plays as it is evaluated.
        count: how many frames, >= 1.
        seed: of levels and actions.

    Returns:
        (count, 3, 64, 64) uint8, contiguous: colour planes one after another.
    """
    if count < 1:
        raise ValueError(f"`count` must be at least 1, got {count}")
    num_envs = min(_NUM_ENVS, count)
    config = EnvConfig.test(agent.config["env_id"], num_envs, agent.config["distribution_mode"], seed)
    envs = ProcgenVectorEnv(config, num_threads=0)
    policy = agent.policy(torch.Generator(device=agent.device).manual_seed(seed))
    kept: list[Frames] = []
    try:
        frames, _ = envs.reset()
        for step in range(-(-count // num_envs) * _STEPS_BETWEEN):
            if step % _STEPS_BETWEEN == 0:
                kept.append(frames.copy())
            frames = envs.step(policy(torch.from_numpy(frames)))[0]
    finally:
        envs.close()
    return np.ascontiguousarray(np.concatenate(kept)[:count])
