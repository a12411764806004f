"""Restores parameters that a forward writes to, for example the momentum encoder in MoCo's forward.

A copy of all parameters would double the memory of the network. So the tracer copies a parameter before the first write
to it, and later forwards copy only the parameters that some traced forward has written to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

__all__ = ["Originals", "note_written", "was_written", "written_arguments"]

# Parameters as keys. The values are not used.
_written: Any = WeakIdKeyDictionary()

_NO_MEMORY = 0  # the address of an empty tensor, and of tensors on the meta device


def note_written(parameters: Iterable[Tensor]) -> None:
    """Note parameters that a forward writes to."""
    for parameter in parameters:
        _written[parameter] = True


def was_written(parameter: Tensor) -> bool:
    """True if a traced forward has written to this parameter."""
    return parameter in _written


class Originals:
    """The memory of parameters before a forward, and copies of those that are written to.

    Construct it without gradients, before the forward.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        # `.data` of a subclass (quantised, distributed) has no memory of its own.
        pairs = [(parameter, parameter.data) for parameter in parameters]
        self._memory = [(p, data) for p, data in pairs if type(data) is Tensor and data.layout == torch.strided]
        self._copies: dict[int, tuple[Tensor, Tensor]] = {}
        self._in_storage: dict[int, list[tuple[Tensor, Tensor]]] | None = None
        for parameter, data in self._memory if len(_written) else ():
            if was_written(parameter):
                self._copies[id(data)] = data, data.clone()

    def before_write(self, tensors: Sequence[Tensor]) -> None:
        """Copy the parameters that share memory with these tensors, which are about to be written to."""
        if self._in_storage is None:
            self._in_storage = {}
            for parameter, data in self._memory:
                self._in_storage.setdefault(_storage_of(data), []).append((parameter, data))
            self._in_storage.pop(_NO_MEMORY, None)
        for tensor in tensors:
            for parameter, data in self._in_storage.get(_storage_of(tensor), ()):
                if id(data) not in self._copies:
                    self._copies[id(data)] = data, data.clone()
                    note_written((parameter,))

    def restore(self) -> None:
        """Give the parameters their memory and contents back."""
        for parameter, data in self._memory:
            if not _have_same_memory(parameter.data, data):  # the forward has set `parameter.data`
                parameter.data = data
                note_written((parameter,))
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
