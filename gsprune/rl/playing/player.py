"""Playing agents with the properties that captions show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from gsprune.engines.latency import latencies
from gsprune.engines.timing import torch_threads
from gsprune.networks import example_frames
from gsprune.rl.playing.rollout import Moment
from gsprune.rl.trained import TrainedAgent
from gsprune.rl.training.network_size import NetworkSize

__all__ = ["Player", "players_of"]

_KEEPS_SIZE = ("structured", "unstructured", "redo")
_TIMING_SECONDS = 5.0  # limit for all networks together


@dataclass(frozen=True)
class Player:
    """An agent and the size and speed of its network.

    Attributes:
        agent: the agent.
        size: the size of its network.
        dense: the size of the dense network of its run.
        milliseconds: time per frame of the network's acting part, on one thread.
    """

    agent: TrainedAgent
    size: NetworkSize
    dense: NetworkSize
    milliseconds: float

    @property
    def title(self) -> str:
        """The kind of network: dense, pruned with the removed fraction, or of full size with a baseline's name."""
        removed = self.size.row(self.dense)["pruning/channel_sparsity"]
        if removed > 0:
            return f"pruned: {removed:.0%} of channels removed"
        method = self.agent.config.get("pruning", "none")
        return f"full size, {method}" if method in _KEEPS_SIZE else "dense"

    def caption(self, moment: Moment) -> list[str]:
        """Title, return so far, milliseconds per frame and parameters, widths."""
        episode_return = round(moment.episode_return, 2) + 0.0  # rewards of 0.1 add up to 0.30000001
        return [
            self.title,
            f"return {episode_return:g}, episode {moment.episode}{' (end)' if moment.is_end else ''}",
            f"{self.milliseconds:.2f} ms per frame, {self.size.params:,} parameters",
            "widths " + " ".join(str(width) for width in self.size.widths.values()),
        ]


def players_of(agents: Sequence[TrainedAgent]) -> list[Player]:
    """The agents with the sizes of their networks and the time of a forward.

    All networks are timed in turns on one thread, so that other load on the machine slows them alike.
    """
    policies = [agent.acting_part for agent in agents]
    shape = agents[0].environment.observation_shape
    with torch_threads(1):
        timings = latencies(policies, example_frames(observation_shape=shape), calls=500, max_seconds=_TIMING_SECONDS)
    return [
        Player(agent, NetworkSize.of(agent.network, shape), _dense_size(agent), 1e3 * timing.undisturbed)
        for agent, timing in zip(agents, timings, strict=True)
    ]


def _dense_size(agent: TrainedAgent) -> NetworkSize:
    with torch.random.fork_rng(devices=[]):  # building a network draws its weights
        return NetworkSize.of(agent.build_dense(), agent.environment.observation_shape)
