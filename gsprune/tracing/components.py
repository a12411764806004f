"""Connected components of the atoms, from the unions, protections and splits on the tape."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gsprune.arrays import IntArray
from gsprune.tracing.shadow import Labels
from gsprune.tracing.tape import OUTPUT, Split, Tape

__all__ = ["Components", "atoms_in", "connected_components", "first_indices"]

_MAX_ROUNDS = 100  # every round settles at least one split; real networks need two or three


class Components:
    """Connected components of the atoms.

    Attributes:
        labels: (num_atoms,) int64; each atom's component, a number below `num_atoms`: its smallest atom.
        first_opening: by component, the atom that was opened first; 0 if no layer makes these channels.
        reasons: by component, index of the first of `tape.protections` that protects it; -1 if none does.
        prunable: by component, True if it is opened and not protected.
    """

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.sources: list[IntArray] = []
        self.targets: list[IntArray] = []
        for a, b, op in tape.pairs:
            self._add(a, b, op)
        self.refresh()

    def _add(self, a: Labels, b: Labels, op: str) -> None:
        """Unite atom by atom; an atom that meets the fixed label is protected."""
        first, second = a.reshape(-1), b.reshape(-1)
        if min(first.min(), second.min()) <= 0:
            for labels, other in ((first, second), (second, first)):
                fixed = labels[(other == 0) & (labels > 0)]
                if len(fixed):
                    self.tape.protect(fixed, f"{op} with channels of fixed number")
            both = (first > 0) & (second > 0)
            first, second = first[both], second[both]
        self.sources.append(first.astype(np.int64))
        self.targets.append(second.astype(np.int64))

    def refresh(self) -> None:
        """Compute components and their flags from the notes on the tape."""
        tape = self.tape
        empty = np.zeros(0, np.int64)
        self.labels = connected_components(
            tape.num_atoms, np.concatenate([empty, *self.sources]), np.concatenate([empty, *self.targets])
        )
        opened = atoms_in(tape.openings)
        self.first_opening = np.append(opened, 0)[first_indices(tape.num_atoms, self.labels[opened])]
        index = np.repeat(np.arange(len(tape.protections)), [labels.size for labels, _ in tape.protections])
        atoms = np.concatenate([empty, *[labels.reshape(-1) for labels, _ in tape.protections]])
        index, atoms = index[atoms > 0], atoms[atoms > 0]
        self.reasons = np.append(index, -1)[first_indices(tape.num_atoms, self.labels[atoms])]
        self.prunable = (self.first_opening > 0) & (self.reasons < 0)

    def settle(self) -> None:
        """Tie vectors that must stay equally long, then parts of split axes until all parts shrink equally."""
        self._settle_lengths()
        pending = list(self.tape.splits)
        for _ in range(_MAX_ROUNDS):
            violated = [split for split in pending if self._violated(split)]
            if not violated:
                break
            for split in violated:
                first = split.labels.max(axis=self._tied_axes(split), keepdims=True)
                pair = np.broadcast_arrays(first, split.labels)
                self._add(pair[0], pair[1], "a split")
            self.refresh()
        else:
            for split in pending:
                if self._violated(split):
                    self.tape.protect(split.labels, "splits that cannot be settled")
            self.refresh()
        self._protect_unconsumed()

    def _protect_unconsumed(self) -> None:
        """Protect channels that no weight and no product sums over: the network's last layers make them.

        The code may store them outside of the call (an attribute, a list), or return values computed from them (their
        sum, their maximum). A part of one channel has no labels. So the channels of splits into a fixed number of parts
        count as consumed.
        """
        parts = [split.labels for split in self.tape.splits if split.fixed_parts]
        consumed = np.zeros(self.tape.num_atoms, bool)
        consumed[self.labels[atoms_in([*self.tape.inputs, *self.tape.contracted, *parts])]] = True
        for layers, how in ((self.tape.stored, "stored outside of it"), (self.tape.openings, "no layer reads them")):
            made = atoms_in(layers)
            unread = made[~consumed[self.labels[made]]]
            if len(unread):
                self.tape.protect(unread.astype(np.int32), f"{OUTPUT}: {how}")
        self.refresh()

    def _settle_lengths(self) -> None:
        """Tie vectors that must stay equally long position by position, unless they hold the same units."""
        violated = [(a, b, op) for a, b, op in self.tape.equal_lengths if not self._hold_same_units(a, b)]
        for a, b, op in violated:
            self._add(a, b, op)
        if violated:
            self.refresh()

    def _hold_same_units(self, a: Labels, b: Labels) -> bool:
        mine, theirs = (self.labels[np.maximum(labels, 0)] for labels in (a, b))
        mine, theirs = mine[self.prunable[mine]], theirs[self.prunable[theirs]]
        return min(a.min(), b.min()) >= 0 and np.array_equal(np.sort(mine), np.sort(theirs))

    def _components_of(self, split: Split) -> IntArray:
        """Component of every label; negative numbers for fixed and flexible labels."""
        return np.where(split.labels > 0, self.labels[np.maximum(split.labels, 0)], split.labels.astype(np.int64) - 1)

    def _varying(self, split: Split) -> list[int]:
        """The axes of the split along which components differ."""
        components = self._components_of(split)
        return [axis for axis in split.axes if (components != components.take([0], axis)).any()]

    def _violated(self, split: Split) -> bool:
        """True if prunable components differ along two axes or more, or between parts whose number the code fixes."""
        components = self._components_of(split)
        atoms = components[components >= 0]
        over = self._varying(split)
        return bool(self.prunable[atoms].any()) and (len(over) > 1 or (split.fixed_parts and split.axes[0] in over))

    def _tied_axes(self, split: Split) -> tuple[int, ...]:
        """All varying axes of the split but the one that holds the channels."""
        over = self._varying(split)
        if split.fixed_parts:
            return split.axes[:1]
        keep = split.keep if split.keep in over else over[-1]
        return tuple(axis for axis in over if axis != keep)


def atoms_in(layers: Sequence[Labels]) -> IntArray:
    """All atoms of some layers, in order."""
    atoms: IntArray = np.concatenate([np.zeros(0, np.int64), *[layer.reshape(-1) for layer in layers]]).astype(np.int64)
    return atoms[atoms > 0]


def first_indices(length: int, keys: IntArray) -> IntArray:
    """(length,) int64, the first index of each number in `keys`; len(keys) for numbers that are not in it."""
    first = np.full(length, len(keys), np.int64)
    np.minimum.at(first, keys, np.arange(len(keys)))
    return first


def connected_components(num_nodes: int, a: IntArray, b: IntArray) -> IntArray:
    """(num_nodes,) the smallest node of every node's component, in the graph with an edge from a[i] to b[i] for all i.

    Source: algorithm S of Liu and Tarjan 2022, https://arxiv.org/abs/1812.06177
    """
    labels = np.arange(num_nodes, dtype=np.int64)
    while True:
        a, b = labels[a], labels[b]
        differs = a != b
        if not differs.any():
            return labels
        a, b = a[differs], b[differs]
        np.minimum.at(labels, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(labels, shorter := labels[labels]):
            labels = shorter
