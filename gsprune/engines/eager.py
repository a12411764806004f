"""PyTorch in eager mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor

from gsprune.engines.engine import Engine
from gsprune.engines.portable_call import PortableCall
from gsprune.engines.timing import Forward

__all__ = ["Eager"]


class Eager(Engine):
    """PyTorch in eager mode with channels-last tensors, which make convolutions 2 to 4 times as fast."""

    package = "torch"
    settings: Mapping[str, Any] = {"memory_format": "channels_last"}

    def load(self, call: PortableCall, threads: int) -> Forward:
        """See `Engine.load`."""
        module = deepcopy(call.module).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch types no memory format alone
        return self.forward_of(module, tuple(_channels_last(value) for value in call.inputs))

    def forward_of(self, module: Callable[..., Any], inputs: tuple[Tensor, ...]) -> Forward:
        """The forward of a module that is already channels-last."""

        def forward() -> Any:
            with torch.no_grad():
                return module(*inputs)

        return forward


def _channels_last(value: Tensor) -> Tensor:
    return value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value
