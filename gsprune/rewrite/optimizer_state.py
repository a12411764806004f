"""Which tensors of an optimizer's state follow a parameter when it is sliced, and along which axes.

A state tensor follows when every axis is as long as the parameter's or has length 1: moments have the parameter's
shape; Adafactor's factored second moments have length 1 along the axes they average over (Shazeer & Stern 2018) and are
sliced along the others. Tensors in lists and dictionaries of a state are treated alike. Scalars and plain numbers stay.
L-BFGS keeps flat vectors over all parameters, whose inner products would be wrong after slicing: its history starts
anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from gsprune.backends import Pattern
from gsprune.errors import RewriteError
from gsprune.rewrite.attributes import Entry
from gsprune.rewrite.binding import Binding
from gsprune.tracing.graph import IntArray

__all__ = ["add_unlike", "as_dict", "as_optimizers", "check_ownership", "history_resets", "sliced_states"]


def as_optimizers(optimizer: Optimizer | Sequence[Optimizer] | None) -> tuple[Optimizer, ...]:
    """One optimizer, several or none as a tuple.

    Raises:
        TypeError: something is not a ``torch.optim.Optimizer``.
    """
    if optimizer is None:
        return ()
    optimizers = tuple(optimizer) if isinstance(optimizer, list | tuple) else (optimizer,)
    for i, candidate in enumerate(optimizers):
        if not isinstance(candidate, Optimizer):
            raise TypeError(
                f"`optimizer` must be a torch.optim.Optimizer or a sequence of them, got {type(candidate).__name__}"
                + (f" at position {i}" if len(optimizers) > 1 else "")
            )
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
        if not any(id(parameter) in everything for parameter in held):
            raise ValueError(
                f"`optimizer` ({type(optimizer).__name__}) holds {len(held)} parameters, none of which belongs to"
                " `model`: it was made for another model; pass the one made from this model's parameters()"
            )


def sliced_states(optimizers: Sequence[Optimizer]) -> list[Optimizer]:
    """Those whose states are sliced; L-BFGS has none that can be (`history_resets`)."""
    return [optimizer for optimizer in optimizers if not isinstance(optimizer, LBFGS)]


def add_unlike(
    others: Sequence[tuple[int, int | None, Any, Any]],
    optimizers: Sequence[Optimizer],
    bindings: Sequence[Binding],
    tensors: list[Tensor],
    patterns: list[Pattern],
    pattern_of: list[int],
) -> None:
    """Append what is sliced along with some parameters though it is not of their shape, or lies in lists.

    Args:
        others: (parameter, optimizer or None for the gradient, key, value) of all that does not look like its
            parameter, nor is a scalar; the first two are indices.
        optimizers: whose states these are (`sliced_states`).
        bindings: know the parameters' names, for messages.
        tensors: the parameters (and buffers) first; appended to.
        patterns: appended to where a state is sliced along some of the parameter's axes only.
        pattern_of: (len(tensors),) index into `patterns`; appended to.

    Raises:
        RewriteError: a gradient's layout, or a state tensor's shape, cannot follow its parameter, or a state is no
            dictionary, list or tensor.
    """
    for owner, which, key, inside in others:
        parameter, index = tensors[owner], pattern_of[owner]
        if which is not None and not isinstance(inside, Tensor | Mapping | list | tuple) and key is None:
            if inside is not None:
                raise _unknown_state(inside, parameter, optimizers[which], bindings)
            continue
        for place, value in _tensors_in({key: inside}):
            if value.shape == parameter.shape and value.layout == torch.strided:
                tensors.append(value)
                pattern_of.append(index)
            elif which is None:
                raise _cannot_slice_gradient(value, parameter, bindings)
            elif value.numel() != 1:
                keeps = _factored(value, parameter, patterns[index])
                if keeps is None:
                    raise _cannot_follow(value, place, parameter, optimizers[which], bindings)
                if keeps:
                    tensors.append(value)
                    pattern_of.append(len(patterns))
                    patterns.append(keeps)


def as_dict(state: Mapping[Tensor, Any]) -> dict[Tensor, Any]:
    """An optimizer's state as a dictionary, which it is in ``torch.optim``."""
    return state if isinstance(state, dict) else dict(state)


def _tensors_in(state: Mapping[Any, Any], place: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Tensor]]:
    """The tensors of a state with the keys that lead to each, also those in lists, tuples and dictionaries."""
    for key, value in state.items():
        if isinstance(value, Tensor):
            yield (*place, key), value
        elif isinstance(value, Mapping):
            yield from _tensors_in(value, (*place, key))
        elif isinstance(value, list | tuple):
            yield from _tensors_in(dict(enumerate(value)), (*place, key))


def _factored(value: Tensor, parameter: Tensor, pattern: Pattern) -> tuple[tuple[int, IntArray], ...] | None:
    """What is kept of a factored state tensor, None where its shape cannot follow."""
    fits = value.ndim == parameter.ndim and all(
        length in (1, full) for length, full in zip(value.shape, parameter.shape, strict=True)
    )
    if not fits or value.layout != torch.strided:
        return None
    return tuple((axis, keep) for axis, keep in pattern if value.shape[axis] == parameter.shape[axis])


def _name_of(parameter: Tensor, bindings: Sequence[Binding]) -> str:
    return next(n for binding in bindings for n, tensor in binding.tensors.items() if tensor is parameter)


def _cannot_slice_gradient(gradient: Tensor, parameter: Tensor, bindings: Sequence[Binding]) -> RewriteError:
    return RewriteError(
        f"the gradient of {_name_of(parameter, bindings)!r} is {gradient.layout} of shape {tuple(gradient.shape)},"
        f" which cannot be sliced with the parameter's {tuple(parameter.shape)}; nothing was changed. Call"
        " optimizer.zero_grad() before prune_step"
    )


def _unknown_state(state: object, parameter: Tensor, optimizer: Optimizer, bindings: Sequence[Binding]) -> RewriteError:
    return RewriteError(
        f"the state of {type(optimizer).__name__} for parameter {_name_of(parameter, bindings)!r} is a"
        f" {type(state).__name__}, whose tensors cannot be found; nothing was changed. Keep it in a dictionary, or"
        " remove it (`del optimizer.state[parameter]`)"
    )


def _cannot_follow(
    value: Tensor, place: tuple[Any, ...], parameter: Tensor, optimizer: Optimizer, bindings: Sequence[Binding]
) -> RewriteError:
    inside = "".join(f"{key!r} in " for key in reversed(place[1:]))
    return RewriteError(
        f"state {inside}{place[0]!r} of {type(optimizer).__name__} for parameter {_name_of(parameter, bindings)!r} has"
        f" shape {tuple(value.shape)}, which cannot follow the parameter's {tuple(parameter.shape)}; nothing was"
        f" changed. Remove the entry (`del optimizer.state[parameter][{place[0]!r}]`), or prune without `optimizer=`"
        " and build"
        " a new one"
    )


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
