import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gsprune.rl.algorithms.dqn.sum_tree import SumTree

MAX_EXAMPLES = int(os.environ.get("GSPRUNE_MAX_EXAMPLES", "50"))


class LiteralTree:
    """The definition: a list, a cumulative sum, a loop."""

    def __init__(self, size):
        self.weights = [0.0] * size

    def set(self, leaves, weights):
        for leaf, weight in zip(leaves, weights, strict=True):
            self.weights[leaf] = weight

    def find(self, value):
        for leaf, weight in enumerate(self.weights):
            if value < weight:
                return leaf
            value -= weight
        raise AssertionError("the value is not below the total")


@settings(max_examples=MAX_EXAMPLES, deadline=None)
@given(data=st.data(), size=st.integers(1, 40))
def test_updates_and_lookups_equal_the_literal_tree(data, size):
    tree, literal = SumTree(size), LiteralTree(size)
    # Multiples of 1/4 add without rounding, so both must agree to the bit.
    weight = st.integers(0, 40).map(lambda quarter: quarter / 4)
    for _ in range(data.draw(st.integers(1, 4))):
        leaves = data.draw(st.lists(st.integers(0, size - 1), max_size=10))
        weights = data.draw(st.lists(weight, min_size=len(leaves), max_size=len(leaves)))
        tree.set(np.array(leaves, dtype=np.int64), np.array(weights))
        literal.set(leaves, weights)
        start = data.draw(st.integers(0, size - 1))
        run = data.draw(st.lists(weight, max_size=size - start))
        tree.set_range(start, np.array(run))
        literal.set(range(start, start + len(run)), run)
    assert tree.leaves.tolist() == literal.weights
    assert tree.total == sum(literal.weights)
    if tree.total > 0:
        values = np.arange(0, tree.total, 0.25)
        assert tree.find(values).tolist() == [literal.find(value) for value in values]


def test_of_a_leaf_named_twice_the_last_weight_counts():
    tree = SumTree(5)
    tree.set(np.array([3, 1, 3]), np.array([1.0, 2.0, 7.0]))
    assert tree.leaves.tolist() == [0.0, 2.0, 0.0, 7.0, 0.0]
    assert tree.total == 9.0


def test_a_leaf_of_weight_zero_is_never_found_even_at_the_very_end():
    tree = SumTree(7)
    tree.set(np.array([1, 4]), np.array([0.1, 0.2]))
    values = np.array([0.0, 0.1, np.nextafter(tree.total, 0), tree.total, tree.total * 2])
    assert tree.find(values).tolist() == [1, 4, 4, 4, 4]


def test_sampling_is_proportional_to_the_weights():
    size, draws = 50, 200
    rng = np.random.default_rng(3)
    weights = rng.random(size) * (np.arange(size) % 5 > 0)
    tree = SumTree(size)
    tree.set_range(0, weights)
    counts = np.zeros(size)
    for _ in range(500):
        counts += np.bincount(tree.sample(draws, rng), minlength=size)
    positive = weights > 0
    assert counts[~positive].sum() == 0
    expected = weights[positive] / weights.sum() * counts.sum()
    chi_square = ((counts[positive] - expected) ** 2 / expected).sum()
    # The 99.9 % quantile for 39 degrees of freedom; stratified draws scatter less than independent ones.
    assert chi_square < 72.1


def test_sampling_draws_once_from_every_slice_of_the_total():
    tree = SumTree(8)
    tree.set_range(0, np.ones(8))
    assert tree.sample(8, np.random.default_rng(0)).tolist() == list(range(8))


@pytest.mark.parametrize("weight", [-1.0, np.nan, np.inf])
def test_a_bad_weight_is_refused_and_nothing_changes(weight):
    tree = SumTree(4)
    tree.set_range(0, np.ones(4))
    with pytest.raises(ValueError, match="`weights` must be finite and not negative"):
        tree.set(np.array([0, 1]), np.array([2.0, weight]))
    with pytest.raises(ValueError, match="`weights` must be finite and not negative"):
        tree.set_range(0, np.array([2.0, weight]))
    assert tree.leaves.tolist() == [1.0] * 4


def test_positions_out_of_range_are_refused():
    tree = SumTree(4)
    with pytest.raises(ValueError, match=r"`leaves` must lie in \[0, 4\), got 2 to 4"):
        tree.set(np.array([2, 4]), np.ones(2))
    with pytest.raises(ValueError, match=r"must stay in \[0, 4\), got 3 to 4"):
        tree.set_range(3, np.ones(2))
    with pytest.raises(ValueError, match="`size` must be at least 1, got 0"):
        SumTree(0)


def test_an_empty_tree_cannot_be_sampled():
    with pytest.raises(ValueError, match="all weights of the sum tree are zero"):
        SumTree(3).sample(1, np.random.default_rng(0))
