"""Changes of tensors, attributes and optimizer states that can be taken back.

A change is one C-level call (`collections.deque(map(...), maxlen=0)`): Python handles signals between bytecodes only,
so an interrupt lands before or after all of it, never half-way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from gsprune.interrupts import PostponedInterrupts

__all__ = ["Transaction", "call_for_all", "temporary_data"]

_Entry = tuple[dict[Any, Any], Any, Any]
_MISSING = object()
_set_data = Tensor.data.__set__  # type: ignore[attr-defined]  # a descriptor


def call_for_all(function: Callable[..., object], *columns: Iterable[Any]) -> None:
    """``function(*row)`` for every row of the zipped columns, without returning to the interpreter in between."""
    deque(map(function, *columns), maxlen=0)


@contextmanager
def temporary_data(tensors: Sequence[Tensor], contents: Sequence[Tensor]) -> Iterator[None]:
    """A block in which tensors have other contents, also of another dtype; then they get their own memory back.

    The tensor objects stay the same, so other references (a recurrent layer's list of weights) see the contents, too.
    """
    previous = [tensor.data for tensor in tensors]
    with PostponedInterrupts():
        try:
            call_for_all(_set_data, tensors, contents)
            yield
        finally:
            while True:
                try:
                    call_for_all(_set_data, tensors, previous)
                except KeyboardInterrupt:  # a second one is not postponed
                    continue
                break


class Transaction:
    """Changes that are all made, or all taken back.

    Use it as a context manager: an exception (also a KeyboardInterrupt) inside the block takes all changes back and is
    raised again. Leaving the block normally keeps them.
    """

    def __init__(self) -> None:
        self._tensors: list[tuple[Sequence[Tensor], list[Tensor]]] = []
        self._entries: list[list[_Entry]] = []

    def __enter__(self) -> Transaction:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if kind is not None:
            self.rollback()

    def swap(self, tensors: Sequence[Tensor], replacements: Sequence[Tensor]) -> None:
        """Give every tensor the storage, sizes and strides of its replacement; the tensor objects stay.

        Assigning ``.data`` instead of calling `set_` would leave the old shape in autograd's accumulator of a loss that
        is still alive, and the next backward would fail.
        """
        with torch.no_grad():
            previous = list(map(Tensor.detach, tensors))
            # Note the swap before it happens: taking back a swap that did not happen changes nothing.
            self._tensors.append((tensors, previous))
            call_for_all(Tensor.set_, tensors, replacements)

    def set_entries(self, entries: Sequence[tuple[dict[Any, Any], Any, Any]]) -> None:
        """Set ``dictionary[key] = value`` for all (dictionary, key, value); attributes are entries of ``__dict__``."""
        if not entries:
            return
        self._entries.append([(d, key, d.get(key, _MISSING)) for d, key, _ in entries])
        call_for_all(dict.__setitem__, *zip(*entries, strict=True))

    def rollback(self) -> None:
        """Take all changes back. An interrupt starts this over, and so does the first error.

        Raises:
            Exception: the first error, after the second attempt.
        """
        failure = None
        while True:
            try:
                self._rollback()
            except KeyboardInterrupt:
                continue
            except Exception as error:
                if failure is not None:
                    raise
                failure = error
                continue
            break
        if failure is not None:
            raise failure

    def _rollback(self) -> None:
        with torch.no_grad():
            for tensors, previous in reversed(self._tensors):
                call_for_all(Tensor.set_, tensors, previous)
        for entries in reversed(self._entries):
            present = [entry for entry in entries if entry[2] is not _MISSING]
            if present:
                call_for_all(dict.__setitem__, *zip(*present, strict=True))
            for dictionary, key, value in entries:
                if value is _MISSING:
                    dictionary.pop(key, None)
