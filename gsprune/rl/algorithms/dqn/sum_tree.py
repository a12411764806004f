"""A sum tree: proportional sampling and updates in O(log n), vectorised over a whole batch, level by level."""

from __future__ import annotations

import numpy as np

from gsprune.arrays import Float64Array, IntArray
from gsprune.checks import check_whole

__all__ = ["SumTree"]


class SumTree:
    """Non-negative weights over `size` leaves with their partial sums.

    The nodes are in one array: node 1 is the root, the children of node i are 2i and 2i + 1, the leaves are last. Every
    inner node is recomputed from its two children, never adjusted by a difference. So rounding errors do not add up
    over 10^8 updates, and equal leaves always give an equal tree.
    """

    def __init__(self, size: int) -> None:
        """Create a tree with zero weights.

        Args:
            size: number of leaves, >= 1.

        Raises:
            ValueError: `size` < 1.
        """
        check_whole("size", size, at_least=1)
        self.size = size
        self._depth = (size - 1).bit_length()
        self._first_leaf = 1 << self._depth
        self._nodes: Float64Array = np.zeros(2 * self._first_leaf, dtype=np.float64)

    @property
    def total(self) -> float:
        """The sum of all weights."""
        return float(self._nodes[1])

    @property
    def nbytes(self) -> int:
        """Memory of the nodes in bytes."""
        return self._nodes.nbytes

    @property
    def leaves(self) -> Float64Array:
        """(size,) float64 weights, a read-only view."""
        view = self._nodes[self._first_leaf : self._first_leaf + self.size]
        view.flags.writeable = False
        return view

    def set(self, leaves: IntArray, weights: Float64Array) -> None:
        """Give leaves new weights. The last weight of a repeated leaf is used.

        Args:
            leaves: (B,) int64 in [0, size).
            weights: (B,) float64, finite and >= 0.

        Raises:
            ValueError: a leaf is out of range, or a weight is negative or not finite; nothing is changed.
        """
        if len(leaves) == 0:
            return
        if leaves.min() < 0 or leaves.max() >= self.size:
            raise ValueError(f"`leaves` must lie in [0, {self.size}), got {leaves.min()} to {leaves.max()}")
        _check_weights(weights)
        nodes = leaves + self._first_leaf
        # NumPy does not define which of two equal indices wins. Here the last one must.
        if len(np.unique(nodes)) < len(nodes):
            nodes, last = np.unique(nodes[::-1], return_index=True)
            weights = weights[::-1][last]
        self._nodes[nodes] = weights
        for _ in range(self._depth):
            nodes = nodes >> 1
            self._nodes[nodes] = self._nodes[2 * nodes] + self._nodes[2 * nodes + 1]

    def set_range(self, start: int, weights: Float64Array) -> None:
        """Give the leaves start, start + 1, ... new weights, by slices instead of index arrays.

        Args:
            start: first leaf.
            weights: (B,) float64, finite and >= 0.

        Raises:
            ValueError: the range leaves [0, size), or a weight is negative or not finite; nothing is changed.
        """
        if len(weights) == 0:
            return
        if start < 0 or start + len(weights) > self.size:
            raise ValueError(
                f"`start` and `weights` must stay in [0, {self.size}), got {start} to {start + len(weights) - 1}"
            )
        _check_weights(weights)
        low = start + self._first_leaf
        high = low + len(weights)
        self._nodes[low:high] = weights
        for _ in range(self._depth):
            low, high = low >> 1, ((high - 1) >> 1) + 1
            self._nodes[low:high] = self._nodes[2 * low : 2 * high : 2] + self._nodes[2 * low + 1 : 2 * high : 2]

    def find(self, values: Float64Array) -> IntArray:
        """The leaf of each value: the first one whose cumulative sum of weights is above the value.

        Args:
            values: (B,) float64 in [0, total).

        Returns:
            (B,) int64 leaves, each with a positive weight even if rounding moves a value to the next leaf.

        Raises:
            ValueError: all weights are zero.
        """
        if not self._nodes[1] > 0.0:
            raise ValueError("all weights of the sum tree are zero: there is nothing to sample")
        rest = values.astype(np.float64)
        nodes = np.ones(len(values), dtype=np.int64)
        for _ in range(self._depth):
            nodes *= 2
            left = self._nodes[nodes]
            go_right = (rest >= left) & (self._nodes[nodes + 1] > 0.0)
            rest -= np.where(go_right, left, 0.0)
            nodes += go_right
        return nodes - self._first_leaf

    def sample(self, batch_size: int, rng: np.random.Generator) -> IntArray:
        """Draw leaves in proportion to their weights, one from each of `batch_size` equal slices of the total.

        Args:
            batch_size: number of draws, with replacement.
            rng: source of randomness.

        Returns:
            (batch_size,) int64 leaves.

        Raises:
            ValueError: all weights are zero.

        Source: Schaul et al. 2016, appendix B.2.1, https://arxiv.org/abs/1511.05952
        """
        slices = (np.arange(batch_size) + rng.random(batch_size)) / batch_size
        return self.find(slices * self._nodes[1])


def _check_weights(weights: Float64Array) -> None:
    if not (np.isfinite(weights).all() and weights.min() >= 0.0):
        raise ValueError(f"`weights` must be finite and not negative, got {weights.min()} to {weights.max()}")
