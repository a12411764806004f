"""Finds the operations of a forward that use the consumers' weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gsprune.rewrite.tensors import canonical_tensors
from gsprune.tracing.call import Call, outputs_of
from gsprune.tracing.example import Example, first_outputs
from gsprune.tracing.operation_mode import OperationMode
from gsprune.tracing.plain_operations import plain_operations
from gsprune.tracing.rules.registry import Operation
from gsprune.tracing.temporary_eval import temporary_eval

__all__ = ["ConstantPlace", "ConvGeometry", "Use", "UseWatcher", "common_constants", "padding_share", "watch_calls"]

_MARK = "_gsprune_product"
# Number of arguments in front of the two factors of a product: the bias, if any.
_PRODUCTS = {"aten.mm": 0, "aten.bmm": 0, "aten.matmul": 0, "aten.addmm": 1, "aten.baddbmm": 1}
_NORMS = frozenset(
    f"aten.{name}" for name in ("native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm", "batch_norm")
)


class ConstantPlace(NamedTuple):
    """Elements of a bias or a running mean that take a constant: from `start` on, one per output of the weight."""

    tensor: str
    start: int


class ConvGeometry(NamedTuple):
    """Sizes, stride, padding (on either side) and dilation of a convolution: one number per axis of the picture."""

    sizes: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    def output_sizes(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Sizes of the outputs of a picture."""
        return tuple(
            (size + 2 * padding - dilation * (width - 1) - 1) // stride + 1
            for size, width, stride, padding, dilation in zip(sizes, *self, strict=True)
        )


@dataclass(frozen=True)
class Use:
    """One operation that sums over a consumer's input axis.

    Attributes:
        weight: canonical name of the weight.
        inputs: the activations that it reads.
        channel_axis: the axis of `inputs` that the weight's input axis meets.
        groups: the number of convolution groups.
        transposed: True for a transposed convolution.
        padding: the share of zero padding among the elements that it reads, in [0, 1).
        kernel: the geometry of a convolution with one group that is not transposed; else None.
    """

    weight: str
    inputs: Tensor
    channel_axis: int
    groups: int = 1
    transposed: bool = False
    padding: float = 0.0
    kernel: ConvGeometry | None = None

    @property
    def is_depthwise(self) -> bool:
        """True if one input per group is left: of a depthwise convolution, or of a consumer that became one."""
        return self.groups == self.inputs.shape[self.channel_axis]


@dataclass
class _Product:
    """Mark on a consumer's output: the next operation to read it may add a bias or normalise it."""

    weight: str
    row: int
    takes_constant: bool
    is_read: bool = False


