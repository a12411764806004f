"""Slices tensors in an optimizer's attributes: slow weights, averages of weights, master weights in float32.

The parameter of such a tensor is found in one of these ways:

- the tensor's key is the parameter, its id or its name;
- the tensor's list or object holds exactly one parameter;
- the tensor's list has the same shapes, in the same order, as a list of parameters;
- all parameters of the tensor's shape are sliced in the same way.

Other tensors that may depend on a pruned parameter are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.optim import Optimizer

from gsprune.arrays import AnyArray
from gsprune.errors import RewriteError
from gsprune.rewrite.optimizers.nested import is_container
from gsprune.rewrite.optimizers.states import StateSlicer
from gsprune.rewrite.optimizers.wrappers import extras_of, parts_below, parts_to_follow, with_inner

__all__ = ["slice_attributes"]

_DEPTH = 8  # the deepest nesting of objects that is searched


def slice_attributes(optimizers: Sequence[Optimizer], slicer: StateSlicer) -> None:
    """Slice the tensors that optimizers, including those inside of wrappers, keep outside of their parameters' states.

    Raises:
        RewriteError: the parameter of a tensor is ambiguous or unknown.
    """
    searches = [_Search(each, extras, slicer) for each in optimizers if (extras := extras_of(each))]
    for search in searches:
        search.run()
    master_of = {key: owner for search in searches for key, owner in search.master_of.items()}
    if master_of:
        _add_states_of_masters(optimizers, master_of, slicer)


def _add_states_of_masters(optimizers: Sequence[Optimizer], master_of: Mapping[int, int], slicer: StateSlicer) -> None:
    """Slice gradients and states of master weights."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for master in group["params"]:
                owner = master_of.get(id(master))
                if owner is not None:
                    if master.grad is not None:
                        slicer.add_gradient(owner, master.grad)
                    for key, value in optimizer.state.get(master, {}).items():
                        slicer.add_state(owner, optimizer, optimizer.state[master], key, value)


