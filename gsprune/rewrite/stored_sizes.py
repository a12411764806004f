"""Follows integers that user modules store (widths, head sizes) to the operations that they are passed to.

During a forward that is known to fail, every stored integer is replaced by one that remembers its attribute. Products
and floor divisions remember the attributes of their first operand, sums and differences those of both.
`gsprune.tracing.watcher` does the same for sizes of tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from torch import nn
from torch.overrides import TorchFunctionMode

from gsprune.rewrite.size_links import is_in_table, with_element

__all__ = ["StoredSize", "StoredSizeWatcher", "mark_stored_sizes", "stored_integers"]


class StoredSize(NamedTuple):
    """An integer in an attribute of a module; `position` is that within a tuple or list, None for a plain integer."""

    module: nn.Module
    attribute: str
    position: int | None

    @property
    def value(self) -> int:
        """The integer itself."""
        stored = self.module.__dict__[self.attribute]
        return int(stored if self.position is None else stored[self.position])


class _TrackedInt(int):
    """An integer that remembers the attributes that it is computed from."""

    origins: tuple[StoredSize, ...]

    @classmethod
    def of(cls, value: int, origins: tuple[StoredSize, ...]) -> _TrackedInt:
        tracked = cls(value)
        tracked.origins = origins
        return tracked

    def _with(self, value: int, other: int) -> _TrackedInt:
        """`value`, computed from this integer and another one."""
        more = other.origins if isinstance(other, _TrackedInt) else ()
        return _TrackedInt.of(value, tuple(dict.fromkeys((*self.origins, *more))))

    def __floordiv__(self, other: int) -> int:
        return _TrackedInt.of(int(self) // other, self.origins) if isinstance(other, int) else int(self) // other

    def __mul__(self, other: int) -> int:
        return _TrackedInt.of(int(self) * other, self.origins) if isinstance(other, int) else int(self) * other

    __rmul__ = __mul__

    def __add__(self, other: int) -> int:
        return self._with(int(self) + int(other), other) if isinstance(other, int) else int(self) + other

    __radd__ = __add__

    def __sub__(self, other: int) -> int:
        return self._with(int(self) - int(other), other) if isinstance(other, int) else int(self) - other

    def __rsub__(self, other: int) -> int:
        return _TrackedInt.of(int(other) - int(self), self.origins) if isinstance(other, int) else other - int(self)

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        """A pickle holds a plain integer."""
        return int, (int(self),)

    def __deepcopy__(self, memo: dict[int, Any]) -> int:
        return int(self)


def stored_integers(module: nn.Module) -> Iterator[tuple[str, int | None, int]]:
    """(attribute, position in a tuple or list or None, value) of all integers in the module's attributes."""
    for attribute, value in list(module.__dict__.items()):
        if isinstance(value, bool):
            continue
        if isinstance(value, int):
            yield attribute, None, value
        elif isinstance(value, tuple | list):
            for index, element in enumerate(value):
                if isinstance(element, int) and not isinstance(element, bool):
                    yield attribute, index, element


def mark_stored_sizes(model: nn.Module) -> None:
    """Replace the integers of user modules by tracked ones; the caller restores the attributes."""
    for module in model.modules():
        if is_in_table(module):
            continue
        for attribute, index, value in stored_integers(module):
            tracked = _TrackedInt.of(value, (StoredSize(module, attribute, index),))
            present = module.__dict__[attribute]
            if index is None:
                module.__dict__[attribute] = tracked
            elif type(present) in (tuple, list):
                module.__dict__[attribute] = with_element(present, index, tracked)


class StoredSizeWatcher(TorchFunctionMode):
    """Notes in `sizes` the origins of the tracked integers among the arguments of the innermost failing call."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: tuple[StoredSize, ...] = ()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        try:
            return func(*args, **kwargs)
        except Exception:
            if not self.sizes:
                self.sizes = tuple(_origins((*args, *kwargs.values())))
            raise


def _origins(values: tuple[Any, ...] | list[Any]) -> Iterator[StoredSize]:
    for value in values:
        if isinstance(value, _TrackedInt):
            yield from value.origins
        elif isinstance(value, tuple | list):
            yield from _origins(value)
        elif isinstance(value, slice):
            yield from _origins((value.start, value.stop, value.step))
