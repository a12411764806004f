"""`Pruner`: pruning steps along a schedule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from torch import nn

from gsprune.checks import check_number
from gsprune.importance import resolve_importance
from gsprune.pruning.calibration_data import check_calibration_data
from gsprune.pruning.prune_step import prune_step
from gsprune.pruning.report import PruneReport
from gsprune.schedules import Schedule

__all__ = ["Pruner"]


class Pruner:
    """Pruning steps along a schedule, all with the same options.

    Args:
        model: as in `prune_step`.
        schedule: progress in [0, 1] -> sparsity, e.g. ``gsprune.schedules.Cubic(final=0.8, begin=0.2, end=0.8)``.
        options: the keyword arguments of `prune_step`.

    Raises:
        TypeError: an option that `prune_step` does not have, or calibration data of another type.
        ValueError: there is no calibration data where it is needed, or too little. An empty list passes, to be filled
            before the first step.
    """

    def __init__(self, model: nn.Module, schedule: Schedule | Callable[[float], Any], **options: Any) -> None:
        parameters = signature(prune_step).parameters.values()
        names = {option.name for option in parameters if option.kind is option.KEYWORD_ONLY}
        unknown = sorted(set(options) - names)
        if unknown:
            raise TypeError(f"Pruner got unknown options {unknown}; prune_step takes {sorted(names)}")
        if not callable(schedule):
            raise TypeError(f"`schedule` must be callable with the progress in [0, 1], got {schedule!r}")
        self.model = model
        self.schedule = schedule
        self._importance = resolve_importance(options.pop("importance", "l1"))
        check_calibration_data(
            self._importance,
            options.get("compensate", "none"),
            options.get("calibration"),
            options.get("example_inputs"),
        )
        self._options = options
        self._progress = 0.0

    def step(self, progress: float) -> PruneReport:
        """Bring the model to the sparsity that the schedule has at `progress`.

        Args:
            progress: fraction of the training that is done, in [0, 1].

        Raises:
            ValueError: `progress` is outside [0, 1]; and whatever `prune_step` raises.
        """
        check_number("progress", progress, at_least=0, at_most=1, meaning="the fraction of training that is done")
        report = prune_step(self.model, self.schedule(progress), importance=self._importance, **self._options)
        self._progress = progress
        return report

    def state_dict(self) -> dict[str, Any]:
        """State for a resumed training, besides the model's checkpoint (`gsprune.save`); JSON-compatible."""
        return {"progress": self._progress, "importance": self._importance.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`.

        Args:
            state: a value of `state_dict`.

        Raises:
            ValueError: it is not a Pruner's state.
        """
        if not isinstance(state, Mapping) or set(state) != {"progress", "importance"}:
            got = list(state) if isinstance(state, Mapping) else type(state).__name__
            raise ValueError(f"`state` must be a mapping with the keys 'progress' and 'importance', got {got}")
        progress, importance = state["progress"], state["importance"]
        if not isinstance(importance, Mapping):
            raise ValueError(f"`state['importance']` must be a mapping, got {type(importance).__name__}")
        progress = check_number("state['progress']", progress, at_least=0, at_most=1)
        self._importance.load_state_dict(importance)
        self._progress = progress