class _Search:
    """The search through the attributes of one optimizer.

    Attributes:
        master_of: id of a master weight -> index of its parameter.
    """

    def __init__(self, optimizer: Optimizer, extras: Mapping[str, Any], slicer: StateSlicer) -> None:
        self.optimizer, self.extras, self.slicer, bindings = optimizer, extras, slicer, slicer.bindings
        self.modules = [module for binding in bindings for module in binding.module.modules()]
        self.cut = slicer.owned
        self.name_of = {name: tensor for b in reversed(bindings) for name, tensor in b.module.named_parameters()}
        self.own = {id(t) for b in bindings for t in (*b.module.parameters(), *b.module.buffers())}
        lists = [group["params"] for each in with_inner((optimizer,)) for group in each.param_groups]
        self.trained = {id(tensor): tensor for each in lists for tensor in each}
        self.parameters = {**{id(tensor): tensor for tensor in self.name_of.values()}, **self.trained}
        self.anchors = [*lists, list(self.trained.values())]
        self.master_of: dict[int, int] = {}
        self._seen: dict[int, Any] = {}

    def run(self) -> None:
        if self.cut.keys().isdisjoint(self.trained) and not self._finds_parameters():
            return
        for place, value in self.extras.items():
            self._visit(value, place, 0)

    def _finds_parameters(self) -> bool:
        """Add lists of the model's parameters to the anchors, which other lists may correspond to."""
        parts = [part for value in self.extras.values() for part in parts_below(value, self.modules)]
        lists = [_flat(part) for part in parts if is_container(part)]
        self.anchors += [each for each in lists if not self.cut.keys().isdisjoint(map(id, each))]
        self.anchors += [[tensor for each in self.anchors for tensor in each if id(tensor) in self.own]]
        return any(not self.cut.keys().isdisjoint(map(id, each)) for each in lists)

    def _visit(self, value: Any, place: str, depth: int) -> None:
        if isinstance(value, Tensor):
            self._visit_tensor(value, place)
            return
        if isinstance(value, np.ndarray) and any(
            value.shape == parameter.shape for parameter in self.slicer.tensors[: len(self.cut)]
        ):
            raise self._refused(place, value, "NumPy arrays are not sliced")
        if depth > _DEPTH or id(value) in self._seen:
            return
        self._seen[id(value)] = value
        if is_container(value) and self._follows_as_list(_flat(value), place):
            return
        parts = parts_to_follow(value, self.modules)
        beside = {id(part): part for _, part in parts if id(part) in self.parameters}
        keys = list(value) if isinstance(value, Mapping) else [None] * len(parts)
        keys += [None] * (len(parts) - len(keys))
        for key, (name, part) in zip(keys, parts, strict=True):
            owner = self._owner_by(key)
            if owner is None and len(beside) == 1 and id(part) not in beside:
                owner = next(iter(beside.values()))
            if owner is None:
                self._visit(part, place + name, depth + 1)
            elif id(owner) in self.cut and part is not owner:
                holder = value if isinstance(value, dict) else getattr(value, "__dict__", value)
                own_key = key if isinstance(value, Mapping) else name.removeprefix(".")
                self.slicer.add_state(self.cut[id(owner)], self.optimizer, holder, own_key, part)

    def _owner_by(self, key: Any) -> Tensor | None:
        if isinstance(key, Tensor):
            return self.parameters.get(id(key))
        if isinstance(key, int):
            return self.parameters.get(key)
        return self.name_of.get(key) if isinstance(key, str) else None

    def _follows_as_list(self, tensors: Sequence[Tensor], place: str) -> bool:
        """Slice a list of tensors that corresponds to a list of parameters; False if there is no such list."""
        if not tensors or any(id(tensor) in self.own for tensor in tensors):
            return False
        shapes = [tensor.shape for tensor in tensors]
        alike = [a for a in self.anchors if len(a) == len(tensors) and [t.shape for t in a] == shapes]
        are_masters = any(id(tensor) in self.trained for tensor in tensors)
        if are_masters:
            alike = [a for a in alike if not any(id(tensor) in self.trained for tensor in a)]
        cuts = {tuple(self._pattern(tensor) for tensor in a) for a in alike}
        if len(cuts) > 1:
            raise self._refused(place, tensors[0], "several lists of parameters have these shapes")
        if not cuts:
            return False
        for tensor, owner in zip(tensors, alike[0], strict=True):
            index = self.cut.get(id(owner), self.master_of.get(id(owner)))
            if index is not None:
                self.slicer.add(tensor, self.slicer.pattern_of[index])
                if are_masters:
                    self.master_of[id(tensor)] = index
        return True

    def _pattern(self, tensor: Tensor) -> int | None:
        index = self.cut.get(id(tensor), self.master_of.get(id(tensor)))
        return None if index is None else self.slicer.pattern_of[index]

    def _visit_tensor(self, tensor: Tensor, place: str) -> None:
        if tensor.numel() == 1 or id(tensor) in self.slicer.planned:
            return
        if id(tensor) in self.own or id(tensor) in self.trained:
            return
        cuts = {self._pattern(each) for each in self.parameters.values() if each.shape == tensor.shape}
        if len(cuts) > 1:
            raise self._refused(place, tensor, "parameters of this shape are sliced in different ways")
        pattern = next(iter(cuts), None)
        if pattern is not None:
            self.slicer.add(tensor, pattern)
        elif not cuts and self._resembles(tensor):
            raise self._refused(place, tensor, "its shape is no parameter's")

    def _resembles(self, tensor: Tensor) -> bool:
        """True if a tensor whose shape is no parameter's may still depend on a width that changes."""
        cut = self.slicer.tensors[: len(self.cut)]
        lengths = {
            parameter.shape[axis]
            for parameter, pattern in zip(cut, self.slicer.pattern_of, strict=False)
            for axis, _ in self.slicer.patterns[pattern]
        }
        return not lengths.isdisjoint(tensor.shape) or (
            tensor.is_floating_point() and tensor.numel() >= min(parameter.numel() for parameter in cut)
        )

    def _refused(self, place: str, tensor: Tensor | AnyArray, why: str) -> RewriteError:
        alike = [name for name, each in self.name_of.items() if each.shape == tensor.shape and id(each) in self.cut]
        names = ", ".join(map(repr, alike[:3])) or ", ".join(
            repr(n) for n, t in self.name_of.items() if id(t) in self.cut
        )
        kind = "tensor" if isinstance(tensor, Tensor) else "NumPy array"
        return RewriteError(
            f"{type(self.optimizer).__name__} keeps a {kind} of shape {tuple(tensor.shape)} in `{place[1:]}`, and"
            f" its parameter cannot be found among those that are sliced ({names}): {why}; nothing was changed."
            " Keep it in optimizer.state[parameter], in a dictionary by parameter or in a list in the order of the"
            " parameters, or prune without `optimizer=` and build a new optimizer (`report.slice(name, tensor)` slices"
            " tensors to copy into it)"
        )


def _flat(value: Any, depth: int = 0) -> list[Tensor]:
    """The tensors in nested containers, in order."""
    if isinstance(value, Tensor):
        return [value]
    if depth > _DEPTH or not is_container(value):
        return []
    parts = value.values() if isinstance(value, Mapping) else value
    return [tensor for part in parts for tensor in _flat(part, depth + 1)]
