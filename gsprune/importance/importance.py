"""An importance: criterion, reduction and normalizer together."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from gsprune import _core
from gsprune.backends import Backend
from gsprune.errors import ScoreError
from gsprune.importance.activation import Activation
from gsprune.importance.base import Criterion, FloatArray, FromFunction, MatrixFunction, ScoreSource
from gsprune.importance.distance import Fpgm
from gsprune.importance.gradient import Hessian, Taylor
from gsprune.importance.magnitude import L1, L2, Lamp
from gsprune.importance.norm_scale import NormScale
from gsprune.importance.normalizers import NORMALIZERS, SPELLINGS
from gsprune.importance.random import Random
from gsprune.importance.reductions import REDUCTIONS
from gsprune.importance.sums import FlatStatistics
from gsprune.tracing.graph import Graph
from gsprune.tracing.structure import Structure

__all__ = ["CRITERIA", "Importance", "resolve_importance"]

CRITERIA: dict[str, type[Criterion]] = {
    "l1": L1,
    "l2": L2,
    "taylor": Taylor,
    "hessian": Hessian,
    "bn_scale": NormScale,
    "lamp": Lamp,
    "fpgm": Fpgm,
    "activation": Activation,
    "random": Random,
}
"""Name -> criterion."""


@dataclass(frozen=True)
class Importance:
    """How important the units of a group are: higher = keep.

        score = normalizer(reduction(statistic of every member))

    computed in float64 and rounded once, at the end, to float32.

    Attributes:
        criterion: a name, a `Criterion`, or a function from a (positions, everything else) float64 matrix to one number
            per position; it is a `Criterion` once the object exists.
        reduction: "mean", "sum", "max", "prod" or "first" (the root's); None takes the criterion's own.
        normalizer: "none", "sum", "mean", "max", "standardization", "gaussian" or "lamp"; None takes the criterion's
            own.

    Raises:
        ValueError: a name is not known.
        TypeError: the criterion is none of the above.
    """

    criterion: str | Criterion | MatrixFunction = "l1"
    reduction: str | None = None
    normalizer: str | None = None

    def __post_init__(self) -> None:
        criterion = _criterion(self.criterion)
        reduction = criterion.default_reduction if self.reduction is None else self.reduction
        normalizer = criterion.default_normalizer if self.normalizer is None else self.normalizer
        normalizer = SPELLINGS.get(normalizer, normalizer) if isinstance(normalizer, str) else normalizer
        _check_name("reduction", reduction, REDUCTIONS)
        _check_name("normalizer", normalizer, NORMALIZERS)
        object.__setattr__(self, "criterion", criterion)
        object.__setattr__(self, "reduction", reduction)
        object.__setattr__(self, "normalizer", normalizer)

    def scores(
        self,
        graph: Graph | Structure,
        tensors: Mapping[str, Tensor],
        backend: Backend,
        *,
        frozen: Collection[str] = frozenset(),
        model: nn.Module | None = None,
        run: Callable[[nn.Module], Any] | None = None,
        average: Callable[[Mapping[str, FloatArray]], dict[str, FloatArray]] | None = None,
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Scores of all groups that may lose units, by name.

        Args:
            graph: the groups of the network as it is now.
            tensors: see `unit_scores`, as for all that follow.
            backend: computes the sums over the weights.
            frozen: names of groups that are not scored.
            model: the network.
            run: calls a model on the example.
            average: the mean over several processes.

        Returns:
            group name -> (num_units,) float32, finite.

        Raises:
            ScoreError: a group has nothing to read, or a score that is not finite; the message names the group.
        """
        structure = Structure.of(graph) if isinstance(graph, Graph) else graph
        scores = self.unit_scores(structure, tensors, backend, frozen=frozen, model=model, run=run, average=average)
        bounds = structure.first_unit.tolist()
        return {
            group.name: scores[first:last]
            for group, first, last in zip(structure.traced.groups, bounds, bounds[1:], strict=False)
            if group.name not in frozen and first < last
        }

    def unit_scores(
        self,
        structure: Structure,
        tensors: Mapping[str, Tensor],
        backend: Backend,
        *,
        frozen: Collection[str] = frozenset(),
        model: nn.Module | None = None,
        run: Callable[[nn.Module], Any] | None = None,
        average: Callable[[Mapping[str, FloatArray]], dict[str, FloatArray]] | None = None,
    ) -> npt.NDArray[np.float32]:
        """Scores of the units of all groups that may lose some.

        Args:
            structure: the groups of the network as it is now.
            tensors: parameters and buffers by canonical name; gradients are read from their ``.grad``.
            backend: computes the sums over the weights.
            frozen: names of groups that are not scored.
            model: the network; the criterion "activation" runs it, "bn_scale" asks it which weights belong to norms.
            run: calls a model on the example (`Example.call`), for "activation".
            average: the mean over several processes, taken of statistics that depend on data; None where there is one.

        Returns:
            (units,) float32 over all groups of the structure, finite; 0 in groups that are not scored.

        Raises:
            ScoreError: a group has nothing to read, or a score that is not finite; the message names the group.
        """
        if not _has_units(structure, frozen):
            return np.zeros(structure.num_units, dtype=np.float32)
        source = ScoreSource(structure, frozenset(frozen), tensors, backend, model, run)
        criterion = self._resolved()
        statistics = criterion.statistics(source)
        if average is not None and criterion.reads_data:
            statistics = average(statistics)
        scores = self._reduced(statistics, source)
        bad = _core.first_not_finite(scores)
        if bad >= 0:
            raise _not_finite(scores, structure, bad)
        return scores

    def state_dict(self) -> dict[str, Any]:
        """State of the criterion, where it has one; JSON-compatible."""
        return self._resolved().state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`; see `Criterion.load_state_dict`."""
        self._resolved().load_state_dict(state)

    def _resolved(self) -> Criterion:
        assert isinstance(self.criterion, Criterion)
        return self.criterion

    def _reduced(self, statistics: Mapping[str, FloatArray], source: ScoreSource) -> npt.NDArray[np.float32]:
        """Reduction and normalizer, group by group or, where nothing compares units, all groups at once."""
        assert self.reduction is not None
        if isinstance(statistics, FlatStatistics) and self.normalizer == "none":
            return statistics.reduced(self.reduction)
        structure = source.structure
        scores = np.zeros(structure.num_units, dtype=np.float32)
        bounds = structure.first_unit.tolist()
        with np.errstate(all="ignore"):  # what is not finite is reported with the group's name
            for group, first, last in zip(structure.traced.groups, bounds, bounds[1:], strict=False):
                if group.name not in source.frozen and first < last:
                    scores[first:last] = self._score(group.name, statistics[group.name], last - first)
        return scores

    def _score(self, name: str, statistics: FloatArray, num_units: int) -> npt.NDArray[np.float32]:
        assert self.reduction is not None
        assert self.normalizer is not None
        if statistics.ndim != 2 or statistics.shape[1] != num_units or statistics.shape[0] == 0:
            raise ScoreError(
                f"{type(self.criterion).__name__} must give (members, {num_units}) statistics for group {name!r}, "
                f"got shape {statistics.shape}"
            )
        return NORMALIZERS[self.normalizer](REDUCTIONS[self.reduction](statistics)).astype(np.float32)


def resolve_importance(spec: str | Importance | Criterion | MatrixFunction) -> Importance:
    """The importance that a user's `importance=` stands for.

    Args:
        spec: a criterion's name, an `Importance`, a `Criterion` or a function (see `Importance.criterion`).

    Raises:
        ValueError: the name is not known.
        TypeError: `spec` is none of the above.
    """
    if isinstance(spec, Importance):
        return spec
    return _named(spec) if isinstance(spec, str) and spec in CRITERIA else Importance(spec)


@cache
def _named(name: str) -> Importance:
    """The importance of that name: made once, since those that go by a name have no state."""
    return Importance(name)


def _criterion(spec: str | Criterion | MatrixFunction) -> Criterion:
    if isinstance(spec, Criterion):
        return spec
    if isinstance(spec, str):
        _check_name("importance", spec, CRITERIA)
        return CRITERIA[spec]()
    if isinstance(spec, type | nn.Module) or not callable(spec):
        raise TypeError(
            f"`importance` must be a name ({', '.join(CRITERIA)}), an Importance, a Criterion object or a function of "
            f"a weight matrix, got {spec!r}"
        )
    return FromFunction(spec)


def _check_name(argument: str, name: object, known: Collection[str]) -> None:
    if isinstance(name, str) and name in known:
        return
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"`{argument}` must be one of {', '.join(sorted(known))}, got {name!r}{hint}")


def _has_units(structure: Structure, frozen: Collection[str]) -> bool:
    """Whether there is a unit outside of the frozen groups."""
    if not frozen:
        return structure.num_units > 0
    counts = zip(structure.traced.groups, structure.units_of_groups(), strict=True)
    return any(count > 0 and group.name not in frozen for group, count in counts)


def _not_finite(scores: npt.NDArray[np.float32], structure: Structure, unit: int) -> ScoreError:
    """The error that names the group of the first unit whose score is not finite."""
    index = int(np.searchsorted(structure.first_unit, unit, side="right")) - 1
    first, last = structure.first_unit[index : index + 2].tolist()
    bad = int(np.count_nonzero(~np.isfinite(scores[first:last])))
    return ScoreError(
        f"`importance`: scores of group {structure.traced.groups[index].name!r} are NaN or infinite for {bad} of"
        f" {last - first} units (first: {unit - first}): what they are made of has diverged, or overflows in float32"
    )
