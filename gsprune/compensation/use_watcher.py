"""Finds the operations of a forward that use the consumers' weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from gsprune.compensation.constant_places import PRODUCTS, ConstantPlace, ConstantPlaces
from gsprune.compensation.routing import note_route, route_of
from gsprune.compensation.stored_tensors import StoredTensors
from gsprune.compensation.uses import ConvGeometry, Use, padding_share
from gsprune.errors import GspruneError, TraceError, failure_text, is_out_of_memory
from gsprune.rewrite.tensors import canonical_tensors
from gsprune.tracing.call import Call, outputs_of
from gsprune.tracing.example import Example, first_outputs
from gsprune.tracing.operation_mode import OperationMode
from gsprune.tracing.outputs import tensors_in
from gsprune.tracing.plain_operations import plain_operations
from gsprune.tracing.rules.registry import Operation
from gsprune.tracing.temporary_eval import temporary_eval

__all__ = ["UseWatcher", "common_constants", "watch_calls"]

_SOURCES = "_gsprune_sources"
_LAYERS = frozenset({"aten.convolution", "aten._convolution", "aten.linear"})


class UseWatcher(OperationMode):
    """Calls `on_use` before each operation that uses a consumer and reads at least one sample.

    Attributes:
        places: the places that could take constants.
        unsupported: weight -> the operation that reads it in a way that no map can follow.
        computed: weight -> the layer's operation with a weight that is computed from it (a mixture of kernels).
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        axes: Mapping[str, int],
        on_use: Callable[[Use], None],
        is_conditional: Callable[[], bool] = lambda: False,
    ) -> None:
        """Watch the weights in `axes`.

        Args:
            tensors: the model's parameters and buffers by canonical name.
            axes: weight of a consumer -> input axis.
            on_use: the function to call.
            is_conditional: returns True if the next operation may not run on other inputs.
        """
        super().__init__()
        self._stored, self._axes, self._on_use = StoredTensors(tensors), axes, on_use
        self.places = ConstantPlaces(self._stored, axes, is_conditional)
        self.unsupported: dict[str, str] = {}
        self.computed: dict[str, str] = {}

    def run(self, func: Any, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operation; call `on_use` before it if it uses a consumer."""
        inputs = Call(operation.name, args, kwargs).tensors()
        if func.is_view or operation.name == "aten._unsafe_view":
            result = func(*args, **kwargs)
            self.places.note_view(inputs, outputs_of(result))
            self._note_sources(operation.name, inputs, result)
            note_route(operation.name, inputs, result)
            return result
        use = self._use(operation.name, args)
        for tensor in inputs:
            name = self._stored.name_of(tensor)
            if name is not None:
                self.places.note_read(name, tensor)
                if name in self._axes and (use is None or use.weight != name):
                    self.unsupported.setdefault(name, operation.name)
        self.places.note_inputs(operation.name, args, kwargs, inputs)
        if use is not None and use.inputs.numel() > 0:  # an expert may get no sample
            self._on_use(replace(use, route=route_of(use.inputs)))
        result = func(*args, **kwargs)
        if use is not None:
            self.places.note_use(use, operation.name, args, kwargs, result)
        self._note_sources(operation.name, inputs, result)
        if not inputs or self._stored.name_of(inputs[0]) is None:  # a row of a table is no sample
            note_route(operation.name, inputs, result)
        return result

    def _note_sources(self, op: str, inputs: Sequence[Tensor], result: Any) -> None:
        """Note on a result the weights from which it is computed without a product, or a layer with such a weight."""
        if op in _LAYERS:
            if self._stored.name_of(inputs[1]) is None:
                self.computed |= dict.fromkeys(self._sources(inputs[1]), op)
        elif op not in PRODUCTS:
            sources = frozenset[str]().union(*map(self._sources, inputs))
            for output in outputs_of(result) if sources else ():
                output.__dict__[_SOURCES] = sources

    def _sources(self, tensor: Tensor) -> frozenset[str]:
        """The watched weights from which a tensor is computed; vectors (biases and scales of activations) are none."""
        name = self._stored.name_of(tensor)
        if name is None:
            found: frozenset[str] = tensor.__dict__.get(_SOURCES, frozenset())
            return found
        is_weight = name in self._axes and max(self._stored[name].shape) < self._stored[name].numel()
        return frozenset({name}) if is_weight else frozenset()

    def _use(self, op: str, args: Sequence[Any]) -> Use | None:
        """The use of a consumer that an operation makes, if any."""
        if op in ("aten.convolution", "aten._convolution"):
            x, weight = args[:2]
            name = self._stored.name_of(weight)
            transposed = args[6]
            axis = 0 if transposed else 1
            if name is None or self._axes.get(name) != axis or weight.shape != self._stored[name].shape:
                return None
            if transposed:
                return Use(name, x, 1, args[8], transposed)
            sizes = tuple(weight.shape[2:])
            kernel = ConvGeometry(sizes, *(tuple(v if len(v) > 1 else v * len(sizes)) for v in args[3:6]))
            padding = padding_share(x.shape[2:], kernel)
            return Use(name, x, 1, args[8], padding=padding, kernel=kernel if args[8] == 1 else None)
        if op == "aten.linear":
            name = self._stored.name_of(args[1])
            return None if name is None or not self._is_input_axis(name, args[1], -1) else Use(name, args[0], -1)
        if op in PRODUCTS:
            left, right = args[PRODUCTS[op] :][:2]
            for weight, x, axis, channels in ((right, left, -2, -1), (left, right, -1, -2)):
                name = self._stored.name_of(weight)
                is_product = x.ndim > 1 and self._stored.name_of(x) is None
                if name is not None and is_product and self._is_input_axis(name, weight, axis):
                    return Use(name, x, channels)
        return None

    def _is_input_axis(self, name: str, view: Tensor, axis: int) -> bool:
        """True if an axis of a view of a weight is the weight's whole input axis."""
        own = self._axes.get(name)
        if own is None or view.ndim < 2 or self._stored[name].ndim != 2:
            return False
        tensor = self._stored[name]
        batched = any(size > 1 and stride > 0 for size, stride in zip(view.shape[:-2], view.stride()[:-2], strict=True))
        is_whole = view.shape[axis] == tensor.shape[own] and view.stride(axis) == tensor.stride(own)
        start = self._stored.start(name, view) // tensor.stride(own) % tensor.shape[own]
        is_inner = tensor.stride(own) < tensor.stride(1 - own)
        return not batched and is_whole and (start == 0 or not is_inner)


def watch_calls(
    model: nn.Module,
    axes: Mapping[str, int],
    calls: Sequence[Example],
    on_use: Callable[[int, Use], None],
    is_conditional: Callable[[], bool] = lambda: False,
) -> list[UseWatcher]:
    """Call the model on every batch in eval mode, and report the uses of weights.

    `axes` has the input axis of each weight. `on_use(batch, use)` is called before the use's operation runs.
    `is_conditional` is that of `UseWatcher`.

    Raises:
        ValueError: the forward fails on a batch.
        TraceError: the forward fails only while it is watched.
    """
    watchers = []
    for batch, call in enumerate(calls):
        watcher = UseWatcher(canonical_tensors(model), axes, partial(on_use, batch), is_conditional)
        with temporary_eval(model), plain_operations(model):
            outputs = _watched_outputs(model, call, watcher)
        watcher.places.note_outputs(tensors_in(outputs))
        watchers.append(watcher)
    return watchers


def _watched_outputs(model: nn.Module, call: Example, watcher: UseWatcher) -> Any:
    try:
        with watcher:
            return call.call(model)
    except Exception as error:
        if isinstance(error, GspruneError) or is_out_of_memory(error):
            raise
        with _disable_current_modes():
            first_outputs(model, call, "calibration")  # raises an error if the inputs are at fault
        raise TraceError(
            f"gsprune cannot watch the forward of {type(model).__name__}, which runs on `calibration` otherwise:"
            f" {failure_text(error)}; nothing was changed. Please report the network"
        ) from error


def common_constants(watchers: Sequence[UseWatcher], weight: str) -> tuple[ConstantPlace, ...]:
    """The places that take a constant in every batch that uses the weight; none if batches differ."""
    places = {watcher.places.of(weight) for watcher in watchers if weight in watcher.places}
    return places.pop() if len(places) == 1 else ()
