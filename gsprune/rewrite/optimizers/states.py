"""Slices the tensors that an optimizer keeps for a parameter along with the parameter.

A state of the parameter's shape is cut like the parameter; `state_shapes.py` derives the cut of other shapes. States
may lie in lists, dictionaries, deques or attributes of objects. Scalars and plain numbers stay. L-BFGS keeps flat
vectors over all parameters, whose inner products would be wrong after slicing: its history starts anew.
`wrappers.py` finds what an optimizer keeps elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from gsprune.backends import Pattern
from gsprune.errors import RewriteError
from gsprune.rewrite.binding import Binding
from gsprune.rewrite.optimizers.nested import parts_of
from gsprune.rewrite.optimizers.state_shapes import is_preconditioner, pattern_of_state
from gsprune.rewrite.optimizers.wrappers import holds_any, is_optimizer, tensors_below
from gsprune.rewrite.size_links import Entry

__all__ = ["StateSlicer", "as_dict", "as_optimizers", "check_ownership", "history_resets", "sliced_states"]

# Keys that lead to a part of a state.
Place = tuple[Any, ...]

_WAYS_OUT = (
    "Remove the entry (`del optimizer.state[parameter]`), or prune without `optimizer=` and build a new optimizer"
    " (`report.slice(name, tensor)` cuts what you copy into it)"
)


def as_optimizers(
    optimizer: Optimizer | Sequence[Optimizer] | None, methods: Sequence[str] = ()
) -> tuple[Optimizer, ...]:
    """One optimizer, several or none as a tuple.

    Args:
        optimizer: the argument of that name.
        methods: what a wrapper must have besides parameter groups, a state and a step.

    Raises:
        TypeError: something is neither a ``torch.optim.Optimizer`` nor a wrapper that looks like one.
    """
    if optimizer is None:
        return ()
    optimizers = tuple(optimizer) if isinstance(optimizer, list | tuple) else (optimizer,)
    for i, candidate in enumerate(optimizers):
        where = f" at position {i}" if len(optimizers) > 1 else ""
        if not is_optimizer(candidate):
            raise TypeError(
                "`optimizer` must be a torch.optim.Optimizer, a wrapper with `param_groups`, `state` and `step`, or a"
                f" sequence of them, got {type(candidate).__name__}{where}"
            )
        missing = [name for name in methods if not callable(getattr(candidate, name, None))]
        if missing:
            raise TypeError(f"`optimizer` ({type(candidate).__name__}){where} has no method {missing[0]!r}")
    return optimizers


def check_ownership(optimizers: Sequence[Optimizer], known: Collection[int], modules: Sequence[nn.Module]) -> None:
    """Refuse an optimizer that holds none of the modules' parameters.

    Args:
        optimizers: to check.
        known: ids of parameters that are known to be the modules'; walking the modules is slow.
        modules: the model and its followers.

    Raises:
        ValueError: naming the optimizer.
    """
    for optimizer in optimizers:
        if any(id(parameter) in known for group in optimizer.param_groups for parameter in group["params"]):
            continue
        held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if not held:
            continue
        everything = {id(parameter) for module in modules for parameter in module.parameters()}
        if not any(id(parameter) in everything for parameter in held) and not holds_any(optimizer, everything):
            raise ValueError(
                f"`optimizer` ({type(optimizer).__name__}) holds {len(held)} parameters, none of which belongs to"
                " `model`: it was made for another model; pass the one made from this model's parameters()"
            )


def sliced_states(optimizers: Sequence[Optimizer]) -> list[Optimizer]:
    """One optimizer for every distinct state that is sliced; that of L-BFGS cannot be (`history_resets`).

    A wrapper often shows the state of the optimizer within as its own.
    """
    states = [optimizer.state for optimizer in optimizers]  # a wrapper may make its own at every access
    by_state = {id(state): optimizer for state, optimizer in zip(reversed(states), reversed(optimizers), strict=True)}
    for state, optimizer in zip(states, optimizers, strict=True):
        if isinstance(optimizer, LBFGS):
            by_state.pop(id(state), None)
    return list(by_state.values())


class StateSlicer:
    """Adds to a plan what an optimizer keeps for a parameter though `_core.plan_cuts` does not know its form.

    Args:
        bindings: know the parameters' names, for messages.
        tensors: the parameters (and buffers) first; appended to.
        patterns: appended to where a state is sliced otherwise than its parameter.
        pattern_of: (len(tensors),) index into `patterns`; appended to.
        entries: (dictionary, key, value); appended to where a state keeps its parameter's shape.
    """

    def __init__(
        self,
        bindings: Sequence[Binding],
        tensors: list[Tensor],
        patterns: list[Pattern],
        pattern_of: list[int],
        entries: list[Entry],
    ) -> None:
        self.bindings = bindings
        self.tensors = tensors
        self.patterns = patterns
        self.pattern_of = pattern_of
        self.entries = entries

    @cached_property
    def planned(self) -> set[int]:
        """Ids of all tensors."""
        return set(map(id, self.tensors))

    def add(self, tensor: Tensor, pattern: int) -> None:
        """Slice one more tensor, unless the plan has it."""
        if id(tensor) not in self.planned:
            self.planned.add(id(tensor))
            self.tensors.append(tensor)
            self.pattern_of.append(pattern)

    def add_gradient(self, owner: int, gradient: Tensor) -> None:
        """Slice a gradient.

        Raises:
            RewriteError: it is sparse.
        """
        parameter = self.tensors[owner]
        if gradient.shape != parameter.shape or gradient.layout != torch.strided:
            raise _cannot_slice_gradient(gradient, parameter, self.bindings)
        self.add(gradient, self.pattern_of[owner])

    def add_state(self, owner: int, optimizer: Optimizer, holder: Any, key: Any, value: Any) -> None:
        """Slice all tensors below one entry of a parameter's state.

        Args:
            owner: index of the parameter.
            optimizer: whose state it is, for messages.
            holder: the dictionary that holds the entry; anything else where the entry cannot be set.
            key: the entry's key; None for the whole state.
            value: the entry.

        Raises:
            RewriteError: a tensor's shape does not follow from the parameter's, or an object's tensors cannot be found.
        """
        seen: set[int] = set()
        waiting: list[tuple[Place, Any, Any]] = [((key,), holder, value)]
        while waiting:
            place, holder, value = waiting.pop()
            if isinstance(value, Tensor):
                self._add_tensor(owner, optimizer, holder, place, value)
            elif isinstance(value, np.ndarray):
                if value.size > 1:
                    raise _unknown_state(value, place, self.tensors[owner], optimizer, self.bindings)
            elif _are_integers(value) and tuple(value) == tuple(self.tensors[owner].shape):
                self._add_shape(owner, optimizer, holder, place, value)
            elif id(value) not in seen and not is_optimizer(value):
                seen.add(id(value))
                parts = parts_of(value)
                if parts is None or (place == (None,) and type(value) is object):
                    raise _unknown_state(value, place, self.tensors[owner], optimizer, self.bindings)
                inner = value if isinstance(value, dict) else getattr(value, "__dict__", value)
                waiting += [((*place, name), inner, part) for name, part in parts]

    def _add_tensor(self, owner: int, optimizer: Optimizer, holder: Any, place: Place, value: Tensor) -> None:
        parameter, pattern = self.tensors[owner], self.patterns[self.pattern_of[owner]]
        if id(value) in self.planned or value.numel() == 1:
            return
        if value.shape == parameter.shape and value.layout == torch.strided:
            self.add(value, self.pattern_of[owner])
            return
        siblings = holder.values() if isinstance(holder, dict) else ()
        keeps = pattern_of_state(value, parameter, pattern, str(place[-1]), siblings)
        if keeps is None:
            if any(id(value) == id(tensor) for b in self.bindings for tensor in b.module.parameters()):
                return
            raise _cannot_follow(value, place, parameter, optimizer, self.bindings)
        if keeps:
            self.patterns.append(keeps)
            self.add(value, len(self.patterns) - 1)

    def _add_shape(self, owner: int, optimizer: Optimizer, holder: Any, place: Place, value: Sequence[int]) -> None:
        keep = dict(self.patterns[self.pattern_of[owner]])
        shape = [len(keep[axis]) if axis in keep else length for axis, length in enumerate(value)]
        if not isinstance(holder, dict):
            raise _unknown_state(value, place, self.tensors[owner], optimizer, self.bindings)
        self.entries.append((holder, place[-1], type(value)(shape)))  # type: ignore[call-arg]


def refuse_preconditioners(optimizers: Sequence[Optimizer], slicer: StateSlicer, num_owned: int) -> None:
    """Refuse matrices that mix the channels of a square parameter, whose shape they have.

    Args:
        optimizers: torch's own have none and cost nothing.
        slicer: the plan.
        num_owned: how many of its tensors belong to modules.

    Raises:
        RewriteError: naming the first.
    """
    for optimizer in optimizers:
        if type(optimizer).__module__.startswith("torch.optim"):
            continue
        for parameter in slicer.tensors[:num_owned]:
            state = optimizer.state.get(parameter) if parameter.ndim == 2 else None
            for value in tensors_below(state) if len(set(parameter.shape)) == 1 else ():
                if value.shape == parameter.shape and is_preconditioner(value):
                    raise _cannot_follow(value, (_key_of(state, value),), parameter, optimizer, slicer.bindings)


def as_dict(state: Mapping[Tensor, Any]) -> dict[Tensor, Any]:
    """An optimizer's state as a dictionary, which it is in ``torch.optim``."""
    return state if isinstance(state, dict) else dict(state)


