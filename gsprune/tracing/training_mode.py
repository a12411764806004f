"""Training mode for modules whose code depends on it.

Widths that only the training path of a forward uses (noise of a stored size) show in training mode only. torch's own
layers stay in eval mode: batch norm would fail on a batch of one example.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

import numpy as np
import torch
from torch import nn

__all__ = ["is_user_class", "reads_training", "set_training_mode"]


def is_user_class(kind: type) -> bool:
    """True for a class that is defined outside of torch."""
    return kind.__module__.partition(".")[0] not in ("torch", "builtins")


def reads_training(model: nn.Module, forward: Callable[..., Any] | None) -> bool:
    """True if the code of `forward`, or of a class of the user's modules, has an attribute `training`."""
    classes = {base for kind in set(map(type, model.modules())) for base in kind.__mro__ if is_user_class(base)}
    functions = [forward, *(value for kind in classes for value in vars(kind).values())]
    return any("training" in code.co_names for function in functions for code in _codes_of(function))


def set_training_mode(model: nn.Module) -> None:
    """Put the user's modules into training mode and seed the random generators. The caller restores both.

    With the same random numbers, the dense and the smaller network take the same path (stochastic depth).
    """
    for module in model.modules():
        if is_user_class(type(module)):
            module.training = True
    torch.default_generator.manual_seed(0)
    random.seed(0)
    np.random.seed(0)


def _codes_of(function: Any) -> Iterator[CodeType]:
    """The code of a function, method or property, and of the functions inside it."""
    function = getattr(function, "fget", None) or getattr(function, "__func__", function)
    code = getattr(inspect.unwrap(function) if callable(function) else function, "__code__", None)
    codes = [code] if isinstance(code, CodeType) else []
    while codes:
        code = codes.pop()
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        yield code
