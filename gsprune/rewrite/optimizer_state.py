"""Which tensors of an optimizer's state follow a parameter when it is sliced, and along which axes.

A state tensor follows when every axis is as long as the parameter's or has length 1: moments have the parameter's
shape; Adafactor's factored second moments have length 1 along the axes they average over (Shazeer & Stern 2018) and are
sliced along the others. Scalars and plain numbers stay. L-BFGS keeps flat vectors over all parameters, whose inner
products would be wrong after slicing: its history starts anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from gsprune.backends import Pattern
from gsprune.errors import RewriteError

__all__ = ["as_optimizers", "check_ownership", "history_resets", "state_slices"]


def as_optimizers(optimizer: Optimizer | Sequence[Optimizer] | None) -> tuple[Optimizer, ...]:
    """One optimizer, several or none as a tuple.

    Raises:
        TypeError: something is not a ``torch.optim.Optimizer``.
    """
    if optimizer is None:
        return ()
    optimizers = (optimizer,) if isinstance(optimizer, Optimizer) else tuple(optimizer)
    for i, candidate in enumerate(optimizers):
        if not isinstance(candidate, Optimizer):
            raise TypeError(
                f"`optimizer` must be a torch.optim.Optimizer or a sequence of them, got {type(candidate).__name__}"
                + (f" at position {i}" if len(optimizers) > 1 else "")
            )
    return optimizers


def check_ownership(optimizers: Sequence[Optimizer], modules: Sequence[nn.Module]) -> None:
    """Refuse an optimizer that holds none of the modules' parameters.

    Raises:
        ValueError: naming the optimizer.
    """
    known = {id(parameter) for module in modules for parameter in module.parameters()}
    for optimizer in optimizers:
        held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        if held and not any(id(parameter) in known for parameter in held):
            raise ValueError(
                f"`optimizer` ({type(optimizer).__name__}) holds {len(held)} parameters, none of which belongs to `model`:"
                " it was made for another model; pass the one made from this model's parameters()"
            )


def state_slices(
    optimizer: Optimizer, pattern_of: Mapping[int, Pattern], names: Mapping[int, str]
) -> Iterator[tuple[Tensor, Pattern]]:
    """The state tensors of one optimizer that must be sliced.

    Args:
        optimizer: any ``torch.optim`` optimizer but L-BFGS (`history_resets`).
        pattern_of: id of a parameter -> how it is sliced.
        names: id of a parameter -> its name, for messages.

    Yields:
        (tensor, pattern) pairs.

    Raises:
        RewriteError: a state tensor's shape cannot follow its parameter.
    """
    if isinstance(optimizer, LBFGS):
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            pattern = pattern_of.get(id(parameter))
            state = optimizer.state.get(parameter) if pattern is not None else None
            if pattern is None or not state:
                continue
            for key, value in state.items():
                if isinstance(value, Tensor) and value.numel() > 1:
                    yield from _follow(value, key, parameter, pattern, optimizer, names)


def _follow(
    value: Tensor, key: str, parameter: Tensor, pattern: Pattern, optimizer: Optimizer, names: Mapping[int, str]
) -> Iterator[tuple[Tensor, Pattern]]:
    if value.shape == parameter.shape:
        yield value, pattern
        return
    factored = value.ndim == parameter.ndim and all(
        length in (1, full) for length, full in zip(value.shape, parameter.shape, strict=True)
    )
    if not factored or value.layout != torch.strided:
        raise RewriteError(
            f"state {key!r} of {type(optimizer).__name__} for parameter {names[id(parameter)]!r} has shape"
            f" {tuple(value.shape)}, which cannot follow the parameter's {tuple(parameter.shape)}; nothing was changed."
            f" Remove the entry (`del optimizer.state[parameter][{key!r}]`) or prune without `optimizer=` and build a new one"
        )
    keeps = tuple((axis, keep) for axis, keep in pattern.keeps if value.shape[axis] == parameter.shape[axis])
    if keeps:
        yield value, Pattern(keeps)


def history_resets(optimizer: Optimizer, pattern_of: Mapping[int, Pattern]) -> list[tuple[dict[Any, Any], Any, Any]]:
    """Entries (dictionary, key, value) that make an L-BFGS optimizer start its history anew; none for the others."""
    if not isinstance(optimizer, LBFGS):
        return []
    parameters = optimizer.param_groups[0]["params"]
    if not any(id(parameter) in pattern_of for parameter in parameters):
        return []
    state = optimizer.state.get(parameters[0])
    entries: list[tuple[dict[Any, Any], Any, Any]] = [(optimizer.__dict__, "_numel_cache", None)]
    if state:
        # n_iter 0 makes the next step begin with steepest descent; the counter of evaluations goes on.
        fresh = {"func_evals": state.get("func_evals", 0), "n_iter": 0}
        entries.append((optimizer.state, parameters[0], fresh))
    return entries
