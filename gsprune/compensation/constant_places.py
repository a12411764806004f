"""Finds the biases and running means that could take the constants of removed inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

from torch import Tensor

from gsprune.compensation.stored_tensors import StoredTensors
from gsprune.compensation.uses import Use

__all__ = ["PRODUCTS", "ConstantPlace", "ConstantPlaces"]

_MARK = "_gsprune_product"
PRODUCTS = {"aten.mm": 0, "aten.bmm": 0, "aten.matmul": 0, "aten.addmm": 1, "aten.baddbmm": 1}
"""Number of arguments in front of the two factors of a product: the bias, if any."""
_NORMS = frozenset(
    f"aten.{name}" for name in ("native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm", "batch_norm")
)


class ConstantPlace(NamedTuple):
    """Elements of a bias or a running mean that take a constant: from `start` on, one per output of the weight."""

    tensor: str
    start: int


@dataclass
class _Product:
    """Mark on a consumer's output: the next operation to read it may add a bias or normalise it."""

    weight: str
    row: int
    takes_constant: bool
    is_read: bool = False


class ConstantPlaces:
    """For every use of a weight, the place that could take a constant of its inputs.

    Call `note_read` for every stored tensor that an operation reads, `note_inputs` before the operation, and
    `note_view` or `note_use` after it.
    """

    def __init__(self, stored: StoredTensors, axes: Mapping[str, int]) -> None:
        """Start without uses; `axes` has the input axis of each weight."""
        self._stored, self._axes = stored, axes
        self._places: dict[str, list[ConstantPlace | None]] = {}  # weight -> the place of each use, or None
        self._reads: dict[str, list[tuple[int, int]]] = {}  # tensor -> (start, length) of each read of it

    def __contains__(self, weight: str) -> bool:
        """True if an operation has used the weight."""
        return weight in self._places

    def of(self, weight: str) -> tuple[ConstantPlace, ...]:
        """The places that take a consumer's constant, each for some of its uses; none if not all uses have one."""
        places = self._places.get(weight, [])
        tensor = self._stored[weight]
        outputs = tensor.numel() // tensor.shape[0] if self._axes[weight] == 0 else tensor.shape[0]
        for place in places:
            if place is None:
                return ()
            end = place.start + outputs
            num_reads = sum(start < end and place.start < start + size for start, size in self._reads[place.tensor])
            if num_reads != places.count(place):
                return ()
        return tuple(place for place in dict.fromkeys(places) if place is not None)

    def note_read(self, name: str, view: Tensor) -> None:
        """Note that an operation reads a view of a stored tensor."""
        self._reads.setdefault(name, []).append((self._stored.start(name, view), view.numel()))

    @staticmethod
    def note_view(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """A view of a product is that product."""
        mark = inputs[0].__dict__.get(_MARK) if inputs else None
        for output in outputs if mark is not None else ():
            output.__dict__[_MARK] = mark

    def note_inputs(self, op: str, args: Sequence[Any], inputs: Sequence[Tensor]) -> None:
        """Find the bias or running mean behind a product that has no bias of its own."""
        for tensor in inputs:
            mark: _Product | None = tensor.__dict__.get(_MARK)
            if mark is None:
                continue
            target = None
            if not mark.is_read and mark.takes_constant:
                target = self._constant_behind(op, args, tensor, mark.row)
            mark.is_read = True
            self._places[mark.weight].append(target)

    def note_use(self, use: Use, op: str, args: Sequence[Any], result: Any) -> None:
        """Note the place of a constant: a bias among the arguments, or else mark the product for `note_inputs`."""
        targets = self._places.setdefault(use.weight, [])
        if op in PRODUCTS:
            left, right = args[PRODUCTS[op] :][:2]
            bias = args[0] if PRODUCTS[op] else None
            takes_constant = use.channel_axis == -1
            weight = right if takes_constant else left
        else:
            weight = args[1]
            bias = args[2] if len(args) > 2 else None
            takes_constant = not use.transposed or prod(weight.shape[2:]) == 1
        row = self._row(use, weight)
        if bias is None:
            result.__dict__[_MARK] = _Product(use.weight, row, takes_constant)
        else:
            targets.append(self._place(self._stored.name_of(bias), bias, row) if takes_constant else None)

    def _constant_behind(self, op: str, args: Sequence[Any], product: Tensor, row: int) -> ConstantPlace | None:
        if op in _NORMS and args[0] is product and isinstance(args[3], Tensor):
            return self._place(self._stored.name_of(args[3]), args[3])
        if op == "aten.add" and isinstance(args[1], Tensor):
            other = args[1] if args[0] is product else args[0]
            if other.ndim == 1 and other.shape[0] == product.shape[-1]:
                return self._place(self._stored.name_of(other), other, row)
        return None

    def _place(self, name: str | None, view: Tensor, row: int = 0) -> ConstantPlace | None:
        """The place of a constant in a view of a bias that belongs to the weight's outputs from `row` on."""
        return None if name is None else ConstantPlace(name, self._stored.start(name, view) - row)

    def _row(self, use: Use, view: Tensor) -> int:
        """The first output in a view of a consumer's weight."""
        tensor, axis = self._stored[use.weight], 1 - self._axes[use.weight]
        if tensor.ndim != 2:
            return 0
        return self._stored.start(use.weight, view) // tensor.stride(axis) % tensor.shape[axis]
