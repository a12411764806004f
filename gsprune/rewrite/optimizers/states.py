"""Slices optimizer states together with their parameters.

A state of the parameter's shape is cut like the parameter; `state_shapes.py` derives the cut of other shapes. States
may be nested in containers and objects. Numbers, tensors with one element, and references to parameters stay.
`attributes.py` finds tensors outside of `optimizer.state`; `registry.py` has the optimizers that need other rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from gsprune.arrays import IntArray
from gsprune.backends import Pattern
from gsprune.errors import RewriteError
from gsprune.rewrite.binding import Binding
from gsprune.rewrite.optimizers.nested import parts_of
from gsprune.rewrite.optimizers.state_shapes import is_preconditioner, pattern_of_state
from gsprune.rewrite.optimizers.wrappers import is_optimizer, tensors_below
from gsprune.rewrite.size_links import Entry
from gsprune.rewrite.tensors import check_gradient

__all__ = ["StateSlicer"]

Path = tuple[Any, ...]
"""Keys from a parameter's state to a part of it."""

_WAYS_OUT = (
    "Remove the entry (`del optimizer.state[parameter]`), register a handler with"
    " gsprune.rewrite.optimizers.register_state_handler, or prune without `optimizer=` and build a new optimizer"
    " (`report.slice(name, tensor)` slices tensors to copy into it)"
)


