"""What one step does, decided before anything is touched: which tensors are sliced how, which entries change.

A step may come at every optimizer step: what is done per tensor is done by one call of the core, and names are looked
up only when something asks for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor
from torch.optim import Optimizer

from gsprune import _core
from gsprune.backends import Pattern
from gsprune.errors import RewriteError
from gsprune.rewrite.binding import Binding
from gsprune.rewrite.optimizers.attributes import add_companions
from gsprune.rewrite.optimizers.states import (
    StateSlicer,
    as_dict,
    history_resets,
    refuse_preconditioners,
    sliced_states,
)
from gsprune.rewrite.shared_storage import check_storages
from gsprune.rewrite.size_links import Entry
from gsprune.tracing.graph import IntArray
from gsprune.tracing.structure import Structure

__all__ = ["RewritePlan", "plan_rewrite"]


@dataclass(frozen=True)
class RewritePlan:
    """One step.

    Attributes:
        tensors: every tensor that is sliced, once: those of the modules, then gradients and optimizer states.
        num_owned: how many of them belong to the modules.
        num_model: how many of those to the model, which stand first.
        num_companions: how many the optimizers keep in attributes; the last ones.
        patterns: the distinct ways of slicing.
        pattern_of: (len(tensors),) index into `patterns`.
        entries: (dictionary, key, value): attributes that follow and optimizer histories that start anew.
        notes: what the report must say besides.
        model: knows the names of the model's own tensors.
    """

    tensors: list[Tensor]
    num_owned: int
    num_model: int
    num_companions: int
    patterns: list[Pattern]
    pattern_of: list[int]
    entries: list[Entry]
    notes: tuple[str, ...]
    model: Binding

    def refuse_to_scale(self) -> None:
        """Refuse to scale weights of which an optimizer keeps copies.

        Raises:
            RewriteError: an optimizer keeps tensors outside of its state; its next step would undo the scaling.
        """
        if self.num_companions:
            raise RewriteError(
                f"this step scales weights, and an optimizer keeps {self.num_companions} tensors in its attributes that"
                " may be copies of them (slow weights, master weights); nothing was changed. Prune without `rescale=`"
                " and keep the attention's width (`ignore=`), or prune without `optimizer=` and build a new optimizer"
            )

    @cached_property
    def model_index(self) -> dict[str, int]:
        """Name -> index into `tensors`, for the model's own tensors."""
        index = {id(tensor): i for i, tensor in enumerate(self.tensors[: self.num_model])}
        return {name: index[id(tensor)] for name, tensor in self.model.tensors.items() if id(tensor) in index}

    def keeps(self, name: str) -> Pattern:
        """(axis, kept positions) of one of the model's tensors; empty where it is not sliced."""
        index = self.model_index.get(name)
        return () if index is None else self.patterns[self.pattern_of[index]]


def plan_rewrite(
    bindings: Sequence[Binding], after: Structure, keeps: list[IntArray | None], optimizers: Sequence[Optimizer]
) -> RewritePlan:
    """Plan the removal of positions; touches nothing.

    Args:
        bindings: the model's, then its followers'.
        after: the structure after the step.
        keeps: kept positions per vector of the structure, None where all are kept.
        optimizers: whose states follow.

    Raises:
        RewriteError: a gradient or a state cannot be sliced, or a parameter's memory has other users.
    """
    sliced = sliced_states(optimizers)
    parts, states = [binding.parts for binding in bindings], [as_dict(optimizer.state) for optimizer in sliced]
    patterns, tensors, pattern_of, num_owned, num_model, entries, others = _core.plan_cuts(
        after.cuts, keeps, after.starts, parts, states
    )
    check_storages(tensors[:num_owned], [binding.tensors for binding in bindings])
    slicer = StateSlicer(bindings, tensors, patterns, pattern_of, entries)
    for owner, which, key, value in others:
        if which is None:
            slicer.add_gradient(owner, value)
        else:
            slicer.add_state(owner, sliced[which], states[which][tensors[owner]], key, value)
    num_known = len(tensors)
    add_companions(optimizers, bindings, num_owned, slicer)
    num_companions = len(tensors) - num_known
    refuse_preconditioners(optimizers, slicer, num_owned)
    notes = []
    for optimizer in optimizers:
        resets = history_resets(optimizer, tensors[:num_owned])
        if resets:
            entries += resets
            notes.append("the history of L-BFGS was reset")
    for binding in bindings:
        entries += binding.tuple_entries(after)
    return RewritePlan(
        tensors, num_owned, num_model, num_companions, patterns, pattern_of, entries, tuple(notes), bindings[0]
    )
