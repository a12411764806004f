"""Switches off the fast paths of torch that hide ordinary operations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

__all__ = ["plain_operations"]


@contextmanager
def plain_operations(model: nn.Module) -> Iterator[None]:
    """Context in which attention's fast path, fused kernels of RNNs and attention, and compiled code are off."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    modules = list(model.modules())
    with ExitStack() as stack:
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast_path)
        torch.backends.mha.set_fastpath_enabled(False)
        if any(isinstance(module, nn.RNNBase) for module in modules):
            stack.callback(torch._C._set_mkldnn_enabled, torch._C._get_mkldnn_enabled())
            torch._C._set_mkldnn_enabled(False)
            stack.callback(torch._C._set_cudnn_enabled, torch._C._get_cudnn_enabled())
            torch._C._set_cudnn_enabled(False)
        # One kernel everywhere: torch chooses among fused ones by device and widths, and some pad the width of a head.
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        if any(_is_compiled(module) for module in modules):
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


def _is_compiled(module: nn.Module) -> bool:
    """True if a module runs through torch.compile."""
    return "_orig_mod" in module._modules or getattr(module, "_compiled_call_impl", None) is not None
