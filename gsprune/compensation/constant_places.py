"""Finds the biases and running means that could take the constants of removed inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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
    """Mark on a consumer's output and on its views: the next operation to read one may add a bias or normalise it.

    Attributes:
        weight: the consumer's weight.
        use: the number of the use among the weight's uses.
        row: the weight's first output in the product.
        outputs: the number of outputs in the product.
        start, stride: the product's first element in memory, and the step from one output to the next.
        is_read: True if an operation other than a view has read it.
    """

    weight: str
    use: int
    row: int
    outputs: int
    start: int
    stride: int
    is_read: bool = False

    def lies_along(self, view: Tensor, axis: int) -> bool:
        """True if an axis of a view of the product has all outputs in order, and the other axes only positions."""
        if not -view.ndim <= axis < view.ndim or view.shape[axis] != self.outputs:
            return False
        start = view.storage_offset() - self.start
        last_inside = start % self.stride  # of the positions that lie between two outputs in memory
        for each, (size, stride) in enumerate(zip(view.shape, view.stride(), strict=True)):
            if size == 1:
                continue
            if each == axis % view.ndim:
                if stride != self.stride:
                    return False
            elif stride < self.stride:
                last_inside += (size - 1) * stride
            elif stride % (self.stride * self.outputs):
                return False
        return last_inside < self.stride and start // self.stride % self.outputs == 0


class ConstantPlaces:
    """For every use of a weight, the place that could take a constant of its inputs.

    Call `note_read` for every stored tensor that an operation reads, `note_inputs` before the operation, `note_view` or
    `note_use` after it, and `note_outputs` at the end of the forward.

    Attributes:
        conditional: weights with a place that the forward has read while `is_conditional()`.
    """

    def __init__(
        self, stored: StoredTensors, axes: Mapping[str, int], is_conditional: Callable[[], bool] = lambda: False
    ) -> None:
        """Start without uses; `axes` has the input axis of each weight."""
        self._stored, self._axes, self._is_conditional = stored, axes, is_conditional
        self.conditional: set[str] = set()
        self._places: dict[str, list[ConstantPlace | None]] = {}  # weight -> the place of each use, or None
        self._num_outputs: dict[str, int] = {}
        self._reads: dict[str, list[tuple[int, int]]] = {}  # tensor -> (start, length) of each read of it

    def __contains__(self, weight: str) -> bool:
        """True if an operation has used the weight."""
        return weight in self._places

    def of(self, weight: str) -> tuple[ConstantPlace, ...]:
        """The places that take a consumer's constant, each for some of its uses; none if not all uses have one."""
        places = self._places.get(weight, [])
        for place in places:
            if place is None:
                return ()
            end = place.start + self._num_outputs[weight]
            num_reads = sum(start < end and place.start < start + size for start, size in self._reads[place.tensor])
            if num_reads != places.count(place):
                return ()
        return tuple(place for place in dict.fromkeys(places) if place is not None)

    def note_read(self, name: str, view: Tensor) -> None:
        """Note that an operation reads a view of a stored tensor."""
        self._reads.setdefault(name, []).append((self._stored.start(name, view), view.numel()))

    def note_view(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Mark the views of a product. A view as another dtype has other elements, and counts as a read."""
        mark: _Product | None = inputs[0].__dict__.get(_MARK) if inputs else None
        if mark is None:
            return
        for output in outputs:
            if output.dtype == inputs[0].dtype:
                output.__dict__[_MARK] = mark
            else:
                self._set(mark, None)

    def note_inputs(self, op: str, args: Sequence[Any], kwargs: Mapping[str, Any], inputs: Sequence[Tensor]) -> None:
        """Find the bias or running mean behind a product that has no bias of its own."""
        for tensor in inputs:
            mark: _Product | None = tensor.__dict__.get(_MARK)
            if mark is not None:
                self._set(mark, None if mark.is_read else self._constant_behind(op, args, kwargs, tensor, mark))

    def note_outputs(self, outputs: Iterable[Tensor]) -> None:
        """A product that the network returns takes no constant, because its reader gets it without the bias."""
        for tensor in outputs:
            mark: _Product | None = tensor.__dict__.get(_MARK)
            if mark is not None:
                self._set(mark, None)

    def note_use(self, use: Use, op: str, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        """Note the place of a constant: a bias among the arguments, or else mark the product for `note_inputs`."""
        places = self._places.setdefault(use.weight, [])
        places.append(None)
        stored, axis = self._stored[use.weight], use.channel_axis  # the outputs lie where the inputs did
        self._num_outputs[use.weight] = (
            stored.shape[1 - self._axes[use.weight]] if stored.ndim == 2 else result.shape[axis]
        )
        if op in PRODUCTS:
            bias = args[0] if PRODUCTS[op] else None
            row = self._row(use, args[PRODUCTS[op] + (axis == -1)], axis)
            takes_constant = kwargs.get("beta", 1) == kwargs.get("alpha", 1) == 1
        else:
            bias = args[2] if len(args) > 2 else None
            row = self._row(use, args[1], -2) if op == "aten.linear" else 0
            takes_constant = not use.transposed or _covers_outputs(args)
        if row is None or not takes_constant:
            return
        product = _Product(
            use.weight, len(places) - 1, row, result.shape[axis], result.storage_offset(), result.stride(axis)
        )
        if bias is None:
            result.__dict__[_MARK] = product
        else:
            places[-1] = self._place(bias, axis if op in PRODUCTS else -1, product)

    def _set(self, product: _Product, place: ConstantPlace | None) -> None:
        product.is_read = True
        self._places[product.weight][product.use] = place

    def _constant_behind(
        self, op: str, args: Sequence[Any], kwargs: Mapping[str, Any], view: Tensor, product: _Product
    ) -> ConstantPlace | None:
        """The place in the running mean or the bias that an operation subtracts from a product, or adds to it."""
        if op in _NORMS and args[0] is view and isinstance(args[3], Tensor):
            return self._place(args[3], -1, product, is_mean=True) if product.lies_along(view, 1) else None
        if op == "aten.add" and isinstance(args[1], Tensor) and kwargs.get("alpha", 1) == 1:
            other = args[1] if args[0] is view else args[0]
            axes = (axis for axis in range(-other.ndim, 0) if other.shape[axis] > 1 and other.stride(axis) > 0)
            axis = next(axes, -1)
            return self._place(other, axis, product) if product.lies_along(view, axis) else None
        return None

    def _place(self, view: Tensor, axis: int, product: _Product, *, is_mean: bool = False) -> ConstantPlace | None:
        """The place of a constant in a view of a bias or running mean; None unless an axis has one element per output.

        Elements of a tensor with several axes are not consecutive once it is pruned, so such a tensor takes none.
        """
        if self._is_conditional():
            self.conditional.add(product.weight)
        name = self._stored.name_of(view)
        if name is None or name.endswith("running_mean") != is_mean:  # `find_targets` subtracts from running means
            return None
        tensor, start = self._stored[name], self._stored.start(name, view) - product.row
        is_vector = tensor.is_contiguous() and tensor.is_floating_point() and max(tensor.shape) == tensor.numel()
        is_long_enough = 0 <= start <= tensor.numel() - self._num_outputs[product.weight]
        steps = {stride for size, stride in zip(view.shape, view.stride(), strict=True) if size > 1 and stride > 0}
        is_run = view.ndim > 0 and view.shape[axis] == product.outputs and steps <= {1}
        return ConstantPlace(name, start) if is_vector and is_long_enough and is_run else None

    def _row(self, use: Use, view: Tensor, axis: int) -> int | None:
        """The first output in a view of a matrix, with outputs along `axis`; None if they are not consecutive."""
        tensor, own = self._stored[use.weight], 1 - self._axes[use.weight]
        if view.shape[axis] > 1 and view.stride(axis) != tensor.stride(own):
            return None
        return self._stored.start(use.weight, view) // tensor.stride(own) % tensor.shape[own]


def _covers_outputs(args: Sequence[Any]) -> bool:
    """True if every output of a transposed convolution reads one input: none between the inputs or beyond them."""
    return prod(args[1].shape[2:]) == 1 and set(args[3]) == {1} and not any(args[7])
