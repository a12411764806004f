"""The watcher: torch functions that dispatched operations do not show completely.

Operations show sizes as plain numbers. During a trace, the sizes that the forward reads off shapes are integers that
remember their channels, also after a division into equal parts. A view to such a size ties the channels of both tensors
position by position, because the code needs equal widths. If both have the same units, in any order (heads last, NesT),
their widths are equal without a tie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.overrides import TorchFunctionMode

from gsprune.tracing.scales import note_attention
from gsprune.tracing.shadow import Kind, Labels, varying
from gsprune.tracing.tape import OUTPUT, Tape

__all__ = ["Watcher"]

_Functions = frozenset[Callable[..., Any]]
_SHAPES: _Functions = frozenset({Tensor.size, Tensor.shape.__get__})  # type: ignore[attr-defined]  # a descriptor
_VIEWS: _Functions = frozenset({Tensor.view, Tensor.reshape, torch.reshape})
_SPLITS: _Functions = frozenset((Tensor.split, torch.split, Tensor.split_with_sizes, torch.split_with_sizes))
_ATTENTION = F.scaled_dot_product_attention
# Functions that copy a tensor without a dispatched operation.
_COPIES: _Functions = frozenset({Tensor.__deepcopy__, Tensor.data.__get__})  # type: ignore[attr-defined]
# Functions that give a tensor's data to code outside of PyTorch.
_READERS: _Functions = frozenset(
    {
        Tensor.numpy,
        Tensor.tolist,
        Tensor.__array__,
        Tensor.__dlpack__,
        Tensor.__reduce_ex__,
        Tensor.untyped_storage,
        Tensor.storage,
    }
)


class _Length(int):
    """The length of an axis of channels, or of one of its equal parts.

    Attributes:
        labels: (parts, length) labels of the axis, part by part.
    """

    labels: Labels

    @classmethod
    def of(cls, labels: Labels) -> _Length:
        length = cls(labels.shape[1])
        length.labels = labels
        return length

    def __floordiv__(self, other: int) -> int:
        if isinstance(other, int) and other > 0 and int(self) % other == 0 and int(self) > other:
            return _Length.of(self.labels.reshape(-1, int(self) // other))
        return int(self) // other

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        """A copy that outlives the trace is a number."""
        return int, (int(self),)

    def __deepcopy__(self, memo: dict[int, Any]) -> int:
        return int(self)


class Watcher(TorchFunctionMode):
    """Sees shapes that the code reads, data that leaves PyTorch, and torch's attention before it is decomposed."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self.tape = tape

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        kwargs, tape = kwargs or {}, self.tape
        if func is _ATTENTION:
            return self._attention(args, kwargs)
        if func is F.multi_head_attention_forward:
            with self._inner_attention_seen():
                return func(*args, **kwargs)
        num_splits = len(tape.splits)
        if func in _READERS and tape.of(args[0]).kind is Kind.ACTIVATION:
            tape.protect(tape.of(args[0]), f"{OUTPUT}: read by code outside of PyTorch")
        result = func(*args, **kwargs)
        if func in _COPIES:
            tape.mark(result, tape.of(args[0]))
        elif func in _SHAPES:
            return _with_channels(tape, args[0], result)
        elif func in _VIEWS and not is_functorch_wrapped_tensor(result):  # under vmap, axes have other numbers
            _tie_view(tape, args, kwargs, result, num_splits)
        elif func in _SPLITS:
            _tie_split(tape, args, kwargs, result)
        return result

    @contextmanager
    def _inner_attention_seen(self) -> Iterator[None]:
        """See the attention that a function of torch calls: modes are off inside of the functions that they handle."""

        def seen(*args: Any, **kwargs: Any) -> Any:
            with self:
                return _ATTENTION(*args, **kwargs)

        F.scaled_dot_product_attention = seen
        try:
            yield
        finally:
            F.scaled_dot_product_attention = _ATTENTION

    def _attention(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tape = self.tape
        query, key = (*args, *(kwargs[name] for name in ("query", "key") if name in kwargs))[:2]
        shadows, op = (tape.of(query), tape.of(key)), "scaled_dot_product_attention"
        tape.attention_scale = note_attention(tape, *shadows, op, kwargs.get("scale"))
        tape.inside_attention = True
        try:
            return _ATTENTION(*args, **kwargs)
        finally:
            tape.inside_attention = False


def _with_channels(tape: Tape, tensor: Tensor, result: Any) -> Any:
    """The read shape, or the one read size, as lengths that remember their channels.

    One size remembers them only if no other axis has the same size.
    """
    axes = {varying(layer)[0]: layer.reshape(1, -1) for layer in tape.layers(tensor) if len(varying(layer)) == 1}
    if not axes:
        return result
    if isinstance(result, torch.Size):
        return torch.Size([_Length.of(axes[axis]) if axis in axes else size for axis, size in enumerate(result)])
    found = [labels for labels in axes.values() if labels.shape[1] == result]
    return _Length.of(found[0]) if len(found) == 1 and tuple(tensor.shape).count(result) == 1 else result


def _tie_view(tape: Tape, args: Sequence[Any], kwargs: dict[str, Any], out: Tensor, num_splits: int) -> None:
    """Tie the axes of a view to the other channels off which their sizes were read.

    If the view splits an axis, the part whose size is -1 or such a length holds the channels, since the other sizes are
    numbers in the code. `args` are a tensor and its sizes, one by one or in a sequence; `num_splits` is the number of
    splits on the tape before the view.
    """
    sizes = kwargs.get("shape", args[1:])
    sizes = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], list | tuple) else sizes
    shadow = tape.of(out)
    for axis, size in enumerate(sizes):
        if isinstance(size, _Length) or size == -1:
            _keep_along(tape, axis, num_splits)
        if not isinstance(size, _Length):
            continue
        layers = [layer for layer in shadow.layers if layer.shape[axis] > 1]
        if layers and np.isin(layers[-1], size.labels).all():
            continue  # the tensor's own width
        tape.op = "a view to the width of other channels"
        if layers and len(size.labels) == 1:
            tape.equal_lengths.append((tape.vector(layers[-1], axis), size.labels[0], tape.op))
        elif layers:
            tape.unite(tape.vector(layers[-1], axis).reshape(1, -1), size.labels)
        elif shadow.kind is not Kind.CONSTANT:
            tape.protect(np.unique(size.labels), "a tensor of fixed size is viewed to their number")


