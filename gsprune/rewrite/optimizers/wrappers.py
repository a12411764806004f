"""Finds optimizers inside of optimizers (Lookahead, SAM, accelerate's), and tensors in optimizers' attributes.

Both are recognised by type, so attributes may have any name.
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

__all__ = [
    "as_optimizers",
    "check_ownership",
    "extras_of",
    "is_optimizer",
    "parts_below",
    "parts_to_follow",
    "tensors_below",
    "with_inner",
]


def is_optimizer(value: object) -> bool:
    """True for torch's optimizers and for wrappers with parameter groups, a state and a step."""
    if isinstance(value, Optimizer):
        return True
    if isinstance(value, type | nn.Module | Tensor) or not callable(getattr(value, "step", None)):
        return False
    groups, state = getattr(value, "param_groups", None), getattr(value, "state", None)
    return isinstance(groups, list) and all("params" in group for group in groups) and isinstance(state, Mapping)


def as_optimizers(
    optimizer: Optimizer | Sequence[Optimizer] | None, methods: Sequence[str] = ()
) -> tuple[Optimizer, ...]:
    """One optimizer, several or none as a tuple; each must have `step` and the other required `methods`.

    Raises:
        TypeError: an element is no optimizer (see `is_optimizer`), or lacks a method.
    """
    if optimizer is None:
        return ()
    optimizers = tuple(optimizer) if isinstance(optimizer, list | tuple) else (optimizer,)
    for i, candidate in enumerate(optimizers):
        where = f" at position {i}" if len(optimizers) > 1 else ""
        if not is_optimizer(candidate):
            inside = next((name for name, value in _attributes(candidate).items() if is_optimizer(value)), None)
            raise TypeError(
                "`optimizer` must be a torch.optim.Optimizer, a wrapper with `param_groups`, `state` and `step`, or a"
                f" sequence of them, got {_class_name(candidate)}{where}"
                f"{f'; pass the optimizer in its attribute {inside!r}' if inside else ''}"
            )
        missing = [name for name in methods if not callable(getattr(candidate, name, None))]
        if missing:
            raise TypeError(f"`optimizer` ({type(candidate).__name__}){where} has no method {missing[0]!r}")
    return optimizers


def check_ownership(optimizers: Sequence[Optimizer], cut_ids: Collection[int], modules: Sequence[nn.Module]) -> None:
    """Refuse an optimizer that has none of the modules' parameters.

    An optimizer with one of the tensors in `cut_ids` passes at once.

    Raises:
        ValueError: an optimizer belongs to another model.
    """
    for optimizer in optimizers:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if not parameters or any(id(parameter) in cut_ids for parameter in parameters):
            continue
        everything = {id(parameter) for module in modules for parameter in module.parameters()}
        if not any(id(parameter) in everything for parameter in parameters) and not _keeps_any(optimizer, everything):
            raise ValueError(
                f"`optimizer` ({type(optimizer).__name__}) holds {len(parameters)} parameters, none of which belongs to"
                " `model`: it was made for another model; pass the one made from this model's parameters()"
            )


def with_inner(optimizers: Sequence[Optimizer]) -> tuple[Optimizer, ...]:
    """The optimizers, and those in their attributes or in containers there, each once."""
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
    """Place -> value of attributes and entries that may hold tensors outside of the parameters' states.

    Empty for torch's own optimizers.
    """
    extras = {f".{name}": value for name, value in _own_attributes(optimizer).items() if not is_optimizer(value)}
    for i, group in enumerate(optimizer.param_groups):
        for key, value in group.items():
            if key != "params" and may_hold_tensors(value):
                extras[f".param_groups[{i}][{key!r}]"] = value
    if not all(issubclass(kind, Tensor) for kind in set(map(type, optimizer.state))):
        extras[".state"] = {key: value for key, value in optimizer.state.items() if not isinstance(key, Tensor)}
    return extras


def parts_to_follow(value: Any, modules: Collection[nn.Module]) -> list[tuple[str, Any]]:
    """(place, part) of a value, without optimizers and without modules that share a part with `modules`.

    An object with a module or an optimizer is probably a trainer, so only its tensors and containers are followed.
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


def _keeps_any(optimizer: Optimizer, ids: Collection[int]) -> bool:
    """True if the optimizer keeps one of these tensors outside its groups, as wrappers with master weights do."""
    return any(id(tensor) in ids for value in extras_of(optimizer).values() for tensor in tensors_below(value))


def parts_below(value: Any, modules: Collection[nn.Module] = ()) -> Iterator[Any]:
    """The value and all its parts (see `parts_to_follow`), in order; some tensors appear twice."""
    waiting, seen = [value], set()
    while waiting:
        part = waiting.pop()
        if isinstance(part, Tensor):
            yield part
        elif id(part) not in seen:
            seen.add(id(part))
            yield part
            waiting += [each for _, each in reversed(parts_to_follow(part, modules))]


def tensors_below(value: Any) -> list[Tensor]:
    """Tensors in containers and objects, except in optimizers; some may appear twice."""
    return [part for part in parts_below(value) if isinstance(part, Tensor)]


def _class_name(value: object) -> str:
    """The name of a class, with its module if torch has a class of the same name."""
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}" if hasattr(torch.optim, kind.__name__) else kind.__name__


def _attributes(value: object) -> dict[str, Any]:
    found: dict[str, Any] = getattr(value, "__dict__", {})
    return found


def _own_attributes(optimizer: Optimizer) -> dict[str, Any]:
    """Attributes that torch's optimizers do not have and that may hold tensors or optimizers."""
    attributes = _attributes(optimizer)
    common = _torch_attributes()
    return {name: value for name, value in attributes.items() if name not in common and may_hold_tensors(value)}


@cache
def _torch_attributes() -> frozenset[str]:
    return frozenset(vars(SGD([nn.Parameter(torch.zeros(1))], 0.0)))
