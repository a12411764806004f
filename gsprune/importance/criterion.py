"""The protocol of a criterion, and the registry of criteria by name.

An importance has three independent parts. A *criterion* (this module, and one file per family) gives a statistic of
every unit in every member of a group. A *reduction* (`gsprune.importance.statistics.REDUCTIONS`) combines the members'
statistics into one number per unit. A *normalizer* (`gsprune.importance.normalizers`) makes groups comparable.
`gsprune.Importance` combines the three.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, TypeVar

from torch import Tensor, nn

from gsprune.arrays import Float64Array
from gsprune.backends import Backend
from gsprune.errors import ScoreError
from gsprune.tracing.example import Example, first_outputs
from gsprune.tracing.graph import Graph, Group
from gsprune.tracing.structure import Structure
from gsprune.tracing.temporary_eval import temporary_eval

__all__ = ["CRITERIA", "Criterion", "ScoreSource", "register_criterion"]


@dataclass(frozen=True)
class ScoreSource:
    """Everything that a criterion may read. A criterion must not change any of it, except for `notes`.

    Attributes:
        structure: the groups of the network at present.
        frozen: names of groups that are not scored.
        tensors: parameters and buffers by canonical name; gradients are their ``.grad``.
        backend: computes sums over weights.
        model: the network, if the caller has it.
        example: the call that replaces missing calibration data; None if there is none.
        calibration: the calls of the calibration data that the user passed; empty if there are none.
        stack: gathers arrays of all ranks of a process group along a new first axis; None for one process.
        notes: lines for the step's report; a criterion appends to it.
    """

    structure: Structure
    frozen: frozenset[str]
    tensors: Mapping[str, Tensor]
    backend: Backend
    model: nn.Module | None = None
    example: Example | None = None
    calibration: Sequence[Example] = ()
    stack: Callable[[Mapping[str, Float64Array]], dict[str, Float64Array]] | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def graph(self) -> Graph:
        """The graph of the network at present."""
        return self.structure.graph

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The groups to score."""
        return tuple(group for group in self.graph.groups if group.name not in self.frozen and group.num_units > 0)

    def run_model(self, criterion: str, run: Callable[[nn.Module], Any] | None = None) -> None:
        """Run the network on the calibration data, in eval mode and without gradients.

        A data-dependent criterion registers forward hooks first, which accumulate over the batches. Modes, buffers and
        random generators are restored afterwards.

        Args:
            criterion: name of the criterion, for messages.
            run: replaces the calibration data.

        Raises:
            ScoreError: the source has no model or no data.
        """
        if self.model is None:
            raise ScoreError(f"importance {criterion!r} needs the model itself; call it through gsprune.prune_step")
        calls = self.calibration or (() if self.example is None else (self.example,))
        if run is None and not calls:
            raise ScoreError(
                f"importance {criterion!r} needs an input to run on: give example_inputs, or, for 'activation', "
                "Importance(Activation(batches=[...]))"
            )
        with temporary_eval(self.model):
            if run is not None:
                run(self.model)
                return
            for call in calls:
                first_outputs(self.model, call, "calibration")


class Criterion(ABC):
    """Gives float64 statistics of the units; higher means keep.

    To make your own, subclass it and implement `statistics`. Pass an object of the class as ``importance=``, or
    register the class under a name with `register_criterion`. A function of one weight matrix is a criterion, too (see
    `gsprune.importance.FromFunction`).

    Attributes:
        default_reduction: the reduction that `Importance` uses if none is given.
        default_normalizer: the normalizer that `Importance` uses if none is given.
        reads_data: True if the statistics depend on data, as gradients do. Then the ranks of a process group average
            them.
        needs_calibration: True if a step without `calibration` must raise an error.
    """

    default_reduction: ClassVar[str] = "mean"
    default_normalizer: ClassVar[str] = "none"
    reads_data: ClassVar[bool] = False
    needs_calibration: ClassVar[bool] = False

    @abstractmethod
    def statistics(self, source: ScoreSource) -> Mapping[str, Float64Array]:
        """Statistics of all groups of `source.groups`.

        A criterion of weights returns one row per weight, the root's first. A criterion of whole units (from data, or
        from several weights together) returns a single row, which reductions do not change.

        Returns:
            group name -> (rows, units) float64, at least one row.

        Raises:
            ScoreError: a group lacks the data that this criterion reads; the message names the group and a way out.
        """

    def state_dict(self) -> dict[str, Any]:
        """The JSON-compatible state that a resumed run needs to continue as if it was never interrupted."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state.

        Args:
            state: the result of `state_dict` of the same class.

        Raises:
            ValueError: `state` belongs to another criterion.
        """
        if state:
            raise ValueError(f"`state` of {type(self).__name__} must be empty, got keys {sorted(state)}")


CRITERIA: dict[str, type[Criterion]] = {}
"""Name -> class, for ``importance="name"``; filled by `register_criterion`."""

_C = TypeVar("_C", bound=type[Criterion])


def register_criterion(name: str) -> Callable[[_C], _C]:
    """Class decorator: make a criterion available as ``importance="name"``, in Python and on the command line.

        @register_criterion("spread")
        class Spread(Criterion): ...

    Args:
        name: the name; the class must be callable without arguments.

    Raises:
        TypeError: `name` is not a string, or the decorated object is not a subclass of `Criterion`.
        ValueError: the name is taken.
    """
    if not isinstance(name, str):
        raise TypeError(f"`name` must be a string, as in @register_criterion('spread'), got {name!r}")
    if name in CRITERIA:
        taken = CRITERIA[name]
        raise ValueError(f"`name` {name!r} is taken by {taken.__module__}.{taken.__qualname__}; choose another name")

    def register(criterion: _C) -> _C:
        if not isinstance(criterion, type) or not issubclass(criterion, Criterion):
            raise TypeError(f"@register_criterion({name!r}) must decorate a subclass of Criterion, got {criterion!r}")
        CRITERIA[name] = criterion
        return criterion

    return register