def _keep_along(tape: Tape, axis: int, num_splits: int) -> None:
    """Note that `axis` holds the channels of the splits from index `num_splits` on that have this axis."""
    for index in range(num_splits, len(tape.splits)):
        if axis in tape.splits[index].axes:
            tape.splits[index] = tape.splits[index]._replace(keep=axis, is_explicit=True)


def _tie_split(tape: Tape, args: Sequence[Any], kwargs: dict[str, Any], parts: Sequence[Tensor]) -> None:
    """Keep parts of a split (tensor, sizes, axis) as long as the other channels off which their size was read."""
    named = {"split_size_or_sizes", "split_size", "split_sizes"} & kwargs.keys()
    sizes = args[1] if len(args) > 1 else kwargs[named.pop()]
    axis = args[2] if len(args) > 2 else kwargs.get("dim", 0)
    for part, size in zip(parts, sizes if isinstance(sizes, list | tuple) else [sizes] * len(parts), strict=True):
        layers = [layer for layer in tape.layers(part) if layer.shape[axis] > 1]
        if isinstance(size, _Length) and len(size.labels) == 1 and part.shape[axis] == size and layers:
            reason = "a split into the width of other channels"
            tape.equal_lengths.append((tape.vector(layers[-1], axis % part.ndim), size.labels[0], reason))
