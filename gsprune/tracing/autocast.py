"""Autocast around the forwards that gsprune runs itself.

Autocast changes operations, and it caches casts of weights until the outermost block ends. A cached cast of a pruned
weight would be stale. So networks are traced and checked in their own precision, without the cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch

__all__ = ["AutocastBlock", "active_autocast", "in_autocast", "without_autocast"]

AutocastBlock = tuple[str, torch.dtype]
"""Device type, and the dtype that its operations are cast to."""

_DEVICE_TYPES = ("cpu", "cuda", "mps", "xpu")


def active_autocast() -> tuple[AutocastBlock, ...]:
    """The autocast blocks that the caller is in."""
    if not torch._C._is_any_autocast_enabled():
        return ()
    return tuple((name, torch.get_autocast_dtype(name)) for name in _DEVICE_TYPES if torch.is_autocast_enabled(name))


@contextmanager
def in_autocast(blocks: Sequence[AutocastBlock]) -> Iterator[None]:
    """Context in which autocast is on for some device types."""
    with ExitStack() as stack:
        for device_type, dtype in blocks:
            stack.enter_context(torch.autocast(device_type, dtype=dtype))
        yield


@contextmanager
def without_autocast() -> Iterator[None]:
    """Context in which autocast is off. Autocast blocks inside the network's code do not cache casts."""
    with ExitStack() as stack:
        for device_type, dtype in active_autocast():
            stack.enter_context(torch.autocast(device_type, dtype=dtype, enabled=False))
        stack.callback(torch.set_autocast_cache_enabled, torch.is_autocast_cache_enabled())
        torch.set_autocast_cache_enabled(False)
        yield