@dataclass
class UseWatcher(OperationMode):
    """Calls `on_use` before each operation that uses a consumer.

    Attributes:
        tensors: the model's parameters and buffers by canonical name.
        axes: weight of a consumer -> input axis.
        on_use: the function to call.
        unsupported: weight -> the operation that reads it in a way that no map can follow.
        constants: weight -> for every use, the place that could take a constant, or None.
        reads: tensor -> (start, length) of every read of it by an operation.
    """

    tensors: Mapping[str, Tensor]
    axes: Mapping[str, int]
    on_use: Callable[[Use], None]
    unsupported: dict[str, str] = field(default_factory=dict)
    constants: dict[str, list[ConstantPlace | None]] = field(default_factory=dict)
    reads: dict[str, list[tuple[int, int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()
        self._stored: dict[int, list[str]] = {}
        for name, tensor in self.tensors.items():
            if tensor.layout == torch.strided and tensor.numel():
                self._stored.setdefault(tensor.untyped_storage().data_ptr(), []).append(name)

    def run(self, func: Any, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation; call `on_use` before it if it uses a consumer."""
        inputs = Call(operation.name, args, kwargs).tensors()
        if func.is_view or operation.name == "aten._unsafe_view":
            result = func(*args, **kwargs)
            mark = inputs[0].__dict__.get(_MARK) if inputs else None
            for output in outputs_of(result) if mark is not None else ():
                output.__dict__[_MARK] = mark
            return result
        names = []
        for tensor in inputs:
            name = self._name_of(tensor)
            if name is not None:
                names.append(name)
                self.reads.setdefault(name, []).append((self._start(name, tensor), tensor.numel()))
        self._note_reads(operation.name, args, inputs)
        use = self._use(operation.name, args)
        for name in names:
            if name in self.axes and (use is None or use.weight != name):
                self.unsupported.setdefault(name, operation.name)
        if use is not None:
            self.on_use(use)
        result = func(*args, **kwargs)
        if use is not None:
            self._note_bias(use, operation.name, args, result)
        return result

    def _name_of(self, tensor: Tensor) -> str | None:
        """Name of the parameter or buffer that a tensor is, or is a view of."""
        if tensor.layout != torch.strided:
            return None
        for name in self._stored.get(tensor.untyped_storage().data_ptr(), ()):
            owner = self.tensors[name]
            if 0 <= tensor.storage_offset() - owner.storage_offset() < owner.numel():
                return name
        return None

    def _start(self, name: str, view: Tensor) -> int:
        return int(view.storage_offset() - self.tensors[name].storage_offset())

    def _place(self, name: str | None, view: Tensor, row: int = 0) -> ConstantPlace | None:
        """The place of a constant in a view of a bias that belongs to the weight's outputs from `row` on."""
        return None if name is None else ConstantPlace(name, self._start(name, view) - row)

    def _row(self, use: Use, view: Tensor) -> int:
        """The first output in a view of a consumer's weight."""
        tensor, axis = self.tensors[use.weight], 1 - self.axes[use.weight]
        return 0 if tensor.ndim != 2 else self._start(use.weight, view) // tensor.stride(axis) % tensor.shape[axis]

    def _use(self, op: str, args: Sequence[Any]) -> Use | None:
        """The use of a consumer that an operation makes, if any."""
        if op in ("aten.convolution", "aten._convolution"):
            x, weight = args[:2]
            name = self._name_of(weight)
            transposed = args[6]
            axis = 0 if transposed else 1
            if name is None or self.axes.get(name) != axis or weight.shape != self.tensors[name].shape:
                return None
            if transposed:
                return Use(name, x, 1, args[8], transposed)
            sizes = tuple(weight.shape[2:])
            kernel = ConvGeometry(sizes, *(tuple(v if len(v) > 1 else v * len(sizes)) for v in args[3:6]))
            padding = padding_share(x.shape[2:], kernel)
            return Use(name, x, 1, args[8], padding=padding, kernel=kernel if args[8] == 1 else None)
        if op == "aten.linear":
            name = self._name_of(args[1])
            return None if name is None or not self._is_input_axis(name, args[1], -1) else Use(name, args[0], -1)
        if op in _PRODUCTS:
            left, right = args[_PRODUCTS[op] :][:2]
            for weight, x, axis, channels in ((right, left, -2, -1), (left, right, -1, -2)):
                name = self._name_of(weight)
                is_product = x.ndim > 1 and self._name_of(x) is None
                if name is not None and is_product and self._is_input_axis(name, weight, axis):
                    return Use(name, x, channels)
        return None

    def _is_input_axis(self, name: str, view: Tensor, axis: int) -> bool:
        """True if an axis of a view of a weight is the weight's whole input axis."""
        own = self.axes.get(name)
        if own is None or view.ndim < 2 or self.tensors[name].ndim != 2:
            return False
        tensor = self.tensors[name]
        batched = any(size > 1 and stride > 0 for size, stride in zip(view.shape[:-2], view.stride()[:-2], strict=True))
        is_whole = view.shape[axis] == tensor.shape[own] and view.stride(axis) == tensor.stride(own)
        start = self._start(name, view) // tensor.stride(own) % tensor.shape[own]
        is_inner = tensor.stride(own) < tensor.stride(1 - own)
        return not batched and is_whole and (start == 0 or not is_inner)

    def _note_reads(self, op: str, args: Sequence[Any], inputs: Sequence[Tensor]) -> None:
        """Find the bias or running mean behind a product that has no bias of its own."""
        for tensor in inputs:
            mark: _Product | None = tensor.__dict__.get(_MARK)
            if mark is None:
                continue
            target = None
            if not mark.is_read and mark.takes_constant:
                target = self._constant_behind(op, args, tensor, mark.row)
            mark.is_read = True
            self.constants[mark.weight].append(target)

    def _constant_behind(self, op: str, args: Sequence[Any], product: Tensor, row: int) -> ConstantPlace | None:
        if op in _NORMS and args[0] is product and isinstance(args[3], Tensor):
            return self._place(self._name_of(args[3]), args[3])
        if op == "aten.add" and isinstance(args[1], Tensor):
            other = args[1] if args[0] is product else args[0]
            if other.ndim == 1 and other.shape[0] == product.shape[-1]:
                return self._place(self._name_of(other), other, row)
        return None

    def _note_bias(self, use: Use, op: str, args: Sequence[Any], result: Any) -> None:
        """Note the place of a constant: a bias among the arguments, or else mark the product for `_note_reads`."""
        targets = self.constants.setdefault(use.weight, [])
        if op in _PRODUCTS:
            left, right = args[_PRODUCTS[op] :][:2]
            bias = args[0] if _PRODUCTS[op] else None
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
            targets.append(self._place(self._name_of(bias), bias, row) if takes_constant else None)

    def constants_of(self, weight: str) -> tuple[ConstantPlace, ...]:
        """The places that take a consumer's constant, each for some of its uses; none if not all uses have one."""
        places = self.constants.get(weight, [])
        tensor = self.tensors[weight]
        outputs = tensor.numel() // tensor.shape[0] if self.axes[weight] == 0 else tensor.shape[0]
        for place in places:
            if place is None:
                return ()
            reads = [start < place.start + outputs and place.start < start + n for start, n in self.reads[place.tensor]]
            if sum(reads) != places.count(place):
                return ()
        return tuple(place for place in dict.fromkeys(places) if place is not None)


def padding_share(sizes: Sequence[int], kernel: ConvGeometry) -> float:
    """The share of zero padding among the elements that a convolution reads, in [0, 1)."""
    inside = 1.0
    for size, outputs, width, step, pad, gap in zip(sizes, kernel.output_sizes(sizes), *kernel, strict=True):
        reads = (torch.arange(outputs) * step - pad)[:, None] + torch.arange(width) * gap
        inside *= float(((reads >= 0) & (reads < size)).double().mean())
    return 1 - inside


def watch_calls(
    model: nn.Module, axes: Mapping[str, int], calls: Sequence[Example], on_use: Callable[[int, Use], None]
) -> list[UseWatcher]:
    """Call the model on every batch in eval mode, and report the uses of weights.

    `axes` has the input axis of each weight. `on_use(batch, use)` is called before the use's operation runs.

    Raises:
        ValueError: the forward fails on a batch.
    """
    watchers = []
    for batch, call in enumerate(calls):
        watcher = UseWatcher(canonical_tensors(model), axes, partial(on_use, batch))
        with temporary_eval(model), plain_operations(model), watcher:
            first_outputs(model, call, "calibration")
        watchers.append(watcher)
    return watchers


def common_constants(watchers: Sequence[UseWatcher], weight: str) -> tuple[ConstantPlace, ...]:
    """The places that take a constant in every batch that uses the weight; none if batches differ."""
    places = {watcher.constants_of(weight) for watcher in watchers if weight in watcher.constants}
    return places.pop() if len(places) == 1 else ()
