"""Compressed labels behave as whole arrays do."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gsprune.tracing.shadow import compressed, reshaped, varying

SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4)


@st.composite
def factorised(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Two shapes of the same number of elements: products of the same primes, in other groupings."""
    primes = draw(st.lists(st.sampled_from([1, 2, 2, 3]), min_size=1, max_size=6))

    def grouped() -> list[int]:
        cuts = sorted(draw(st.lists(st.integers(0, len(primes)), max_size=4)))
        bounds = [0, *cuts, len(primes)]
        return [int(np.prod(primes[a:b], dtype=np.int64)) for a, b in itertools.pairwise(bounds)]

    return grouped(), grouped()


@given(factorised(), st.data())
def test_a_reshaped_layer_labels_every_element_as_the_whole_array_would(
    shapes: tuple[list[int], list[int]], data: st.DataObject
) -> None:
    old, new = shapes
    sizes = [size if data.draw(st.booleans()) else 1 for size in old]
    layer = np.arange(1, np.prod(sizes, dtype=np.int64) + 1, dtype=np.int32).reshape(sizes)
    result, splits = reshaped(layer, old, new)
    assert np.array_equal(np.broadcast_to(result, new), np.broadcast_to(layer, old).reshape(new))
    assert result.ndim == len(new)
    assert all(set(axes) <= set(varying(result)) and len(axes) > 1 for axes in splits)


@given(SHAPES, st.data())
def test_compression_keeps_every_label_and_cuts_constant_axes(shape: list[int], data: st.DataObject) -> None:
    sizes = [size if data.draw(st.booleans()) else 1 for size in shape]
    whole = np.broadcast_to(np.arange(np.prod(sizes, dtype=np.int64), dtype=np.int32).reshape(sizes), shape)
    small = compressed(whole, range(len(shape)))
    assert list(small.shape) == sizes
    assert np.array_equal(np.broadcast_to(small, shape), whole)


def test_a_split_is_reported_where_two_of_its_axes_vary() -> None:
    layer = np.arange(1, 13, dtype=np.int32).reshape(1, 12)
    assert reshaped(layer, (5, 12), (5, 3, 4))[1] == [(1, 2)]
    repeated = np.repeat(np.arange(1, 4, dtype=np.int32), 4).reshape(1, 12)
    result, splits = reshaped(repeated, (5, 12), (5, 3, 4))
    assert (result.shape, splits) == ((1, 3, 1), [])
