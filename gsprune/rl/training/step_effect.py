"""The effect of a pruning step on an agent: the change of its policy and of its values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gsprune.distributed.ranks import Ranks
from gsprune.tracing.temporary_eval import temporary_eval

__all__ = ["AgentOutputs", "FrameOutputs", "StepEffect", "held_out_count"]

_MAX_FRAMES = 512
# One in this many frames is compared. The two forwards should take at most 3 % of an iteration of PPO. With one in
# eight they took up to 3.9 % of its CPU time in the preset quick.
_SHARE = 12


class AgentOutputs(NamedTuple):
    """The outputs of an agent for B frames.

    Attributes:
        policy: (B, P) logits, parameters of a distribution, or values of the actions.
        values: (B,) values of the states, or (B, A) of the actions.
    """

    policy: Tensor
    values: Tensor


class FrameOutputs(NamedTuple):
    """Frames, and the agent's outputs for them (None if there are no frames)."""

    frames: Tensor
    outputs: AgentOutputs | None


class StepEffect:
    """Compares the agent's outputs after a pruning step with those before it, on the same frames.

    The network runs in eval mode. Its state and the random generators are restored, so the comparison does not affect
    the training.

    Args:
        agent: the network.
        outputs: frames (B, C, H, W) -> the agent's outputs, without gradients.
        policy_change: (policy outputs before, policy outputs after) -> (B,) changes.
        name: name of the metric for the mean of these changes.
        ranks: the processes of the training; each observes its own frames.
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

    def observe(self, frames: Tensor) -> FrameOutputs:
        """Compute the agent's outputs before a step, for `compare` after it."""
        if len(frames) == 0:
            return FrameOutputs(frames, None)
        with temporary_eval(self._agent):
            return FrameOutputs(frames, self._outputs(frames))

    def compare(self, before: FrameOutputs) -> None:
        """Compare the agent's present outputs with those before. All ranks must call this."""
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
        """The largest metrics of the steps since the last call; {} without a step."""
        if not self._events:
            return {}
        largest = [max(values) for values in zip(*self._events, strict=True)]
        self._events = []
        return dict(zip(self._keys, largest, strict=True))


def held_out_count(total: int) -> int:
    """The number of frames for the comparison, out of `total`."""
    return min(_MAX_FRAMES, max(1, total // _SHARE))
