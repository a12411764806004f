"""The control among the criteria: chance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from gsprune.importance.base import Criterion, FloatArray, ScoreSource

__all__ = ["Random"]


class Random(Criterion):
    """x_u uniform in [0, 1), the same for all members, from a generator of its own.

    Neither torch's nor NumPy's global generator is touched. The generator goes on from call to call; `state_dict`
    holds where it is.

    Args:
        seed: where the generator starts, >= 0.
    """

    default_reduction: ClassVar[str] = "first"

    def __init__(self, seed: int = 0) -> None:
        self._generator = np.random.Generator(np.random.PCG64(seed))

    def statistics(self, source: ScoreSource) -> dict[str, FloatArray]:
        """Draws in the order of the groups; see `Criterion.statistics`."""
        return {group.name: self._generator.random((1, group.num_units)) for group in source.groups}

    def state_dict(self) -> dict[str, Any]:
        """The generator's state, as integers and strings."""
        return {"generator": self._generator.bit_generator.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`; see `Criterion.load_state_dict`."""
        if set(state) != {"generator"}:
            raise ValueError(f"`state` of Random must have the key 'generator' alone, got {sorted(state)}")
        self._generator.bit_generator.state = state["generator"]