def _name_of(parameter: Tensor, bindings: Sequence[Binding]) -> str:
    return next(n for binding in bindings for n, tensor in binding.tensors.items() if tensor is parameter)


def _cannot_slice_gradient(gradient: Tensor, parameter: Tensor, bindings: Sequence[Binding]) -> RewriteError:
    return RewriteError(
        f"the gradient of {_name_of(parameter, bindings)!r} is {gradient.layout} of shape {tuple(gradient.shape)},"
        f" which cannot be sliced with the parameter's {tuple(parameter.shape)}; nothing was changed. Call"
        " optimizer.zero_grad() before prune_step"
    )


def _unknown_state(
    value: object, place: Place, parameter: Tensor, optimizer: Optimizer, bindings: Sequence[Binding]
) -> RewriteError:
    return RewriteError(
        f"{_state_at(place)} of {type(optimizer).__name__} for parameter {_name_of(parameter, bindings)!r} is a"
        f" {type(value).__name__}, which cannot be sliced along; nothing was changed. {_WAYS_OUT}"
    )


def _cannot_follow(
    value: Tensor, place: Place, parameter: Tensor, optimizer: Optimizer, bindings: Sequence[Binding]
) -> RewriteError:
    return RewriteError(
        f"{_state_at(place)} of {type(optimizer).__name__} for parameter {_name_of(parameter, bindings)!r} has"
        f" shape {tuple(value.shape)}, which cannot follow the parameter's {tuple(parameter.shape)}"
        f"{' (it mixes its channels)' if value.shape == parameter.shape else ''}; nothing was changed. {_WAYS_OUT}"
    )


