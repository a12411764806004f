"""The effect of a pruning step on an agent: the change of its policy and of its values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gsprune.distributed.ranks import Ranks
from gsprune.tracing.undisturbed import undisturbed

__all__ = ["AgentOutputs", "Observation", "StepEffect", "held_out_count"]

_MAX_FRAMES = 512
# Of the frames at hand, so that the two forwards stay below 3 % of an iteration of PPO with three epochs. Measured with
# the preset quick: an eighth took up to 3.9 % of the CPU time of an iteration, the more the smaller the network was.
_SHARE = 12


class AgentOutputs(NamedTuple):
    """The outputs of an agent for B frames.

    Attributes:
        policy: (B, P) logits, parameters of a distribution, or values of the actions.
        values: (B,) values of the states, or (B, A) of the actions.
    """

    policy: Tensor
    values: Tensor


class Observation(NamedTuple):
    """Frames, and the agent's outputs for them before a step; None without frames."""

    frames: Tensor
    outputs: AgentOutputs | None


class StepEffect:
    """Compares the agent's outputs after a pruning step with those before it, on the same frames.

    The network runs in eval mode. Its state and the random generators are restored, so that the training goes on as it
    would without the comparison.

    Args:
        agent: the network.
        outputs: frames (B, C, H, W) -> the agent's outputs, without gradients.
        policy_change: (policy outputs before, after) -> (B,) changes.
        name: of the mean of these changes among the metrics.
        ranks: the processes of the training; each observes frames of its own.
    """

    def __init__(
        self,
        agent: nn.Module,
        outputs: Callable[[Tensor], AgentOutputs],
        policy_change: Callable[[Tensor, Tensor], Tensor],
        name: str,
        ranks: Ranks,
    ) -> None:
        self._agent = agent
        self._outputs = outputs
        self._policy_change = policy_change
        self._keys = (name, "pruning/value_error")
        self._ranks = ranks
        self._events: list[tuple[float, float]] = []  # since the last row

    def observe(self, frames: Tensor) -> Observation:
        """The agent's outputs for `frames`, for `compare` after the step."""
        if len(frames) == 0:
            return Observation(frames, None)
        with undisturbed(self._agent):
            return Observation(frames, self._outputs(frames))

    def compare(self, before: Observation) -> None:
        """Compare the agent's outputs now with those before; all ranks together."""
        sums = torch.zeros(6, dtype=torch.float64)
        after = self.observe(before.frames).outputs
        if before.outputs is not None and after is not None:
            change = self._policy_change(before.outputs.policy.double(), after.policy.double()).double()
            old, new = before.outputs.values.double(), after.values.double()
            parts = (change.sum(), (new - old).square().sum(), old.sum(), old.square().sum())
            counts = torch.tensor([len(change), old.numel()], dtype=torch.float64)
            sums = torch.cat([torch.stack(parts).cpu(), counts])
        total, squares, values, squared_values, num_frames, num_values = self._ranks.sum(sums).tolist()
        if num_frames > 0:
            variance = squared_values / num_values - (values / num_values) ** 2
            error = math.sqrt(squares / num_values / variance) if variance > 0 else math.nan
            self._events.append((total / num_frames, error))

    def take_row(self) -> dict[str, float]:
        """The metrics of the steps since the last call, of several the largest; {} without a step."""
        events, self._events = self._events, []
        return {key: max(values) for key, values in zip(self._keys, zip(*events, strict=True), strict=False)}


def held_out_count(total: int) -> int:
    """The number of frames to compare outputs on, of `total` at hand."""
    return min(_MAX_FRAMES, max(1, total // _SHARE))
