"""The tape: what the rules write down while the network runs.

Rules unite atoms, open them (a layer's outputs), protect them with a reason, and record splits of an axis, which are
settled when everything is known (`gsprune.tracing.groups`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple
from weakref import ref

import numpy as np
import torch
from torch import nn

from gsprune.tracing.constants import UNEVEN, unmark_noise
from gsprune.tracing.passages import Scale, Step
from gsprune.tracing.shadow import EMPTY, FLEXIBLE, Kind, Labels, Shadow, overlap, row_along, varying

__all__ = ["OUTPUT", "Axis", "MacUse", "Operand", "Split", "Tape", "shared_layers"]

OUTPUT = "output of the network"  # the reason that protects what leaves the traced call; how it leaves may follow
_ATTRIBUTE = "_gsprune_shadow"
_WRITES = "_gsprune_writes"  # how often a tensor has been written to, also through its views
_SEEN = "_gsprune_seen"  # how often it had been when a constant was given its shadow


class Axis(NamedTuple):
    """One axis of a parameter or buffer and the first of its atoms, which are numbered on."""

    tensor: str
    axis: int
    first: int
    size: int


class Split(NamedTuple):
    """An axis that a view or a chunk cut into several: ``labels`` vary over ``axes``, which must shrink independently.

    ``keep`` is the axis along which channels go if the parts have to be tied; ``told`` says that the code named it.
    ``counted`` says that the code counts the parts (a chunk, a slice), so that none of them may go: the first of
    ``axes`` never varies.
    """

    labels: Labels
    axes: tuple[int, ...]
    keep: int
    counted: bool
    told: bool = False


class MacUse(NamedTuple):
    """A weight used `positions` times in the traced call (all examples of the batch together)."""

    weight: str
    positions: float


class Operand(NamedTuple):
    """A tensor's shadow and shape, aligned to the axes of the operation's output."""

    layers: tuple[Labels, ...]
    sizes: tuple[int, ...]
    kind: Kind
    uneven: tuple[int, ...] = ()  # axes of a constant along which its values differ: ``arange``, ``linspace``


class Tape:
    """Atoms and what is known about them.

    Args:
        model: the network; every axis of its parameters and buffers gets atoms.

    Attributes:
        axes: all axes with their atoms, in order; atom 0 is the fixed label.
        aliases: other names of tied tensors -> canonical name.
        copies: submodules that stay in step with another -> the name of the other (`gsprune.tracing.twins`).
        shapes: shape of every parameter and buffer by canonical name.
        unseen: submodules that the call has not run, and that may read channels (`gsprune.tracing.unseen`).
        op: name of the operation at hand, for reasons.
        equal_lengths: (labels, labels, operation) of vectors that the code needs to stay equally long.
        scale: the number that the operation at hand scales by, if it has been found to follow a width.
        ends: layers of weights' products that went into something which is no such product any more.
        contracted: layers over which products of two activations have summed.
        marked: every tensor with channels that the forward has computed, alive or not.
        stored: layers of tensors that are alive after the call without being returned.
        notes_ends: whether that is noted; it is known of what torch's own attention is made of.
    """

    def __init__(self, model: nn.Module) -> None:
        self.axes: list[Axis] = []
        self.aliases: dict[str, str] = {}
        self.copies: dict[str, str] = {}
        self.unseen: tuple[str, ...] = ()
        self.shapes: dict[str, tuple[int, ...]] = {}
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
        self.ends: list[Labels] = []
        self.notes_ends = True
        self.biases: list[tuple[Labels, Labels]] = []
        self.mac_uses: list[MacUse] = []
        self.populations: list[tuple[str, Labels]] = []
        self.steps: list[Step] = []
        self.scale: Scale | None = None
        self.used: set[str] = set()
        self.marked: list[ref[torch.Tensor]] = []
        self.stored: list[Labels] = []
        self._names: dict[int, str] = {}
        self._shadows: dict[str, Shadow] = {}
        self._storages: dict[tuple[int, tuple[int, ...]], str] = {}
        for tensors in (model.named_parameters, model.named_buffers):
            for name, tensor in tensors(remove_duplicate=False):
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
            if size > 1:
                labels = np.arange(self.num_atoms, self.num_atoms + size, dtype=np.int32)
                layers.append(labels.reshape([-1 if i == axis else 1 for i in range(len(shape))]))
            self.num_atoms += size
        shadow = Shadow(layers, Kind.PARAMETER, name)
        if tensor.is_complex() or tensor.is_quantized or tensor.layout != torch.strided:
            for layer in layers:
                self.protect(layer, f"{tensor.dtype} tensors are not pruned")
            shadow = EMPTY
        self._shadows[name] = shadow
        if tensor.numel() and tensor.layout == torch.strided and tensor.device.type != "meta":
            self._storages.setdefault((tensor.data_ptr(), shape), name)

    # -- tensors ------------------------------------------------------------------------------------------------------

    def of(self, tensor: torch.Tensor) -> Shadow:
        """The shadow of any tensor; what was never seen before is fixed."""
        found: Shadow | None = tensor.__dict__.get(_ATTRIBUTE)
        if found is not None:
            if found.kind is Kind.CONSTANT and tensor.__dict__.get(_SEEN, 0) != _writes(tensor):
                return self._overwritten(tensor)
            return found
        name = self.name_of(tensor)
        if name is None:
            return EMPTY
        self.used.add(name)
        return self._shadows[name]

    @staticmethod
    def layers(tensor: torch.Tensor) -> tuple[Labels, ...]:
        """The layers of a tensor that the forward has computed; none of parameters, which do not count as used."""
        found: Shadow | None = tensor.__dict__.get(_ATTRIBUTE)
        return () if found is None else found.layers

    def name_of(self, tensor: torch.Tensor) -> str | None:
        """The canonical name of a parameter or buffer, also through ``.data`` and ``detach``; None of other tensors."""
        name = self._names.get(id(tensor))
        if name is None and tensor.numel() > 1 and tensor.layout == torch.strided and not tensor.is_quantized:
            name = self._storages.get((tensor.data_ptr(), tuple(tensor.shape)))
        return name

    def is_known(self, tensor: torch.Tensor) -> bool:
        """Whether the tensor has a shadow of its own, so that a rule must look at the operation."""
        return _ATTRIBUTE in tensor.__dict__ or self.name_of(tensor) is not None

    def mark(self, tensor: torch.Tensor, shadow: Shadow) -> None:
        """Give a tensor its shadow. It lives on the tensor itself, and so exactly as long."""
        name = self._names.get(id(tensor))
        if name is not None:
            self._shadows[name] = shadow
        elif shadow is EMPTY or (shadow.kind is Kind.ACTIVATION and shadow.is_plain):
            tensor.__dict__.pop(_ATTRIBUTE, None)
        else:
            tensor.__dict__[_ATTRIBUTE] = shadow
            if shadow.kind is Kind.CONSTANT:
                tensor.__dict__[_SEEN] = _writes(tensor)
            elif shadow.kind is Kind.ACTIVATION:
                self.marked.append(ref(tensor))

    @staticmethod
    def count_write(tensor: torch.Tensor) -> None:
        """Note that a tensor that is no view holds something else from now on."""
        tensor.__dict__[_WRITES] = tensor.__dict__.get(_WRITES, 0) + 1

    def _overwritten(self, tensor: torch.Tensor) -> Shadow:
        """What was a constant when it was made, and has been written to behind its back since: through another view."""
        base = tensor._base
        if base is None or base is tensor:
            return EMPTY
        shadow = self.of(base)
        layers = shared_layers(base, tensor, shadow.layers)
        if layers is not None:
            return Shadow(layers, shadow.kind)
        self.protect_shadow(shadow, "written into a tensor of which the code holds a part")
        return EMPTY

    @staticmethod
    def unmark(tensor: torch.Tensor) -> None:
        """Take the shadow from a tensor that outlives the trace."""
        for name in (_ATTRIBUTE, _WRITES, _SEEN):
            tensor.__dict__.pop(name, None)
        unmark_noise(tensor)

    def note_ends(self, inputs: Sequence[Shadow], outputs: Sequence[Shadow]) -> None:
        """Note the products of weights among an operation's inputs that are none any more among its outputs."""
        for shadow in inputs if self.notes_ends else ():
            is_product = shadow.source and shadow.kind is Kind.ACTIVATION
            if is_product and all(output.source != shadow.source for output in outputs):
                self.ends.extend(shadow.layers)

    # -- atoms --------------------------------------------------------------------------------------------------------

    def unite(self, a: Labels, b: Labels) -> Labels:
        """Unite two layers element by element (broadcast); what one leaves fixed protects the other.

        Returns:
            a layer that stands for both: the smaller one where all its labels are atoms.
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
        """Tie a layer along `axes`, where it has size 1 afterwards."""
        axes = tuple(axis for axis in axes if layer.shape[axis] > 1)
        if not axes:
            return layer
        first: Labels = layer.max(axis=axes, keepdims=True)
        self.unite(first, layer)
        return first

    def protect(self, labels: Labels, reason: str) -> None:
        """Never prune these atoms."""
        self.protections.append((labels, reason))

    def protect_shadow(self, shadow: Shadow, reason: str) -> None:
        """Never prune any atom of a tensor, nor of an axis whose positions are its values."""
        for layer in (*shadow.layers, *shadow.positions):
            self.protections.append((layer, reason))

    def population(self, layers: Iterable[Labels]) -> None:
        """The operation at hand reads all these channels together, so that a removed one differs from one of zeros."""
        self.populations.extend((self.op, layer) for layer in layers if layer.max() > 0)

    def open(self, labels: Labels) -> None:
        """These atoms are channels that a layer makes."""
        self.openings.append(labels)

    def labels(self, tensor: str, axis: int) -> Labels:
        """All atoms of one axis of a parameter or buffer: (size,) labels."""
        found = next(item for item in self.axes if item.tensor == tensor and item.axis == axis)
        return np.arange(found.first, found.first + found.size, dtype=np.int32)

    def count(self, weight: str, positions: float) -> None:
        """Note that every element of a weight was used `positions` times, for all examples together."""
        self.mac_uses.append(MacUse(weight, positions))

    def vector(self, layer: Labels, axis: int) -> Labels:
        """A layer that varies over `axis`, as (size,) labels: ties it along all its other axes."""
        rest = [other for other in varying(layer) if other != axis]
        return self.collapse(layer, rest).reshape(-1)

    def split(self, labels: Labels, axes: tuple[int, ...], keep: int | None = None, *, counted: bool = False) -> None:
        """Record that one axis was cut into `axes`; by default channels go along the last of them."""
        self.splits.append(Split(labels, axes, axes[-1] if keep is None else keep, counted))

    def kept_axis(self, layer: Labels, *, told: bool = False) -> int | None:
        """The axis along which channels go, of a layer that a split made vary over several axes; None if none did.

        Args:
            layer: the split's labels, or the same with axes in another order or more of size 1.
            told: only of splits whose axis the code named.
        """
        over = varying(layer)
        rows = {axis: row_along(layer, axis) for axis in over}
        for split in reversed(self.splits):
            if split.labels.size == layer.size and (split.told or not told):
                kept = row_along(split.labels, split.keep)
                for axis, row in rows.items():
                    if np.array_equal(row, kept):
                        return axis
        return None

    # -- element-wise -------------------------------------------------------------------------------------------------

    def merge(self, operands: Sequence[Operand]) -> list[Labels]:
        """The layers of an element-wise result (broadcast): layers that overlap are united.

        A layer meeting another operand that is full-size along it without varying there cannot shrink: it is
        protected, or, if it varies over other axes too, tied along the fixed ones.
        """
        merged: list[Labels] = []
        for index, operand in enumerate(operands):
            layers = [self._meet_fixed(layer, index, operands) for layer in operand.layers]
            fresh: list[Labels] = []  # of one operand, several may vary over an axis that a view has joined
            for layer in self._one_peroverlap([layer for layer in layers if layer is not None], merged):
                if any(overlap(layer, other) for other in merged):
                    merged = self._join(merged, layer)
                else:
                    fresh.append(layer)
            merged += fresh
        return merged

    def _meet_fixed(self, layer: Labels, index: int, operands: Sequence[Operand]) -> Labels | None:
        """What is left of a layer when the other operands' fixed axes have been respected."""
        for other_index, other in enumerate(operands):
            if other_index == index:
                continue
            axes = varying(layer)
            if other.kind is Kind.CONSTANT:
                uneven = [axis for axis in axes if axis in other.uneven]
                if len(uneven) == len(axes):
                    self.protect(layer, f"{self.op} with {UNEVEN}")
                    return None
                layer = self.collapse(layer, uneven)
                continue
            if any(candidate.shape[axis] > 1 for candidate in other.layers for axis in axes):
                continue
            full = [axis for axis in axes if other.sizes[axis] > 1]
            if len(full) == len(axes):
                self.protect(layer, f"{self.op} with a tensor of fixed size")
                return None
            layer = self.collapse(layer, full)
        return layer

    def _one_peroverlap(self, layers: list[Labels], merged: Sequence[Labels]) -> list[Labels]:
        """Where several layers of one operand overlap a layer of another, the last axis is the channels'."""
        for other in merged:
            overlapping = [layer for layer in layers if overlap(layer, other)]
            layers = self._drop_all_but_last(layers, overlapping)
        return layers

    def _drop_all_but_last(self, layers: list[Labels], overlapping: list[Labels]) -> list[Labels]:
        """`layers` without the protected ones among `overlapping`: all but the first with the last axis."""
        if len(overlapping) < 2:
            return layers
        kept = max(overlapping, key=lambda layer: varying(layer)[-1])
        for layer in overlapping:
            if layer is not kept:
                self.protect(layer, f"{self.op}: another axis holds the channels")
        return [layer for layer in layers if layer is kept or not any(layer is other for other in overlapping)]

    def _join(self, merged: list[Labels], layer: Labels) -> list[Labels]:
        """`merged` with one more layer, united with the one it overlaps."""
        overlapping = [other for other in merged if overlap(layer, other)]
        merged = self._drop_all_but_last(merged, overlapping)
        for index, other in enumerate(merged):
            if overlap(layer, other):
                merged[index] = self.unite(other, layer)
                return merged
        return merged


def shared_layers(one: torch.Tensor, other: torch.Tensor, layers: Sequence[Labels]) -> tuple[Labels, ...] | None:
    """Layers of a tensor as those of another one in the same memory.

    Args:
        one: a tensor, or a view of `other`.
        other: a view of `one`, or the tensor behind it.
        layers: those of `one`; labels of any size are left out.

    Returns:
        the layers, or None where one of them varies over something else than an axis that both have whole.
    """
    axis_by_step = {(other.stride(axis), size): axis for axis, size in enumerate(other.shape) if size > 1}
    found = []
    for layer in layers:
        over = varying(layer)
        if layer.max() == FLEXIBLE:
            continue
        axis = axis_by_step.get((one.stride(over[0]), one.shape[over[0]])) if len(over) == 1 else None
        if axis is None:
            return None
        found.append(layer.reshape([-1 if index == axis else 1 for index in range(other.ndim)]))
    return tuple(found)


def _writes(tensor: torch.Tensor) -> int:
    """How often the tensor, or the one behind it, has been written to."""
    count: int = (tensor if tensor._base is None else tensor._base).__dict__.get(_WRITES, 0)
    return count
