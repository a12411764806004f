"""An importance: a criterion, a reduction and a normalizer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from gsprune.arrays import Float32Array
from gsprune.checks import suggestion
from gsprune.errors import ScoreError
from gsprune.importance.criterion import CRITERIA, Criterion, ScoreSource
from gsprune.importance.function import FromFunction, MatrixFunction
from gsprune.importance.normalizers import NORMALIZERS, SPELLINGS
from gsprune.importance.statistics import REDUCTIONS, FlatStatistics
from gsprune.tracing.structure import Structure

__all__ = ["Importance", "resolve_importance"]


@dataclass(frozen=True)
class Importance:
    """The rule that scores the units of a group: higher = keep.

        score = normalizer(reduction(statistic of every member))

    computed in float64 and rounded once, at the end, to float32.

    Attributes:
        criterion: a name, a `Criterion`, or a function from a (positions, other elements) float64 matrix to one number
            per position. The constructor replaces names and functions by a `Criterion`.
        reduction: "mean", "sum", "max", "prod" or "first" (the root's); None uses the criterion's default.
        normalizer: "none", "sum", "mean", "max", "standardization", "gaussian" or "lamp"; None uses the criterion's
            default.

    Raises:
        ValueError: a name is unknown.
        TypeError: the criterion is none of the above.
    """

    criterion: str | Criterion | MatrixFunction = "l1"
    reduction: str | None = None
    normalizer: str | None = None

    def __post_init__(self) -> None:
        criterion = _as_criterion(self.criterion)
        reduction = criterion.default_reduction if self.reduction is None else self.reduction
        normalizer = criterion.default_normalizer if self.normalizer is None else self.normalizer
        normalizer = SPELLINGS.get(normalizer, normalizer) if isinstance(normalizer, str) else normalizer
        _check_name("reduction", reduction, REDUCTIONS)
        _check_name("normalizer", normalizer, NORMALIZERS)
        object.__setattr__(self, "criterion", criterion)
        object.__setattr__(self, "reduction", reduction)
        object.__setattr__(self, "normalizer", normalizer)

    def unit_scores(self, source: ScoreSource) -> Float32Array:
        """Scores of the units of all groups that can be pruned.

        Statistics that depend on data are averaged over the ranks of a process group.

        Returns:
            (units,) float32 over all groups of the structure, finite; 0 in groups that are not scored.

        Raises:
            ScoreError: a group lacks the criterion's data, or a score is not finite; the message names the group.
        """
        structure = source.structure
        if not any(first < last and group.name not in source.frozen for group, first, last in structure.spans()):
            return np.zeros(structure.num_units, dtype=np.float32)
        criterion = self._resolved()
        statistics = criterion.statistics(source)
        if source.stack is not None and criterion.reads_data:
            statistics = {name: parts.mean(0) for name, parts in source.stack(statistics).items()}
        scores = self._scores(FlatStatistics.of(statistics, source, criterion))
        bad = np.flatnonzero(~np.isfinite(scores))
        if len(bad):
            raise self._not_finite(scores, structure, int(bad[0]))
        return scores

    @property
    def name(self) -> str:
        """The name of the criterion, for messages: the registered name, or else that of the function or class."""
        criterion = self._resolved()
        if isinstance(criterion, FromFunction):
            return getattr(criterion.function, "__name__", repr(criterion.function))
        kind = type(criterion)
        return next((repr(name) for name, registered in CRITERIA.items() if registered is kind), kind.__name__)

    @property
    def reads_data(self) -> bool:
        """See `Criterion.reads_data`."""
        return self._resolved().reads_data

    @property
    def needs_calibration(self) -> bool:
        """See `Criterion.needs_calibration`."""
        return self._resolved().needs_calibration

    def state_dict(self) -> dict[str, Any]:
        """The state of the criterion, JSON-compatible; most have none."""
        return self._resolved().state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state; see `Criterion.load_state_dict`."""
        self._resolved().load_state_dict(state)

    def _resolved(self) -> Criterion:
        assert isinstance(self.criterion, Criterion)
        return self.criterion

    def _scores(self, statistics: FlatStatistics) -> Float32Array:
        assert self.reduction is not None
        assert self.normalizer is not None
        with np.errstate(all="ignore"):  # a score that is not finite is an error with the group's name
            scores = statistics.reduced(self.reduction)
            if self.normalizer != "none":
                for _, first, last in statistics.structure.spans():
                    if first < last:
                        scores[first:last] = NORMALIZERS[self.normalizer](scores[first:last])
            return scores.astype(np.float32)

    def _not_finite(self, scores: Float32Array, structure: Structure, unit: int) -> ScoreError:
        """The error that names the group of the first unit whose score is not finite."""
        index = int(np.searchsorted(structure.first_unit, unit, side="right")) - 1
        first, last = structure.first_unit[index : index + 2].tolist()
        bad = int(np.count_nonzero(~np.isfinite(scores[first:last])))
        return ScoreError(
            f"`importance` {self.name}: scores of group {structure.traced.groups[index].name!r} are NaN or infinite for"
            f" {bad} of {last - first} units (first: {unit - first}): weights or data have diverged, or the scores"
            " overflow in float32"
        )


def resolve_importance(spec: str | Importance | Criterion | MatrixFunction) -> Importance:
    """Convert a user's ``importance=`` to an `Importance`.

    Raises:
        ValueError: the name is unknown.
        TypeError: `spec` is none of the above.
    """
    return spec if isinstance(spec, Importance) else Importance(spec)


def _as_criterion(spec: str | Criterion | MatrixFunction) -> Criterion:
    if isinstance(spec, str):
        _check_name("importance", spec, CRITERIA)
        return CRITERIA[spec]()
    if isinstance(spec, Criterion):
        return spec
    if isinstance(spec, type | nn.Module) or not callable(spec):
        raise TypeError(
            f"`importance` must be a name ({', '.join(CRITERIA)}), an Importance, a Criterion object or a function of "
            f"a weight matrix, got {spec!r}"
        )
    return FromFunction(spec)


def _check_name(argument: str, name: object, names: Collection[str]) -> None:
    if not isinstance(name, str) or name not in names:
        hint = suggestion(name, names)
        raise ValueError(f"`{argument}` must be one of {', '.join(sorted(names))}, got {name!r}{hint}")
