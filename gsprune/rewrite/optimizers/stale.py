"""Optimizers that a step was not told of: their next step is refused, as their moments belong to other channels.

Most of torch's optimizers would fail there with a mismatch of sizes. The fused ones go on without a word, with the
moments of whatever channels stood first.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from gsprune.errors import RewriteError
from gsprune.rewrite.optimizers.wrappers import tensors_below

__all__ = ["parameters_without_optimizer", "watch_stale_optimizers"]

Shape = tuple[int, ...]


class _Guard:
    """Looks at every optimizer's state once after the last step that left somebody out.

    Attributes:
        shapes: id of a parameter -> the parameter, and the shapes that it had before such steps.
        checked: optimizer -> the number of the step after which it was found to be in order.
        steps: how many steps left somebody out.
    """

    def __init__(self) -> None:
        self.shapes: dict[int, tuple[weakref.ref[Tensor], set[Shape]]] = {}
        self.checked: weakref.WeakKeyDictionary[Optimizer, int] = weakref.WeakKeyDictionary()
        self.steps = 0

    def watch(self, parameters: Iterable[tuple[Tensor, Shape]]) -> None:
        if self.steps == 0:
            register_optimizer_step_pre_hook(self)
        self.steps += 1
        for parameter, shape in parameters:
            key = id(parameter)
            known = self.shapes.get(key)
            if known is None or known[0]() is not parameter:
                # mypy cannot infer a lambda with a default argument.
                gone = weakref.ref(parameter, lambda _, key=key: self.shapes.pop(key, None))  # type: ignore[misc]
                known = self.shapes[key] = gone, set()
            known[1].add(shape)

    def __call__(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Torch calls this before every optimizer's step."""
        del args, kwargs
        if self.checked.get(optimizer) == self.steps:
            return
        for group in optimizer.param_groups:
            for held in group["params"]:
                known = self.shapes.get(id(held))
                parameter = None if known is None else known[0]()
                if known is not None and parameter is not None and parameter is held:
                    _check_state(optimizer, parameter, known[1])
        self.checked[optimizer] = self.steps


def _check_state(optimizer: Optimizer, parameter: Tensor, shapes: set[Shape]) -> None:
    for value in tensors_below(optimizer.state.get(parameter)):
        if value.shape != parameter.shape and tuple(value.shape) in shapes:
            raise RewriteError(
                f"{type(optimizer).__name__} holds a state of shape {tuple(value.shape)} for a parameter that was"
                f" pruned to {tuple(parameter.shape)} in a step that was not told of this optimizer; it has not"
                " stepped. Pass `optimizer=` to prune_step (or to Pruner); where that is too late,"
                " optimizer.state.clear() lets it begin anew"
            )


_guard = _Guard()


def parameters_without_optimizer(
    parameters: Sequence[Tensor], optimizers: Sequence[Optimizer]
) -> list[tuple[Tensor, Shape]]:
    """Those of some parameters that none of the optimizers holds, each with its present shape."""
    told = {*chain(*[map(id, group["params"]) for each in optimizers for group in each.param_groups])}
    if told.issuperset(map(id, parameters)):  # at every step of most trainings
        return []
    return [(each, tuple(each.shape)) for each in parameters if each.requires_grad and id(each) not in told]


def watch_stale_optimizers(parameters: Sequence[tuple[Tensor, Shape]]) -> None:
    """Let optimizers fail with a reason that still hold states of former shapes for these parameters.

    Args:
        parameters: what `parameters_without_optimizer` gave before the step.
    """
    if parameters:
        _guard.watch(parameters)
