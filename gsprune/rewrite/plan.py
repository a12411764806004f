"""What one step does, decided before anything is touched: which tensors are sliced how, which entries change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from gsprune.backends import Pattern
from gsprune.errors import RewriteError
from gsprune.rewrite.attributes import Entry
from gsprune.rewrite.binding import Binding
from gsprune.rewrite.optimizer_state import history_resets, state_slices
from gsprune.tracing.graph import IntArray
from gsprune.tracing.structure import Structure

__all__ = ["RewritePlan", "plan_rewrite"]


@dataclass(frozen=True, slots=True)
class RewritePlan:
    """One step.

    Attributes:
        tensors: every tensor that is sliced, once: parameters, buffers, gradients, optimizer states, of all modules.
        patterns: the distinct ways of slicing.
        pattern_of: (len(tensors),) index into `patterns`.
        entries: (dictionary, key, value): attributes that follow and optimizer histories that start anew.
        notes: what the report must say besides.
        model_index: name -> index into `tensors`, for the model's own tensors.
    """

    tensors: list[Tensor]
    patterns: list[Pattern]
    pattern_of: list[int]
    entries: list[Entry]
    notes: tuple[str, ...]
    model_index: dict[str, int]

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
    patterns: list[Pattern] = []
    index_of: dict[str, int] = {}
    for name, axes in after.of_axis.items():
        cut = tuple((axis, keep) for axis, vector in axes if (keep := keeps[vector]) is not None)
        if cut:
            index_of[name] = len(patterns)
            patterns.append(Pattern(cut))
    tensors: list[Tensor] = []
    pattern_of: list[int] = []
    model_index: dict[str, int] = {}
    pattern_of_parameter: dict[int, int] = {}
    names: dict[int, str] = {}
    for number, binding in enumerate(bindings):
        for (name, tensor), canonical in zip(binding.tensors.items(), binding.canonical, strict=True):
            index = index_of.get(canonical)
            if index is None or id(tensor) in pattern_of_parameter:
                continue
            if number == 0:
                model_index[name] = len(tensors)
            tensors.append(tensor)
            pattern_of.append(index)
            grad = tensor.grad
            if grad is not None:
                _check_gradient(name, grad)
                tensors.append(grad)
                pattern_of.append(index)
            pattern_of_parameter[id(tensor)] = index
            names[id(tensor)] = name
    entries: list[Entry] = []
    notes = []
    for optimizer in optimizers:
        state_slices(optimizer, pattern_of_parameter, names, tensors, patterns, pattern_of)
        resets = history_resets(optimizer, pattern_of_parameter)
        if resets:
            entries += resets
            notes.append("the history of L-BFGS was reset")
    lengths = after.lengths()
    for binding in bindings:
        entries += binding.entries(lengths, after)
    return RewritePlan(tensors, patterns, pattern_of, entries, tuple(notes), model_index)


def _check_gradient(name: str, grad: Tensor) -> None:
    if grad.layout != torch.strided:
        raise RewriteError(
            f"the gradient of {name!r} is {grad.layout}, which cannot be sliced; nothing was changed. Call"
            " optimizer.zero_grad() before prune_step"
        )
