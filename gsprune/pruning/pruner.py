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
        TypeError: `prune_step` does not have one of the options, or calibration data have a wrong type.
        ValueError: calibration data are missing or too few. An empty list is accepted, to be filled before the first
            step.
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
        """Prune the model to the schedule's sparsity at `progress`.

        Args:
            progress: fraction of the training that is done, in [0, 1].

        Raises:
            ValueError: `progress` is outside [0, 1].
            Exception: an error of `prune_step`.
        """
        check_number("progress", progress, at_least=0, at_most=1, meaning="the fraction of training that is done")
        report = prune_step(self.model, self.schedule(progress), importance=self._importance, **self._options)
        self._progress = progress
        return report

    def state_dict(self) -> dict[str, Any]:
        """The pruner's JSON-compatible state, to resume a training together with the model's checkpoint."""
        return {"progress": self._progress, "importance": self._importance.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state.

        Args:
            state: a result of `state_dict`.

        Raises:
            ValueError: `state` is not a Pruner's state.
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