class StateSlicer:
    """Adds gradients and optimizer states to the plan of a step.

    Args:
        bindings: the names of the parameters, for messages.
        tensors: the parameters and buffers, then other tensors of the plan; appended to.
        patterns: the distinct cuts; appended to if a state's cut differs from its parameter's.
        pattern_of: (len(tensors),) index into `patterns`; appended to.
        entries: (dictionary, key, value) to set; appended to.
        num_owned: number of tensors that belong to the modules.

    Attributes:
        notes: lines for the report.
    """

    def __init__(
        self,
        bindings: Sequence[Binding],
        tensors: list[Tensor],
        patterns: list[Pattern],
        pattern_of: list[int],
        entries: list[Entry],
        num_owned: int,
    ) -> None:
        self.bindings, self.num_owned = bindings, num_owned
        self.tensors, self.patterns, self.pattern_of, self.entries = tensors, patterns, pattern_of, entries
        self.notes: list[str] = []

    @cached_property
    def planned(self) -> set[int]:
        """Ids of all tensors of the plan."""
        return set(map(id, self.tensors))

    @cached_property
    def owned(self) -> dict[int, int]:
        """Id of a parameter or buffer that is cut -> its index."""
        return {id(tensor): index for index, tensor in enumerate(self.tensors[: self.num_owned])}

    def cut_of(self, parameter: Tensor) -> dict[int, IntArray]:
        """{axis: sorted kept positions} of a parameter; empty if the step does not cut it."""
        index = self.owned.get(id(parameter))
        return {} if index is None else dict(self.patterns[self.pattern_of[index]])

    def slice(self, tensor: Tensor, cut: Mapping[int, IntArray]) -> None:
        """Cut one more tensor; `cut` is {axis: sorted kept positions}.

        Raises:
            TypeError: `tensor` is no tensor.
            ValueError: the tensor has no such axis or positions, or is sparse.
        """
        _check_cut(tensor, cut)
        if cut:
            self.patterns.append(tuple(sorted(cut.items())))
            self.add(tensor, len(self.patterns) - 1)

    def set(self, dictionary: dict[Any, Any], key: Any, value: Any) -> None:
        """Plan to set an entry of a dictionary, or an attribute in an object's ``__dict__``."""
        self.entries.append((dictionary, key, value))

    def note(self, text: str) -> None:
        """Add a line to the report."""
        self.notes.append(text)

    def add(self, tensor: Tensor, pattern: int) -> None:
        """Cut one more tensor by a pattern of the plan, unless the tensor is already planned."""
        if id(tensor) not in self.planned:
            self.planned.add(id(tensor))
            self.tensors.append(tensor)
            self.pattern_of.append(pattern)

    def add_gradient(self, owner: int, gradient: Tensor) -> None:
        """Cut a gradient like its parameter.

        Raises:
            RewriteError: it is sparse, or of another shape.
        """
        check_gradient(self.tensors[owner], gradient, lambda: self._name_of(owner))
        self.add(gradient, self.pattern_of[owner])

    def add_state(self, owner: int, optimizer: Optimizer, holder: Any, key: Any, value: Any) -> None:
        """Cut all tensors in one entry of the state of the parameter with the index `owner`.

        `holder` is the dictionary with the entry; any other value if the entry cannot be set. With the key None, the
        value is the whole state.

        Raises:
            RewriteError: a tensor's shape is not supported, or an object's tensors cannot be found.
        """
        seen: set[int] = set()
        waiting: list[tuple[Path, Any, Any]] = [((key,), holder, value)]
        while waiting:
            path, holder, value = waiting.pop()
            if isinstance(value, Tensor):
                self._add_tensor(owner, optimizer, holder, path, value)
            elif isinstance(value, np.ndarray):
                if value.size > 1:
                    raise self._refusal(owner, optimizer, path, value)
            elif _are_integers(value) and tuple(value) == tuple(self.tensors[owner].shape):
                if not isinstance(holder, dict):
                    raise self._refusal(owner, optimizer, path, value)
                cut = dict(self.patterns[self.pattern_of[owner]])
                shape = [len(cut[axis]) if axis in cut else length for axis, length in enumerate(value)]
                self.set(holder, path[-1], type(value)(shape))
            elif id(value) not in seen and not is_optimizer(value):
                seen.add(id(value))
                parts = parts_of(value)
                if parts is None or (path == (None,) and type(value) is object):
                    raise self._refusal(owner, optimizer, path, value)
                inner = value if isinstance(value, dict) else getattr(value, "__dict__", value)
                waiting += [((*path, name), inner, part) for name, part in parts]

    def _add_tensor(self, owner: int, optimizer: Optimizer, holder: Any, path: Path, value: Tensor) -> None:
        parameter, pattern = self.tensors[owner], self.pattern_of[owner]
        if id(value) in self.planned or value.numel() == 1:
            return
        if value.shape == parameter.shape and value.layout == torch.strided:
            self.add(value, pattern)
            return
        siblings = holder.values() if isinstance(holder, dict) else ()
        cut = pattern_of_state(value, parameter, self.patterns[pattern], str(path[-1]), siblings)
        if cut is not None:
            self.slice(value, dict(cut))
        elif not any(value is tensor for binding in self.bindings for tensor in binding.module.parameters()):
            raise self._refusal(owner, optimizer, path, value)

    def refuse_preconditioners(self, optimizers: Sequence[Optimizer]) -> None:
        """Refuse matrices that mix the channels of a square parameter and have its shape.

        Raises:
            RewriteError: an optimizer has such a matrix.
        """
        for optimizer in optimizers:
            if type(optimizer).__module__.startswith("torch.optim"):  # they have none
                continue
            for owner, parameter in enumerate(self.tensors[: self.num_owned]):
                is_square = parameter.ndim == 2 and parameter.shape[0] == parameter.shape[1]
                state = optimizer.state.get(parameter) if is_square else None
                for key, part in parts_of(state) or ():
                    for value in tensors_below(part):
                        if value.shape == parameter.shape and is_preconditioner(value):
                            raise self._refusal(owner, optimizer, (key,), value)

    def _refusal(self, owner: int, optimizer: Optimizer, path: Path, value: Any) -> RewriteError:
        """The error for a part of a state that cannot be sliced."""
        keys = ["a parameter" if isinstance(key, Tensor) else repr(key) for key in reversed(path) if key is not None]
        state = f"state {' in '.join(keys)}" if keys else "the state"
        reason = f"is a {type(value).__name__}, which cannot be sliced along"
        if isinstance(value, Tensor):
            shape = tuple(self.tensors[owner].shape)
            mixes = " (it mixes its channels)" if tuple(value.shape) == shape else ""
            reason = f"has shape {tuple(value.shape)}, which cannot follow the parameter's {shape}{mixes}"
            if value.layout != torch.strided:
                reason = f"is {value.layout}, which cannot be sliced along"
        return RewriteError(
            f"{state} of {type(optimizer).__name__} for parameter {self._name_of(owner)!r} {reason}; nothing was"
            f" changed. {_WAYS_OUT}"
        )

    def _name_of(self, owner: int) -> str:
        names = ((name, tensor) for binding in self.bindings for name, tensor in binding.tensors.items())
        return next(name for name, tensor in names if tensor is self.tensors[owner])


def _check_cut(tensor: Any, cut: Mapping[int, IntArray]) -> None:
    """Check the arguments of `StateSlicer.slice`, which come from handlers of other packages."""
    if not isinstance(tensor, Tensor):
        raise TypeError(f"`tensor` must be a tensor, got {type(tensor).__name__}")
    if tensor.layout != torch.strided:
        raise ValueError(f"`tensor` must be dense to be sliced, got {tensor.layout}")
    for axis, kept in cut.items():
        if not 0 <= axis < tensor.ndim:
            raise ValueError(f"`cut` has axis {axis}, but `tensor` has shape {tuple(tensor.shape)}")
        positions = np.asarray(kept)
        is_sorted = positions.ndim == 1 and positions.size > 0 and bool((np.diff(positions) > 0).all())
        if not is_sorted or positions[0] < 0 or positions[-1] >= tensor.shape[axis]:
            raise ValueError(
                f"`cut` must have sorted positions below {tensor.shape[axis]} for axis {axis} of a tensor of shape"
                f" {tuple(tensor.shape)}, got {positions.tolist()}"
            )


def _are_integers(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) > 0 and all(type(element) is int for element in value)
