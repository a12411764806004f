"""Autocast around the forwards that gsprune runs itself.

Autocast makes the operations of a block other ones, and it keeps casts of weights until the outermost block ends: a
weight that has changed since would be computed with as it was. So a network is traced and checked in its own precision,
and no cast is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch

__all__ = ["AutocastBlock", "active_autocast", "in_autocast", "without_autocast"]

AutocastBlock = tuple[str, torch.dtype]
"""Type of device, and the dtype that its operations are cast to."""

_DEVICE_TYPES = ("cpu", "cuda", "mps", "xpu")


def active_autocast() -> tuple[AutocastBlock, ...]:
    """The autocast blocks that the caller is in."""
    if not torch._C._is_any_autocast_enabled():
        return ()
    return tuple((name, torch.get_autocast_dtype(name)) for name in _DEVICE_TYPES if torch.is_autocast_enabled(name))


@contextmanager
def in_autocast(blocks: Sequence[AutocastBlock]) -> Iterator[None]:
    """A block in which autocast is on for these types of devices."""
    with ExitStack() as stack:
        for device_type, dtype in blocks:
            stack.enter_context(torch.autocast(device_type, dtype=dtype))
        yield


@contextmanager
def without_autocast() -> Iterator[None]:
    """A block in which autocast is off, and in which blocks of the network's own code keep no casts."""
    keeps_casts = torch.is_autocast_cache_enabled()
    with ExitStack() as stack:
        for device_type, dtype in active_autocast():
            stack.enter_context(torch.autocast(device_type, dtype=dtype, enabled=False))
        stack.callback(torch.set_autocast_cache_enabled, keeps_casts)
        torch.set_autocast_cache_enabled(False)
        yield
