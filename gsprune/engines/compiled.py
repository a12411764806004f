"""PyTorch with `torch.compile`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from gsprune.engines.eager import Eager
from gsprune.engines.suppress_warnings import suppress_warnings
from gsprune.engines.timing import Forward

__all__ = ["Compiled"]


class Compiled(Eager):
    """PyTorch's compiler with frozen weights, so that weights are packed once and additions fused into convolutions."""

    settings: Mapping[str, Any] = {**Eager.settings, "compile": {"dynamic": False}, "inductor": {"freezing": True}}

    def forward_of(self, module: Callable[..., Any], inputs: tuple[Tensor, ...]) -> Forward:
        """See `Eager.forward_of`; compiles the module."""
        import torch._inductor as inductor

        forward = super().forward_of(torch.compile(module, **self.settings["compile"]), inputs)
        with suppress_warnings(), inductor.config.patch(self.settings["inductor"]):
            forward()
        return forward

    def unload(self) -> None:
        """Discard compiled code: after eight networks, PyTorch silently stops compiling."""
        torch.compiler.reset()
