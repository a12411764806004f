"""What one step does, decided before anything is touched: which tensors are sliced how, which entries change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gsprune.backends import Pattern
from gsprune.errors import RewriteError
from gsprune.rewrite.attributes import Shape, attribute_entries
from gsprune.rewrite.followers import matched_tensors
from gsprune.rewrite.optimizer_state import history_resets, state_slices
from gsprune.rewrite.tensors import named_tensors
from gsprune.tracing.graph import IntArray

__all__ = ["RewritePlan", "Subject", "plan_rewrite", "subjects_of"]

Removed = Mapping[str, Mapping[int, IntArray]]


@dataclass(frozen=True, slots=True)
class Subject:
    """A module that is rewritten: the model or a follower.

    Attributes:
        module: the module.
        tensors: its parameters and buffers under the model's canonical names.
        others: tied tensors' other names, where the module holds another tensor under them (a follower may have untied).
    """

    module: nn.Module
    tensors: dict[str, Tensor]
    others: dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class RewritePlan:
    """One step.

    Attributes:
        tensors: every tensor that is sliced, once: parameters, buffers, gradients, optimizer states, of all subjects.
        patterns: the distinct ways of slicing.
        pattern_of: (len(tensors),) index into `patterns`.
        entries: (dictionary, key, value): attributes that follow and optimizer histories that start anew.
        shapes: every tensor's shape afterwards.
        notes: what the report must say besides.
        model_index: canonical name -> index into `tensors`, for the model's own tensors.
    """

    tensors: list[Tensor]
    patterns: list[Pattern]
    pattern_of: list[int]
    entries: list[tuple[dict[Any, Any], Any, Any]]
    shapes: dict[str, Shape]
    notes: tuple[str, ...]
    model_index: dict[str, int]


def subjects_of(
    model: nn.Module, followers: Sequence[nn.Module], shapes: Mapping[str, Shape], aliases: Mapping[str, str]
) -> list[Subject]:
    """The model and its followers, matched in structure and shapes.

    Raises:
        ValueError: a follower does not match; names the first difference.
    """
    subjects = []
    for index, module in enumerate((model, *followers)):
        everything = named_tensors(model) if index == 0 else matched_tensors(module, index - 1, shapes, aliases)
        tensors = {name: everything[name] for name in shapes}
        others = {
            alias: everything[alias]
            for alias, name in aliases.items()
            if alias in everything and everything[alias] is not tensors[name]
        }
        subjects.append(Subject(module, tensors, others))
    return subjects


class _Slices:
    """Collects the tensors to be sliced, each once."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.patterns: list[Pattern] = []
        self.pattern_of: list[int] = []
        self._index_of_pattern: dict[int, int] = {}
        self._index_of_tensor: dict[int, int] = {}

    def add(self, tensor: Tensor, pattern: Pattern) -> int:
        known = self._index_of_tensor.get(id(tensor))
        if known is not None:
            return known
        index = self._index_of_pattern.get(id(pattern))
        if index is None:
            index = self._index_of_pattern[id(pattern)] = len(self.patterns)
            self.patterns.append(pattern)
        self._index_of_tensor[id(tensor)] = len(self.tensors)
        self.tensors.append(tensor)
        self.pattern_of.append(index)
        return len(self.tensors) - 1

    def add_with_gradient(self, name: str, tensor: Tensor, pattern: Pattern) -> int:
        _check_rewritable(name, tensor)
        index = self.add(tensor, pattern)
        if tensor.grad is not None:
            if tensor.grad.layout != torch.strided:
                raise RewriteError(
                    f"the gradient of {name!r} is {tensor.grad.layout}, which cannot be sliced; nothing was changed. Call"
                    " optimizer.zero_grad() before prune_step"
                )
            self.add(tensor.grad, pattern)
        return index


def _check_rewritable(name: str, tensor: Tensor) -> None:
    if tensor.is_inference():
        raise RewriteError(
            f"{name!r} was created under torch.inference_mode and cannot be changed in place; nothing was changed. Build or"
            " load the model outside of inference_mode"
        )
    if not tensor.is_leaf:
        raise RewriteError(
            f"{name!r} is computed from other tensors, not a parameter of its own; nothing was changed. Detach it"
        )


def patterns_of(shapes: Mapping[str, Shape], removed: Removed) -> tuple[dict[str, Pattern], dict[str, Shape]]:
    """How each tensor is sliced, and all shapes afterwards."""
    patterns = {}
    after = dict(shapes)
    for name, axes in removed.items():
        shape = list(shapes[name])
        keeps = []
        for axis, positions in sorted(axes.items()):
            is_kept = np.ones(shape[axis], dtype=bool)
            is_kept[positions] = False
            keep = np.flatnonzero(is_kept)
            keeps.append((axis, keep))
            shape[axis] = len(keep)
        patterns[name] = Pattern(tuple(keeps))
        after[name] = tuple(shape)
    return patterns, after


def plan_rewrite(
    subjects: Sequence[Subject],
    shapes: Mapping[str, Shape],
    aliases: Mapping[str, str],
    removed: Removed,
    optimizers: Sequence[Optimizer],
) -> RewritePlan:
    """Plan the removal of positions; touches nothing.

    Args:
        subjects: the model, then its followers.
        shapes: present shape of every tensor by canonical name.
        aliases: other names of tied tensors.
        removed: tensor -> {axis: sorted positions to remove}.
        optimizers: whose states follow.

    Raises:
        RewriteError: a gradient or a state cannot be sliced.
    """
    patterns, after = patterns_of(shapes, removed)
    slices = _Slices()
    model_index: dict[str, int] = {}
    pattern_of_parameter: dict[int, Pattern] = {}
    names: dict[int, str] = {}
    for subject in subjects:
        named = [(name, name, subject.tensors[name]) for name in patterns]
        named += [(alias, aliases[alias], t) for alias, t in subject.others.items() if aliases[alias] in patterns]
        for name, canonical, tensor in named:
            index = slices.add_with_gradient(name, tensor, patterns[canonical])
            pattern_of_parameter[id(tensor)] = patterns[canonical]
            names[id(tensor)] = name
            if subject is subjects[0]:
                model_index[name] = index
    entries: list[tuple[dict[Any, Any], Any, Any]] = []
    notes = []
    for optimizer in optimizers:
        for tensor, pattern in state_slices(optimizer, pattern_of_parameter, names):
            slices.add(tensor, pattern)
        resets = history_resets(optimizer, pattern_of_parameter)
        if resets:
            entries += resets
            notes.append("the history of L-BFGS was reset")
    for subject in subjects:
        entries += _attribute_entries(subject, shapes, after, aliases)
    return RewritePlan(slices.tensors, slices.patterns, slices.pattern_of, entries, after, tuple(notes), model_index)


def _attribute_entries(
    subject: Subject, before: Mapping[str, Shape], after: Mapping[str, Shape], aliases: Mapping[str, str]
) -> list[tuple[dict[str, Any], str, Any]]:
    """Attributes of the layers, also of those that hold a tied tensor under its other name."""
    modules = dict(subject.module.named_modules(remove_duplicate=False))
    all_before = {**before, **{alias: before[name] for alias, name in aliases.items()}}
    all_after = {**after, **{alias: after[name] for alias, name in aliases.items()}}
    return attribute_entries(modules, all_before, all_after)
