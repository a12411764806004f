"""The lengths that a step changes: of axes, of heads, and of the parts of splits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from gsprune.rewrite.size_links import Shape
from gsprune.tracing.graph import Graph

__all__ = ["LengthChange", "Sizes", "changed_lengths", "lengths_of", "lengths_of_parts"]

_UNITS = ".units"  # end of the keys of `lengths_of` for groups

Sizes = Collection[tuple[int, int]]  # (before the step, after it)


@dataclass(frozen=True, slots=True)
class LengthChange:
    """A length that a step changes: that of an axis, or that of one head if the axis has `divisor` heads.

    `tensor` is a key of `lengths_of`. A part of a split may have `multiplier` channels for each unit of its group.
    """

    tensor: str
    axis: int
    divisor: int
    before: int
    after: int
    multiplier: int = 1

    @property
    def is_units(self) -> bool:
        """True for the number of units of a group."""
        return self.tensor.endswith(_UNITS)

    def is_in(self, module: str) -> bool:
        """True if the tensor belongs to a module or its submodules."""
        return not module or self.tensor.startswith(f"{module}.")

    def is_one_of(self, sizes: Sizes) -> bool:
        """True if `sizes` has this change."""
        return (self.before, self.after) in sizes


def lengths_of(graph: Graph) -> dict[str, Shape]:
    """Shapes of all tensors, and the number of units of every group: a part of a split may be as long as no axis."""
    return {**graph.shapes, **{f"{group.name}{_UNITS}": (group.num_units,) for group in graph.groups}}


def changed_lengths(graph: Graph, after: Mapping[str, Shape]) -> list[LengthChange]:
    """All lengths that change, whole axes before heads. `after` has the keys of `lengths_of`."""
    found: dict[tuple[str, int, int], LengthChange] = {}
    for name, shape in lengths_of(graph).items():
        for axis, (old, new) in enumerate(zip(shape, after[name], strict=True)):
            if old != new:
                found[name, axis, 1] = LengthChange(name, axis, 1, old, new)
    for group in graph.groups:
        for member in group.members:
            length = graph.shapes[member.tensor][member.axis]
            if group.num_units and length != group.num_units and length % group.num_units == 0:
                heads = length // group.num_units
                new = after[member.tensor][member.axis] // heads
                if new != group.num_units:
                    key = (member.tensor, member.axis, heads)
                    found[key] = LengthChange(member.tensor, member.axis, heads, group.num_units, new)
    return list(found.values())


def lengths_of_parts(lengths: Sequence[LengthChange], sizes: Sizes) -> list[LengthChange]:
    """Equal parts of whole axes that have the given sizes, and multiples of the number of a group's units.

    Several heads may shrink as one unit. Tied parts of a split may have different sizes.
    """
    parts = [
        LengthChange(length.tensor, length.axis, length.before // before, before, now)
        for length in lengths
        for before, now in sizes
        if length.divisor == 1 and length.before > before and length.before % before == 0
        if length.before // before * now == length.after
    ]
    multiples = [
        LengthChange(length.tensor, length.axis, 1, before, now, before // length.before)
        for length in lengths
        for before, now in sizes
        if length.is_units and before > length.before and before % length.before == 0
        if before // length.before * length.after == now
    ]
    return parts + multiples
