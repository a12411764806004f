"""What one step does, decided before anything is touched: which tensors are sliced how, which entries change.

A step may come at every optimizer step: what is done per tensor is done by calls that do not return to the interpreter
in between (`map`, `compress`), and names are looked up only when something asks for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import compress

from torch import Tensor
from torch.optim import Optimizer

from gsprune.backends import Pattern
from gsprune.rewrite.attributes import Entry
from gsprune.rewrite.binding import Binding
from gsprune.rewrite.optimizer_state import add_gradients_and_states, history_resets
from gsprune.tracing.graph import IntArray
from gsprune.tracing.structure import Structure

__all__ = ["RewritePlan", "plan_rewrite"]


@dataclass(frozen=True)
class RewritePlan:
    """One step.

    Attributes:
        tensors: every tensor that is sliced, once: those of the modules, then gradients and optimizer states.
        num_owned: how many of them belong to the modules.
        patterns: the distinct ways of slicing.
        pattern_of: (len(tensors),) index into `patterns`.
        entries: (dictionary, key, value): attributes that follow and optimizer histories that start anew.
        notes: what the report must say besides.
        model_names: names of the model's own tensors, which stand first.
    """

    tensors: list[Tensor]
    num_owned: int
    patterns: list[Pattern]
    pattern_of: list[int]
    entries: list[Entry]
    notes: tuple[str, ...]
    model_names: list[str]

    @cached_property
    def model_index(self) -> dict[str, int]:
        """Name -> index into `tensors`, for the model's own tensors."""
        return {name: index for index, name in enumerate(self.model_names)}

    def keeps(self, name: str) -> tuple[tuple[int, IntArray], ...]:
        """(axis, kept positions) of one of the model's tensors; empty where it is not sliced."""
        index = self.model_index.get(name)
        return () if index is None else self.patterns[self.pattern_of[index]].keeps


def plan_rewrite(
    bindings: Sequence[Binding], after: Structure, keeps: Sequence[IntArray | None], optimizers: Sequence[Optimizer]
) -> RewritePlan:
    """Plan the removal of positions; touches nothing.

    Args:
        bindings: the model's, then its followers'.
        after: the structure after the step.
        keeps: kept positions per vector of the structure, None where all are kept.
        optimizers: whose states follow.

    Raises:
        RewriteError: a gradient or a state cannot be sliced.
    """
    patterns, number = _patterns(after, keeps)
    model = bindings[0]
    chosen = list(map(number.__getitem__, model.cuts))
    is_cut = [index >= 0 for index in chosen]
    tensors = list(compress(model.tensors.values(), is_cut))
    pattern_of = list(compress(chosen, is_cut))
    if len(bindings) > 1:
        known = set(map(id, tensors))
        for follower in bindings[1:]:
            for tensor, cut in zip(follower.tensors.values(), follower.cuts, strict=True):
                if number[cut] >= 0 and id(tensor) not in known:  # a follower may share tensors with the model
                    known.add(id(tensor))
                    tensors.append(tensor)
                    pattern_of.append(number[cut])
    num_owned = len(tensors)
    add_gradients_and_states(optimizers, bindings, tensors, patterns, pattern_of)
    entries: list[Entry] = []
    notes = []
    for optimizer in optimizers:
        resets = history_resets(optimizer, tensors[:num_owned])
        if resets:
            entries += resets
            notes.append("the history of L-BFGS was reset")
    lengths = after.lengths()
    for binding in bindings:
        entries += binding.entries(lengths, after)
    names = list(compress(model.tensors, is_cut))
    return RewritePlan(tensors, num_owned, patterns, pattern_of, entries, tuple(notes), names)


def _patterns(after: Structure, keeps: Sequence[IntArray | None]) -> tuple[list[Pattern], list[int]]:
    """The patterns, and for each of `Structure.cuts` the index of its pattern, -1 where nothing goes."""
    patterns: list[Pattern] = []
    number: list[int] = []
    for axes in after.cuts:
        pairs = []
        for axis, vector in axes:  # a comprehension would be a call for every tensor
            keep = keeps[vector]
            if keep is not None:
                pairs.append((axis, keep))
        number.append(len(patterns) if pairs else -1)
        if pairs:
            patterns.append(Pattern(tuple(pairs)))
    return patterns, number
