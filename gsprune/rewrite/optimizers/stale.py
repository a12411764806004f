"""Stale optimizers: they were not passed to a pruning step, so their moments belong to former channels.

Their next step raises an error. Most of torch's optimizers would fail with a size mismatch, but the fused ones would
silently continue with wrong moments.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, MutableMapping, Sequence
from itertools import chain
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.weak import WeakTensorKeyDictionary

from gsprune.errors import RewriteError
from gsprune.rewrite.optimizers.wrappers import tensors_below

__all__ = ["parameters_without_optimizer", "watch_stale_optimizers"]

Shape = tuple[int, ...]


class _Guard:
    """Checks optimizers after steps that cut parameters without their optimizer.

    Attributes:
        shapes: parameter -> its shapes before such steps.
        checked: optimizer -> the value of `steps` when its state was last checked.
        steps: number of such steps.
    """

    def __init__(self) -> None:
        self.shapes: MutableMapping[Tensor, set[Shape]] = WeakTensorKeyDictionary()
        self.checked: weakref.WeakKeyDictionary[Optimizer, int] = weakref.WeakKeyDictionary()
        self.steps = 0

    def watch(self, parameters: Iterable[tuple[Tensor, Shape]]) -> None:
        if self.steps == 0:
            register_optimizer_step_pre_hook(self)
        self.steps += 1
        for parameter, shape in parameters:
            self.shapes.setdefault(parameter, set()).add(shape)

    def __call__(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Torch calls this before every optimizer's step."""
        del args, kwargs
        if self.checked.get(optimizer) == self.steps:
            return
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                shapes = self.shapes.get(parameter)
                if shapes:
                    _check_state(optimizer, parameter, shapes)
        self.checked[optimizer] = self.steps


def _check_state(optimizer: Optimizer, parameter: Tensor, shapes: set[Shape]) -> None:
    for value in tensors_below(optimizer.state.get(parameter)):
        if value.shape != parameter.shape and tuple(value.shape) in shapes:
            raise RewriteError(
                f"{type(optimizer).__name__} holds a state of shape {tuple(value.shape)} for a parameter that was"
                f" pruned to {tuple(parameter.shape)} in a step without this optimizer; it has not stepped."
                " Pass `optimizer=` to prune_step (or to Pruner). If that is too late, make a new optimizer"
            )


_guard = _Guard()


def parameters_without_optimizer(
    parameters: Sequence[Tensor], optimizers: Sequence[Optimizer]
) -> list[tuple[Tensor, Shape]]:
    """The parameters that belong to none of the optimizers, each with its present shape."""
    optimized = {*chain(*[map(id, group["params"]) for each in optimizers for group in each.param_groups])}
    if optimized.issuperset(map(id, parameters)):  # the common case, fast
        return []
    return [(each, tuple(each.shape)) for each in parameters if each.requires_grad and id(each) not in optimized]


def watch_stale_optimizers(parameters: Sequence[tuple[Tensor, Shape]]) -> None:
    """Make the next step of an optimizer raise if its states have former shapes of these parameters.

    The parameters are those that `parameters_without_optimizer` returned before the step.
    """
    if parameters:
        _guard.watch(parameters)
