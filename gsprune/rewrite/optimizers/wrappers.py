"""Optimizers within optimizers (Lookahead, SAM, accelerate's), and attributes in which optimizers keep tensors.

Both are found by what they are: an attribute of any name may be an optimizer, or hold tensors.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from gsprune.rewrite.optimizers.nested import is_container, may_hold_tensors, parts_of

__all__ = ["extras_of", "holds_any", "is_optimizer", "parts_to_follow", "tensors_below", "with_inner"]


def is_optimizer(value: object) -> bool:
    """True for torch's optimizers and wrappers that look like one: parameter groups, a state and a step."""
    if isinstance(value, Optimizer):
        return True
    if isinstance(value, type | nn.Module | Tensor) or not callable(getattr(value, "step", None)):
        return False
    groups, state = getattr(value, "param_groups", None), getattr(value, "state", None)
    return isinstance(groups, list) and all("params" in group for group in groups) and isinstance(state, Mapping)


def with_inner(optimizers: Sequence[Optimizer]) -> tuple[Optimizer, ...]:
    """The optimizers, and those that they hold in attributes or in containers there, each once."""
    found = {id(optimizer): optimizer for optimizer in optimizers}
    waiting = deque(found.values())
    while waiting:
        for value in _own_attributes(waiting.popleft()).values():
            for part in [part for _, part in parts_of(value) or ()] if is_container(value) else (value,):
                if is_optimizer(part) and id(part) not in found:
                    found[id(part)] = part
                    waiting.append(part)
    return tuple(found.values())


def extras_of(optimizer: Optimizer) -> dict[str, Any]:
    """Place -> value of all that may hold tensors outside of the states of parameters; empty for torch's optimizers."""
    extras = {f".{name}": value for name, value in _own_attributes(optimizer).items() if not is_optimizer(value)}
    for i, group in enumerate(optimizer.param_groups):
        for key, value in group.items():
            if key != "params" and may_hold_tensors(value):
                extras[f".param_groups[{i}][{key!r}]"] = value
    loose = {key: value for key, value in optimizer.state.items() if not isinstance(key, Tensor)}
    if loose:
        extras[".state"] = loose
    return extras


def parts_to_follow(value: Any, modules: Collection[nn.Module]) -> list[tuple[str, Any]]:
    """(place, part) of a value, without what is no optimizer's: other optimizers, the model and what contains it.

    An object that holds a module or an optimizer is a trainer, a strategy or an engine: of its parts only tensors and
    containers are taken.
    """
    if is_optimizer(value):
        return []
    if isinstance(value, nn.Module):
        if value in modules or not set(value.modules()).isdisjoint(modules):
            return []
        return [(f".{name}", tensor) for name, tensor in (*value.named_parameters(), *value.named_buffers())]
    parts = parts_of(value) or []
    if is_container(value):
        return [("[...]" if isinstance(key, Tensor) else f"[{key!r}]", part) for key, part in parts]
    if any(isinstance(part, nn.Module) or is_optimizer(part) for _, part in parts):
        parts = [(name, part) for name, part in parts if isinstance(part, Tensor) or is_container(part)]
    return [(f".{name}", part) for name, part in parts]


def holds_any(optimizer: Optimizer, ids: Collection[int]) -> bool:
    """True if the optimizer keeps one of some tensors outside its groups, as wrappers with master weights do."""
    return any(id(tensor) in ids for value in extras_of(optimizer).values() for tensor in tensors_below(value))


def tensors_below(value: Any) -> Iterator[Tensor]:
    """Tensors in containers and objects, without those of optimizers; some may come twice."""
    waiting, seen = [value], set()
    while waiting:
        part = waiting.pop()
        if isinstance(part, Tensor):
            yield part
        elif id(part) not in seen:
            seen.add(id(part))
            waiting += [each for _, each in parts_to_follow(part, ())]


def _own_attributes(optimizer: Optimizer) -> dict[str, Any]:
    """Attributes beyond those of every torch optimizer that may hold tensors or optimizers."""
    attributes: dict[str, Any] = getattr(optimizer, "__dict__", {})
    own = {name: attributes[name] for name in attributes.keys() - _torch_attributes()}
    return {name: value for name, value in own.items() if may_hold_tensors(value)}


@cache
def _torch_attributes() -> frozenset[str]:
    return frozenset(vars(SGD([nn.Parameter(torch.zeros(1))], 0.0)))
