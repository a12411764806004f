"""The plan of one rewrite, made before anything is changed: the cut of every tensor, and the entries to set.

A loop may prune at every optimizer step. So one call of the core does the work per tensor, and names are looked up only
if they are needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from gsprune import _core
from gsprune.arrays import IntArray
from gsprune.backends import Pattern
from gsprune.errors import RewriteError
from gsprune.rewrite.binding import Binding
from gsprune.rewrite.optimizers.attributes import slice_attributes
from gsprune.rewrite.optimizers.registry import StateHandler, handler_of
from gsprune.rewrite.optimizers.states import StateSlicer
from gsprune.rewrite.shared_storage import check_storages
from gsprune.rewrite.size_links import Entry
from gsprune.tracing.structure import Structure

__all__ = ["RewritePlan", "plan_rewrite"]


@dataclass(frozen=True)
class RewritePlan:
    """The plan of one step.

    Attributes:
        tensors: every tensor that is sliced, once: those of the modules, then gradients and optimizer states.
        num_owned: number of the modules' tensors, which come first.
        num_model: number of the model's tensors, which come first among them.
        num_copies: number of tensors that the optimizers keep in attributes.
        patterns: the distinct cuts.
        pattern_of: (len(tensors),) index into `patterns`.
        entries: (dictionary, key, value): stored sizes, and reset histories of optimizers.
        notes: lines for the report.
        bindings: the model's tensors by name, then those of every follower.
    """

    tensors: list[Tensor]
    num_owned: int
    num_model: int
    num_copies: int
    patterns: list[Pattern]
    pattern_of: list[int]
    entries: list[Entry]
    notes: tuple[str, ...]
    bindings: Sequence[Binding]

    def refuse_copies_of_weights(self) -> None:
        """Refuse to scale weights of which an optimizer keeps copies.

        Raises:
            RewriteError: an optimizer keeps tensors outside of its state; its next step would undo the scaling.
        """
        if self.num_copies:
            raise RewriteError(
                f"this step scales weights, and an optimizer keeps {self.num_copies} tensors in its attributes that"
                " may be copies of them (slow weights, master weights); nothing was changed. Prune without `rescale=`"
                " and keep the attention's width (`ignore=`), or prune without `optimizer=` and build a new optimizer"
            )

    @cached_property
    def kept(self) -> dict[str, dict[int, IntArray]]:
        """Name -> {axis: sorted kept positions}, for the model's own tensors that are cut."""
        index = {id(tensor): i for i, tensor in enumerate(self.tensors[: self.num_model])}
        return {
            name: dict(self.patterns[self.pattern_of[index[id(tensor)]]])
            for name, tensor in self.bindings[0].tensors.items()
            if id(tensor) in index
        }


def plan_rewrite(
    bindings: Sequence[Binding], after: Structure, keeps: list[IntArray | None], optimizers: Sequence[Optimizer]
) -> RewritePlan:
    """Plan the removal of positions without changing anything.

    The model's binding comes first. `keeps` has the kept positions of every vector of the structure, None for all.

    Raises:
        RewriteError: a gradient or a state cannot be sliced, a parameter's memory has other users, or a follower ties
            tensors that are cut differently.
    """
    for binding in bindings:
        _check_ties(binding, after, keeps)
    handlers = [handler_of(optimizer) for optimizer in optimizers]
    by_shape = _optimizers_by_state(optimizers, handlers)
    parts, states = [binding.parts for binding in bindings], [_as_dict(optimizer.state) for optimizer in by_shape]
    cuts = _core.slice.plan_cuts(after.cuts, keeps, after.starts, parts, states)
    patterns, tensors, pattern_of, entries = cuts.patterns, cuts.tensors, cuts.pattern_of, cuts.entries
    num_owned = cuts.num_owned
    check_storages(tensors[:num_owned], [binding.tensors for binding in bindings])
    slicer = StateSlicer(bindings, tensors, patterns, pattern_of, entries, num_owned)
    for owner, which, key, value in cuts.others:
        if which is None:
            slicer.add_gradient(owner, value)
        else:
            slicer.add_state(owner, by_shape[which], states[which][tensors[owner]], key, value)
    unhandled = [optimizer for optimizer, handler in zip(optimizers, handlers, strict=True) if handler is None]
    num_before = len(tensors)
    slice_attributes(unhandled, slicer)
    num_copies = len(tensors) - num_before
    slicer.refuse_preconditioners(unhandled)
    for optimizer, handler in zip(optimizers, handlers, strict=True):
        if handler is not None:
            handler.slice_state(optimizer, slicer)
    for binding in bindings:
        entries += binding.tuple_entries(after)
    notes = tuple(slicer.notes)
    return RewritePlan(
        tensors, num_owned, cuts.num_of_first, num_copies, patterns, pattern_of, entries, notes, bindings
    )


def _check_ties(binding: Binding, after: Structure, keeps: list[IntArray | None]) -> None:
    """Refuse a follower that ties tensors which the model does not tie, if the step cuts them differently."""
    for i, j in binding.ties:
        if _kept_by_axis(binding.cuts[i], after, keeps) != _kept_by_axis(binding.cuts[j], after, keeps):
            names = list(binding.tensors)
            raise RewriteError(
                f"a follower ties {names[i]!r} and {names[j]!r}, which `model` keeps apart and this step cuts"
                " differently; nothing was changed. Give each a separate tensor in the follower, or tie them in"
                " `model`, too"
            )


def _kept_by_axis(cut: int, after: Structure, keeps: list[IntArray | None]) -> dict[int, list[int]]:
    """The kept positions of the axes that a cut changes."""
    axes = ((axis, keeps[vector]) for axis, vector in after.cuts[cut])
    return {axis: kept.tolist() for axis, kept in axes if kept is not None}


def _optimizers_by_state(optimizers: Sequence[Optimizer], handlers: Sequence[StateHandler | None]) -> list[Optimizer]:
    """One optimizer for every distinct state that is sliced by its shapes.

    A wrapper often has the same state object as the optimizer inside.
    """
    states = [optimizer.state for optimizer in optimizers]  # a wrapper may make a new one at every access
    by_state = {id(state): optimizer for state, optimizer in zip(reversed(states), reversed(optimizers), strict=True)}
    for state, handler in zip(states, handlers, strict=True):
        if handler is not None:
            by_state.pop(id(state), None)
    return list(by_state.values())


def _as_dict(state: Mapping[Tensor, Any]) -> dict[Tensor, Any]:
    """An optimizer's state as a dictionary, which it is in ``torch.optim``."""
    return state if isinstance(state, dict) else dict(state)
