"""Where the numbers come from that an operation was called with: the attribute of the module that keeps them.

The counterpart of `gsprune.tracing.watcher`: while a forward that is known to fail runs once more, the integers that
modules keep are replaced by integers that remember their place, also through a product, a sum (of its first
term) or a division into parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from torch import nn
from torch.overrides import TorchFunctionMode

from gsprune.rewrite.attributes import is_in_table, with_element

__all__ = ["Place", "PlaceWatcher", "mark_places", "stored_integers"]


class Place(NamedTuple):
    """An integer that a module keeps.

    Attributes:
        module: the module.
        attribute: the attribute's name.
        position: position within a tuple or list, None for a plain integer.
    """

    module: nn.Module
    attribute: str
    position: int | None

    @property
    def value(self) -> int:
        """The integer itself."""
        kept = self.module.__dict__[self.attribute]
        return int(kept if self.position is None else kept[self.position])


class _Kept(int):
    """An integer with the place where it is kept."""

    place: Place

    @classmethod
    def at(cls, value: int, place: Place) -> _Kept:
        kept = cls(value)
        kept.place = place
        return kept

    def __floordiv__(self, other: int) -> int:
        return _Kept.at(int(self) // other, self.place) if isinstance(other, int) else int(self) // other

    def __mul__(self, other: int) -> int:
        return _Kept.at(int(self) * other, self.place) if isinstance(other, int) else int(self) * other

    __rmul__ = __mul__

    def __add__(self, other: int) -> int:
        return _Kept.at(int(self) + int(other), self.place) if isinstance(other, int) else int(self) + other

    __radd__ = __add__

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        """What outlives the run is a number."""
        return int, (int(self),)

    def __deepcopy__(self, memo: dict[int, Any]) -> int:
        return int(self)


def stored_integers(module: nn.Module) -> Iterator[tuple[str, int | None, int]]:
    """(attribute, position in a tuple or list or None, value) of all integers that the module itself keeps."""
    for attribute, value in list(module.__dict__.items()):
        if isinstance(value, bool):
            continue
        if isinstance(value, int):
            yield attribute, None, value
        elif isinstance(value, tuple | list):
            for index, element in enumerate(value):
                if isinstance(element, int) and not isinstance(element, bool):
                    yield attribute, index, element


def mark_places(model: nn.Module) -> None:
    """Let the integers of user modules remember their places; the caller puts the attributes back."""
    for module in model.modules():
        if is_in_table(module):
            continue
        for attribute, index, value in stored_integers(module):
            kept, present = _Kept.at(value, Place(module, attribute, index)), module.__dict__[attribute]
            if index is None:
                module.__dict__[attribute] = kept
            elif type(present) in (tuple, list):
                module.__dict__[attribute] = with_element(present, index, kept)


class PlaceWatcher(TorchFunctionMode):
    """Notes the places of the numbers that the innermost failing call was given.

    Attributes:
        places: what it found.
    """

    def __init__(self) -> None:
        super().__init__()
        self.places: tuple[Place, ...] = ()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        try:
            return func(*args, **kwargs)
        except Exception:
            if not self.places:
                self.places = tuple(_places((*args, *kwargs.values())))
            raise


def _places(values: tuple[Any, ...] | list[Any]) -> Iterator[Place]:
    for value in values:
        if isinstance(value, _Kept):
            yield value.place
        elif isinstance(value, tuple | list):
            yield from _places(value)
