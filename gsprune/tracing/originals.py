"""Restores tensors that a forward writes to: a momentum encoder's parameters (MoCo), a state in a plain attribute.

A copy of all parameters would double the memory of the network. So the tracer copies a tensor before the first write
to it, and later forwards copy only the tensors that some traced forward has written to. Buffers are not among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

__all__ = ["Originals", "note_written", "was_written", "writable_tensors", "written_arguments"]

# Tensors as keys. The values are not used.
_written: Any = WeakIdKeyDictionary()

_NO_MEMORY = 0  # the address of an empty tensor, and of tensors on the meta device


def note_written(tensors: Iterable[Tensor]) -> None:
    """Note tensors that a forward writes to."""
    for tensor in tensors:
        _written[tensor] = True


def was_written(tensor: Tensor) -> bool:
    """True if a traced forward has written to this tensor."""
    return tensor in _written


def writable_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters, and tensors in plain attributes of modules, by name."""
    found: dict[str, Tensor] = dict(model.named_parameters())
    for prefix, module in model.named_modules():
        plain = {name: value for name, value in module.__dict__.items() if isinstance(value, Tensor)}
        found.update({f"{prefix}.{name}" if prefix else name: value for name, value in plain.items()})
    return found


class Originals:
    """The memory of tensors before a forward, and copies of those that are written to.

    Construct it without gradients, before the forward.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        pairs = [(tensor, tensor.data) for tensor in tensors]
        self._memory = [(tensor, data) for tensor, data in pairs if _can_be_written(data)]
        self._copies: dict[int, tuple[Tensor, Tensor]] = {}
        self._in_storage: dict[int, list[tuple[Tensor, Tensor]]] | None = None
        for tensor, data in self._memory if len(_written) else ():
            if was_written(tensor):
                self._copies[id(data)] = data, data.clone()

    def before_write(self, tensors: Sequence[Tensor]) -> None:
        """Copy the model's tensors that share memory with these tensors, which are about to be written to."""
        if self._in_storage is None:
            self._in_storage = {}
            for own, data in self._memory:
                self._in_storage.setdefault(_storage_of(data), []).append((own, data))
            self._in_storage.pop(_NO_MEMORY, None)
        for tensor in tensors:
            for own, data in self._in_storage.get(_storage_of(tensor), ()):
                if id(data) not in self._copies:
                    self._copies[id(data)] = data, data.clone()
                    note_written((own,))

    def restore(self) -> None:
        """Give the tensors their memory and contents back."""
        for tensor, data in self._memory:
            if not _have_same_memory(tensor.data, data):  # the forward has set `tensor.data`
                tensor.data = data
                note_written((tensor,))
        for data, contents in self._copies.values():
            # Equal contents are not copied, because that would break a pending backward.
            if not torch.equal(data, contents):
                data.copy_(contents)


def written_arguments(func: torch._ops.OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """The tensors among an operation's arguments that it writes to."""
    found: list[Tensor] = []
    for index, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[index] if index < len(args) else kwargs.get(argument.name)
            values = value if isinstance(value, list | tuple) else [value]
            found += [each for each in values if isinstance(each, Tensor)]
    return found


def _can_be_written(data: Tensor) -> bool:
    """True unless `data` is of a subclass (quantised, distributed), sparse, nested, or expanded."""
    if type(data) is not Tensor or data.layout != torch.strided or data.is_nested:
        return False
    return all(step != 0 or size <= 1 for size, step in zip(data.shape, data.stride(), strict=True))


def _have_same_memory(a: Tensor, b: Tensor) -> bool:
    if a.layout != b.layout or a.dtype != b.dtype or a.device != b.device:
        return False
    return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride()


def _storage_of(tensor: Tensor) -> int:
    """The address of a tensor's memory."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # a fake or wrapped tensor
        return _NO_MEMORY
