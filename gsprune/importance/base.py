"""What a criterion is: from a network's groups to one statistic per member and unit.

An importance is three independent choices, one file each: a *criterion* (this module and one file per family) gives a
statistic of every member of a group, a *reduction* (`reductions`) makes one number per unit of them, a *normalizer*
(`normalizers`) makes groups comparable. `gsprune.Importance` puts them together.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gsprune.backends import Backend
from gsprune.errors import ScoreError
from gsprune.tracing.graph import Graph, Group, Member
from gsprune.tracing.structure import Structure

__all__ = [
    "Criterion",
    "FloatArray",
    "FromFunction",
    "MatrixFunction",
    "ScoreSource",
    "counted_members",
    "layer_of",
    "unit_sums",
]

FloatArray = npt.NDArray[np.float64]
MatrixFunction = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class ScoreSource:
    """All that a criterion may read; it changes none of it.

    Attributes:
        structure: the network's groups as they are now.
        frozen: names of groups that are not scored.
        tensors: parameters and buffers by canonical name; gradients are read from their ``.grad``.
        backend: computes sums over weights.
        model: the network itself, where the caller has it.
        run: calls a model on the example; None where there is no example.
    """

    structure: Structure
    frozen: frozenset[str]
    tensors: Mapping[str, Tensor]
    backend: Backend
    model: nn.Module | None = None
    run: Callable[[nn.Module], Any] | None = None

    @property
    def graph(self) -> Graph:
        """The groups of the network as it is now."""
        return self.structure.graph

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Those that are to be scored."""
        return tuple(group for group in self.graph.groups if group.name not in self.frozen and group.num_units > 0)


class Criterion(ABC):
    """Gives a float64 statistic of every unit in every member; higher means: keep.

    A criterion of your own is a subclass with `statistics`, or simply a function (see `FromFunction`).

    Attributes:
        default_reduction: what `Importance` uses where no reduction is given.
        default_normalizer: the same for the normalizer.
        reads_data: whether the statistics depend on a batch and so differ between the ranks of a process group.
    """

    default_reduction: ClassVar[str] = "mean"
    default_normalizer: ClassVar[str] = "none"
    reads_data: ClassVar[bool] = False

    @abstractmethod
    def statistics(self, source: ScoreSource) -> Mapping[str, FloatArray]:
        """Statistics of all groups of `source.groups`.

        Args:
            source: what there is to read.

        Returns:
            group name -> (members, units) float64, at least one row; the first row speaks for the root.

        Raises:
            ScoreError: a group has nothing that this criterion reads; the message names the group and a way out.
        """

    def state_dict(self) -> dict[str, Any]:
        """What must be saved for the criterion to go on as if never interrupted; JSON-compatible."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`.

        Args:
            state: what `state_dict` of the same kind of criterion returned.

        Raises:
            ValueError: `state` belongs to another criterion.
        """
        if state:
            raise ValueError(f"`state` of {type(self).__name__} must be empty, got keys {sorted(state)}")


class FromFunction(Criterion):
    """A criterion made of a function of one weight, seen as a matrix.

        statistic(unit) = Σ over the unit's positions p of function(matrix)[p]

    The function gets the weight as a (positions, everything else) float64 tensor without gradient, with the axis that
    the group ties first, and returns one number per position.

    Args:
        function: the function.
    """

    def __init__(self, function: MatrixFunction) -> None:
        self.function = function

    def statistics(self, source: ScoreSource) -> dict[str, FloatArray]:
        """Statistics of all weights with two axes or more; see `Criterion.statistics`."""
        return {
            group.name: np.stack(
                [
                    unit_sums(self._values(source.tensors[member.tensor], member), member, group.num_units)
                    for member in counted_members(group, source)
                ]
            )
            for group in source.groups
        }

    def _values(self, weight: Tensor, member: Member) -> FloatArray:
        matrix = as_matrix(weight, member.axis)
        try:
            values = self.function(matrix)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise ScoreError(
                f"`importance`: {self.function!r} failed on the weight {member.tensor!r}, which it got as a"
                f" {tuple(matrix.shape)} matrix: {error}"
            ) from error
        if not isinstance(values, Tensor) or values.shape != matrix.shape[:1]:
            got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ValueError(
                f"`importance`: {self.function!r} must return a tensor of shape ({matrix.shape[0]},), one number "
                f"per row of the weight {member.tensor!r} it got as a {tuple(matrix.shape)} matrix; got {got}"
            )
        result: FloatArray = values.detach().to("cpu", torch.float64).numpy()
        return result


def as_matrix(weight: Tensor, axis: int) -> Tensor:
    """`weight` as a (shape[axis], everything else) float64 tensor without gradient."""
    return weight.detach().movedim(axis, 0).flatten(1).to(torch.float64)


def layer_of(tensor: str) -> str:
    """The name of the layer that a tensor belongs to: the tensor's name without its last component."""
    return tensor.rpartition(".")[0]


def counted_members(group: Group, source: ScoreSource) -> tuple[Member, ...]:
    """The members that count towards a score: parameters of a real dtype with two axes or more, of no copy.

    Args:
        group: the group.
        source: what there is to read.

    Raises:
        ScoreError: there are none.
    """
    members = tuple(
        member
        for member in group.members
        if (tensor := source.tensors[member.tensor]).ndim >= 2
        and isinstance(tensor, nn.Parameter)
        and tensor.is_floating_point()
        and not source.structure.traced.is_copy(member.tensor)
    )
    if not members:
        held = ", ".join(sorted({member.tensor for member in group.members}))
        raise ScoreError(
            f"group {group.name!r} has no weight with two axes or more to score (it ties {held}); "
            f"keep its width with ignore=({group.name!r},)"
        )
    return members


def unit_sums(values: FloatArray, member: Member, num_units: int) -> FloatArray:
    """Sum of `values` over the positions of every unit.

    Args:
        values: (shape[axis],) float64, one per position of the member's axis.
        member: says which unit owns each position.
        num_units: how many units the group has.

    Returns:
        (num_units,) float64.
    """
    # Unit -1 gets a place of its own in front, which is cheaper than selecting the others.
    return np.asarray(np.bincount(member.units + 1, weights=values, minlength=num_units + 1)[1:], dtype=np.float64)
