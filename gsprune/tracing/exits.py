"""Exits: the ways in which activations leave the traced call.

A caller gets tensors as return values, as arrays and Python numbers, or from wherever the forward has stored them: an
attribute, a list, what a hook has gathered. The first two kinds of outputs keep their width. A stored tensor keeps it
if the network itself makes no use of its channels, or if the call has no other outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from gsprune.tracing.outputs import tensors_in
from gsprune.tracing.tape import OUTPUT, Tape

__all__ = ["copies", "leaves", "protect_outputs"]

_READERS = frozenset(
    {
        torch.Tensor.numpy,
        torch.Tensor.tolist,
        torch.Tensor.__array__,
        torch.Tensor.__dlpack__,
        torch.Tensor.__reduce_ex__,
        torch.Tensor.untyped_storage,
        torch.Tensor.storage,
    }
)


def leaves(func: Callable[..., Any]) -> bool:
    """Whether a torch function hands a tensor's data to code that the tracer does not see."""
    return func in _READERS


def copies(func: Callable[..., Any]) -> bool:
    """Whether a torch function returns the same values in a new tensor without a dispatched operation."""
    return func is torch.Tensor.__deepcopy__ or getattr(func, "__self__", None) is torch.Tensor.data


def protect_outputs(tape: Tape, model: nn.Module, output: Any) -> None:
    """Protect what the caller of the network gets.

    Args:
        tape: the tape of the call.
        model: the network, whose buffers may have been replaced by the call.
        output: what the call returned.
    """
    returned = tensors_in(output)
    for output_tensor in returned:
        tape.protect_shadow(tape.of(output_tensor), OUTPUT)
    own = {id(buffer) for name, buffer in model.named_buffers() if name in tape.shapes}
    known = own.union(*({id(tensor), id(tensor._base)} for tensor in returned))
    for marked in tape.marked:
        tensor = marked()
        if tensor is None or id(tensor) in known:
            continue
        shadow = tape.of(tensor)
        if output is None:
            tape.protect_shadow(shadow, f"{OUTPUT}: stored outside of it")
        tape.stored.extend(shadow.layers)
        tape.unmark(tensor)
    tape.marked.clear()
