"""The tape: the notes that rules make while the network runs.

Rules unite atoms, open them (a layer's outputs), protect them with a reason, and record splits of an axis.
`gsprune.tracing.components` evaluates the notes after the call.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple
from weakref import ref

import numpy as np
import torch
from torch import nn
from torch._C._functorch import is_functorch_wrapped_tensor

from gsprune.tracing.marks import ensure_mark, mark_of, num_writes
from gsprune.tracing.names import named_tensors
from gsprune.tracing.originals import Originals
from gsprune.tracing.shadow import EMPTY, FLEXIBLE, Kind, Labels, Shadow, row_along, varying
from gsprune.tracing.trail import Scale, TracedOperation

__all__ = ["OUTPUT", "Axis", "Split", "Tape", "shared_layers"]

OUTPUT = "output of the network"  # start of the reasons that protect tensors which leave the traced call


class Axis(NamedTuple):
    """One axis of a parameter or buffer. Its atoms are numbered from `first`."""

    tensor: str
    axis: int
    first: int
    size: int


class Split(NamedTuple):
    """An axis that a view or a chunk has split into several. Channels may vary along one of them only.

    Attributes:
        labels: the layer after the split. It varies over `axes`.
        axes: the axes after the split.
        keep: the axis along which channels are removed if the others must be tied.
        fixed_parts: True if the code fixes the number of parts (chunk, slice), so the first of `axes` never shrinks.
        is_explicit: True if the code determines `keep` by a size of -1 or a size read off a shape.
    """

    labels: Labels
    axes: tuple[int, ...]
    keep: int
    fixed_parts: bool
    is_explicit: bool = False


class Tape:
    """Atoms, and the notes on them.

    Args:
        model: the network; every axis of its parameters and buffers gets atoms.

    Attributes:
        axes: all axes with their atoms, in order.
        num_atoms: number of atoms; atom 0 is the fixed label.
        aliases: other names of tied tensors -> canonical name.
        copies: submodules that stay in step with another -> the name of the other (`gsprune.tracing.copies`).
        shapes: shape of every parameter and buffer by canonical name.
        used: canonical names of the tensors that the call has read.
        unseen: submodules that the call has not run, and that may read channels (`gsprune.tracing.unseen`).
        op: name of the running operation, for reasons.
        pairs: (labels, labels, operation) that were united.
        protections: (labels, reason).
        openings: layers whose channels a weight makes.
        inputs: layers whose channels a weight consumes.
        contracted: layers over which a product has summed.
        heads: layers over the heads of attention.
        splits: the splits of axes.
        equal_lengths: (labels, labels, operation) of vectors that must stay equally long.
        queries: rows of weights and biases that make the queries of scaled attention.
        biases: (layer of a product, layer of the bias that was added to it).
        inside_attention: True while torch's own attention runs.
        attention_scale: the `scale` argument of the running attention.
        populations: (operation, layer) of channels that were read together.
        unweighted: layers over channels that were summed without a weight of the network.
        weight_uses: weight -> number of uses of each of its elements, over the whole batch.
        trail: the operations in order.
        training_trail: the operations of the forward in training mode; empty if it does not run, or has no other path.
        scale: the factor by which the running operation scales, if it follows a width.
        marked: references to every tensor with channels that the forward has computed; a tensor may be deleted.
        stored: layers of tensors that are alive after the call without being returned.
        originals: restores parameters that the forward writes to.
    """

    def __init__(self, model: nn.Module) -> None:
        self.axes: list[Axis] = []
        self.aliases: dict[str, str] = {}
        self.copies: dict[str, str] = {}
        self.unseen: tuple[str, ...] = ()
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.used: set[str] = set()
        self.num_atoms = 1
        self.op = ""
        self.pairs: list[tuple[Labels, Labels, str]] = []
        self.protections: list[tuple[Labels, str]] = []
        self.openings: list[Labels] = []
        self.inputs: list[Labels] = []
        self.contracted: list[Labels] = []
        self.heads: list[Labels] = []
        self.splits: list[Split] = []
        self.equal_lengths: list[tuple[Labels, Labels, str]] = []
        self.queries: list[Labels] = []
        self.biases: list[tuple[Labels, Labels]] = []
        self.inside_attention = False
        self.attention_scale: Scale | None = None
        self.populations: list[tuple[str, Labels]] = []
        self.unweighted: list[Labels] = []
        self.weight_uses: dict[str, float] = {}
        self.trail: list[TracedOperation] = []
        self.training_trail: list[TracedOperation] = []
        self.scale: Scale | None = None
        self.marked: list[ref[torch.Tensor]] = []
        self.stored: list[Labels] = []
        self.originals: Originals | None = None
        self._names: dict[int, str] = {}
        self._shadows: dict[str, Shadow] = {}
        self._labels: dict[tuple[str, int], Labels] = {}
        self._storages: dict[tuple[int, tuple[int, ...]], str] = {}
        for name, tensor in named_tensors(model).items():
            self._register(name, tensor)

    def _register(self, name: str, tensor: torch.Tensor) -> None:
        """Give every axis of a parameter or buffer its atoms."""
        canonical = self._names.get(id(tensor))
        if canonical is not None:
            self.aliases[name] = canonical
            return
        self._names[id(tensor)] = name
        shape = tuple(tensor.shape)
        self.shapes[name] = shape
        layers = []
        for axis, size in enumerate(shape):
            self.axes.append(Axis(name, axis, self.num_atoms, size))
            labels = np.arange(self.num_atoms, self.num_atoms + size, dtype=np.int32)
            self._labels[name, axis] = labels
            if size > 1:
                layers.append(labels.reshape([-1 if i == axis else 1 for i in range(len(shape))]))
            self.num_atoms += size
        shadow = Shadow(layers, Kind.PARAMETER, name)
        is_strided = tensor.layout == torch.strided
        if tensor.is_complex() or tensor.is_quantized or not is_strided:
            self.protect(shadow, f"{tensor.dtype} tensors are not pruned")
            shadow = EMPTY
        self._shadows[name] = shadow
        if tensor.numel() and is_strided and tensor.device.type != "meta":
            self._storages.setdefault((tensor.data_ptr(), shape), name)

    # -- tensors ------------------------------------------------------------------------------------------------------

    def of(self, tensor: torch.Tensor) -> Shadow:
        """The shadow of any tensor; `EMPTY` for a tensor that the tracer has not seen."""
        mark = mark_of(tensor)
        if mark is not None and mark.shadow is not None:
            if mark.shadow.kind is Kind.CONSTANT and mark.writes_before != num_writes(tensor):
                return self._overwritten(tensor)
            return mark.shadow
        name = self.name_of(tensor)
        if name is None:
            return EMPTY
        self.used.add(name)
        return self._shadows[name]

    @staticmethod
    def layers(tensor: torch.Tensor) -> Sequence[Labels]:
        """The layers of a tensor that the forward has computed; none of parameters, which do not count as used."""
        mark = mark_of(tensor)
        return () if mark is None or mark.shadow is None else mark.shadow.layers

    def name_of(self, tensor: torch.Tensor) -> str | None:
        """The canonical name of a parameter or buffer, also through ``.data`` and ``detach``; None of other tensors."""
        name = self._names.get(id(tensor))
        if (
            name is None
            and tensor.numel() > 1
            and tensor.layout == torch.strided
            and not tensor.is_quantized
            and not is_functorch_wrapped_tensor(tensor)  # such a tensor has no storage
        ):
            name = self._storages.get((tensor.data_ptr(), tuple(tensor.shape)))
        return name

    def canonical(self, name: str) -> str:
        """The canonical name of a parameter or buffer that may be tied to another."""
        return self.aliases.get(name, name)

    def is_used(self, name: str) -> bool:
        """True if the call has read this parameter or buffer, under any of its names."""
        return self.canonical(name) in self.used

    def has_shadow(self, tensor: torch.Tensor) -> bool:
        """True if the tensor has a shadow, so that operations on it need a rule."""
        mark = mark_of(tensor)
        return (mark is not None and mark.shadow is not None) or self.name_of(tensor) is not None

    def mark(self, tensor: torch.Tensor, shadow: Shadow) -> None:
        """Give a tensor its shadow."""
        name = self._names.get(id(tensor))
        if name is not None:
            self._shadows[name] = shadow
        elif shadow is EMPTY or (shadow.kind is Kind.ACTIVATION and shadow.is_plain):
            mark = mark_of(tensor)
            if mark is not None:
                mark.shadow = None
        else:
            mark = ensure_mark(tensor)
            mark.shadow, mark.writes_before = shadow, num_writes(tensor)
            if shadow.kind is Kind.ACTIVATION:
                self.marked.append(ref(tensor))

    def _overwritten(self, tensor: torch.Tensor) -> Shadow:
        """The shadow of a constant that was written to through another view after it got its shadow."""
        base = tensor._base
        if base is None or base is tensor:
            return EMPTY
        shadow = self.of(base)
        layers = shared_layers(base, tensor, shadow.layers)
        if layers is not None:
            return Shadow(layers, shadow.kind)
        self.protect(shadow, "written into a tensor of which the code holds a part")
        return EMPTY

    @contextmanager
    def without_trail(self) -> Iterator[None]:
        """A block whose operations count neither in the trail nor in the MACs."""
        operations, uses = len(self.trail), dict(self.weight_uses)
        yield
        del self.trail[operations:]
        self.weight_uses = uses

    @contextmanager
    def discarded_on_error(self) -> Iterator[None]:
        """A block whose notes are dropped if it raises an error."""
        notes = {name: value.copy() for name, value in vars(self).items() if isinstance(value, list | dict | set)}
        try:
            yield
        except Exception:
            vars(self).update(notes)
            raise

    # -- verbs for rules ----------------------------------------------------------------------------------------------

    def unite(self, a: Labels, b: Labels) -> Labels:
        """Unite two layers element by element (broadcast); fixed labels of one protect the other.

        Returns:
            a layer that represents both: the smaller one if all its labels are atoms.
        """
        if a is b:
            return a
        if a.shape == b.shape:
            self.pairs.append((a, b, self.op))
            return a if a.min() > 0 else np.maximum(a, b)
        full_a, full_b = np.broadcast_arrays(a, b)
        self.pairs.append((full_a, full_b, self.op))
        small = a if a.size <= b.size else b
        return small if small.min() > 0 else np.maximum(full_a, full_b)

    def collapse(self, layer: Labels, axes: Iterable[int]) -> Labels:
        """Tie a layer along `axes`, which then have size 1."""
        axes = tuple(axis for axis in axes if layer.shape[axis] > 1)
        if not axes:
            return layer
        first: Labels = layer.max(axis=axes, keepdims=True)
        self.unite(first, layer)
        return first

    def collapse_parts(self, vector: Labels, parts: int) -> Labels:
        """Tie equal parts of a vector position by position: (size,) labels become (size / parts,)."""
        return self.collapse(vector.reshape(parts, -1), [0]).reshape(-1)

    def vector(self, layer: Labels, axis: int) -> Labels:
        """A layer that varies over `axis`, as (size,) labels: ties it along all its other axes."""
        return self.collapse(layer, [other for other in varying(layer) if other != axis]).reshape(-1)

    def open(self, labels: Labels) -> None:
        """Note that these atoms are channels that a layer makes."""
        self.openings.append(labels)

    def protect(self, channels: Labels | Shadow, reason: str) -> None:
        """Never prune the atoms of a layer, or of a shadow's layers and positions."""
        layers = (*channels.layers, *channels.positions) if isinstance(channels, Shadow) else (channels,)
        self.protections.extend((layer, reason) for layer in layers)

    def protect_along(self, shadow: Shadow, axes: Iterable[int], reason: str) -> Shadow:
        """Protect the layers that vary over one of `axes`.

        Returns:
            the shadow without them.
        """
        axes, rest = tuple(axes), []
        for layer in shadow.layers:
            if any(layer.shape[axis] > 1 for axis in axes):
                self.protect(layer, reason)
            else:
                rest.append(layer)
        return shadow.with_layers(rest)

    def population(self, layers: Iterable[Labels]) -> None:
        """Note that the operation reads channels as a population: removing one differs from setting it to zero."""
        self.populations.extend((self.op, layer) for layer in layers if layer.max() > 0)

    def count(self, weight: str | None, positions: float) -> None:
        """Count a weight's MACs: every element was used `positions` times over the whole batch."""
        if weight is not None:
            self.weight_uses[weight] = self.weight_uses.get(weight, 0.0) + positions

    def split(self, labels: Labels, axes: tuple[int, ...], *, fixed_parts: bool = False) -> None:
        """Record that one axis was split into `axes`; the last of them is to hold the channels."""
        self.splits.append(Split(labels, axes, axes[-1], fixed_parts))

    def kept_axis(self, layer: Labels, *, explicit_only: bool = False) -> int | None:
        """The axis that holds the channels of a layer that varies over several axes; None if no split made the layer.

        Args:
            layer: the labels of a split, perhaps with permuted axes or more axes of size 1.
            explicit_only: True to look only at splits whose axis the code determines.
        """
        rows = {axis: row_along(layer, axis) for axis in varying(layer)}
        for split in reversed(self.splits):
            if split.labels.size == layer.size and (split.is_explicit or not explicit_only):
                kept = row_along(split.labels, split.keep)
                for axis, row in rows.items():
                    if np.array_equal(row, kept):
                        return axis
        return None

    def labels(self, tensor: str, axis: int) -> Labels:
        """All atoms of one axis of a parameter or buffer: (size,) labels."""
        return self._labels[tensor, axis]


def shared_layers(one: torch.Tensor, other: torch.Tensor, layers: Sequence[Labels]) -> tuple[Labels, ...] | None:
    """The layers of one tensor, converted to another tensor in the same memory.

    Args:
        one: a view of `other`, or its base.
        other: the base, or the view.
        layers: those of `one`. Layers of flexible labels are dropped.

    Returns:
        the layers of `other`, or None if a layer varies over an axis that `other` does not have in full length.
    """
    axis_by_stride = {(other.stride(axis), size): axis for axis, size in enumerate(other.shape) if size > 1}
    found = []
    for layer in layers:
        over = varying(layer)
        if layer.max() == FLEXIBLE:
            continue
        axis = axis_by_stride.get((one.stride(over[0]), one.shape[over[0]])) if len(over) == 1 else None
        if axis is None:
            return None
        found.append(layer.reshape([-1 if index == axis else 1 for index in range(other.ndim)]))
    return tuple(found)