def _key_of(state: Any, value: Tensor) -> Any:
    """The entry of a state below which a tensor lies."""
    return next((key for key, part in parts_of(state) or () if any(t is value for t in tensors_below(part))), None)


def _are_integers(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) > 0 and all(type(element) is int for element in value)


def _state_at(place: Place) -> str:
    keys = ["a parameter" if isinstance(key, Tensor) else repr(key) for key in reversed(place) if key is not None]
    return f"state {' in '.join(keys)}" if keys else "the state"


def history_resets(optimizer: Optimizer, tensors: Sequence[Tensor]) -> list[Entry]:
    """Entries (dictionary, key, value) that make an L-BFGS optimizer start its history anew; none for the others.

    Args:
        optimizer: any optimizer.
        tensors: what is sliced.
    """
    if not isinstance(optimizer, LBFGS):
        return []
    parameters = optimizer.param_groups[0]["params"]
    if {id(tensor) for tensor in tensors}.isdisjoint(map(id, parameters)):
        return []
    state = optimizer.state.get(parameters[0])
    entries: list[Entry] = [(optimizer.__dict__, "_numel_cache", None)]
    if state:
        # n_iter 0 makes the next step begin with steepest descent; the counter of evaluations goes on.
        fresh = {"func_evals": state.get("func_evals", 0), "n_iter": 0}
        entries.append((optimizer.state, parameters[0], fresh))
    return entries
