"""The bindings refuse whatever does not fit, by name, and never crash."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gsprune import _core

W = torch.ones(4, 3)
KEEP = np.array([0, 2])


def _slice(
    tensors: Any = (W,),
    patterns: Any = (((0, KEEP),),),
    pattern_of: Any = (0,),
    num_threads: int = 1,
    isa: str = "auto",
) -> Any:
    return _core.slice.slice(list(tensors), list(patterns), list(pattern_of), num_threads, isa)


def _sums(
    tensors: Any = (W,),
    axes: Any = ((0,),),
    others: Any = (None,),
    statistic: str = "abs",
    threads: int = 1,
    isa: str = "auto",
) -> Any:
    return _core.score.axis_sums(list(tensors), list(axes), list(others), statistic, threads, isa)


def test_the_defaults_of_these_tests_are_fine() -> None:
    assert _slice()[0].shape == (2, 3)
    assert _sums().tolist() == [3.0, 3.0, 3.0, 3.0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pattern_of": ()}, r"`pattern_of` must have an entry per tensor, that is 1, got 0"),
        ({"pattern_of": (1,)}, r"`pattern_of\[0\]` must lie in \[0, 1\)"),
        ({"pattern_of": (-1,)}, r"`pattern_of\[0\]` must lie in \[0, 1\)"),
        ({"patterns": (((2, KEEP),),)}, r"`patterns\[0\]` has axis 2, which must be < 2, .*`tensors\[0\]`"),
        ({"patterns": (((-1, KEEP),),)}, r"`patterns\[0\]` has axis -1"),
        ({"patterns": (((99, KEEP),),)}, r"`patterns\[0\]` has axis 99"),
        ({"patterns": (((0, KEEP), (0, KEEP)),)}, r"`patterns\[0\]` has axis 0 twice"),
        ({"patterns": (((0, np.array([0, 4])),),)}, r"keeps position 4 of axis 0, which must be < 4"),
        ({"patterns": (((0, np.array([-1, 2])),),)}, r"positions >= 0 .* got -1 at index 0"),
        ({"patterns": (((0, np.array([2, 1])),),)}, r"ascending order without repeats, got 1 at index 1"),
        ({"patterns": (((0, np.array([1, 1])),),)}, r"ascending order without repeats, got 1 at index 1"),
        ({"patterns": (((0, KEEP.astype(np.int32)),),)}, r"contiguous one-dimensional int64"),
        ({"patterns": (((0, KEEP[None]),),)}, r"contiguous one-dimensional int64"),
        ({"patterns": (((0, np.arange(4)[::2]),),)}, r"contiguous one-dimensional int64"),
        ({"patterns": (((0, [0, 2]),),)}, r"contiguous one-dimensional int64"),
        ({"patterns": ((0, KEEP),)}, r"pairs \(axis, positions\)"),
        ({"tensors": ("no tensor",)}, r"`tensors\[0\]` must be a torch.Tensor, got <class 'str'>"),
        ({"tensors": (torch.empty(3, device="meta"),)}, r"`tensors\[0\]` must be a strided CPU tensor"),
        ({"tensors": (W.to_sparse(),)}, r"`tensors\[0\]` must be a strided CPU tensor"),
        ({"tensors": (torch.zeros([1] * 17),)}, r"`tensors\[0\]` must have at most 16 dimensions, got 17"),
        ({"tensors": (torch.tensor(1.0),)}, r"axis 0, which must be < 0"),
        ({"num_threads": 0}, r"`num_threads` must be >= 1, got 0"),
        ({"isa": "sse9"}, r"`isa` must be 'auto'.*got 'sse9'"),
    ],
)
def test_slice_names_what_does_not_fit(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _slice(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"axes": ()}, r"`axes` must have an entry per tensor"),
        ({"others": ()}, r"`others` must have an entry per tensor"),
        ({"axes": ((2,),)}, r"`axes\[0\]` must lie in \[0, 2\), .* got 2"),
        ({"axes": ((-1,),)}, r"`axes\[0\]` must lie in \[0, 2\), .* got -1"),
        ({"axes": ((0, 0),)}, r"`axes\[0\]` has 0 twice"),
        ({"tensors": (W.int(),)}, r"`tensors\[0\]` must be float32, .*got torch.int32"),
        ({"tensors": (W.to(torch.complex64),)}, r"`tensors\[0\]` must be float32, .*got torch.complex64"),
        ({"tensors": (torch.tensor(1.0),)}, r"`tensors\[0\]` must have a dimension"),
        ({"tensors": (None,)}, r"`tensors\[0\]` must be a torch.Tensor, got"),
        ({"statistic": "cube"}, r"`statistic` must be .*got 'cube'"),
        ({"statistic": "product"}, r"`others\[0\]` must be a tensor for this statistic, got None"),
        (
            {"statistic": "product", "others": (W.t(),)},
            r"`others\[0\]` must have the shape and dtype of `tensors\[0\]`",
        ),
        ({"statistic": "product", "others": (W.double(),)}, r"`others\[0\]` must have the shape and dtype"),
        ({"statistic": "product", "others": (3,)}, r"`others\[0\]` must be a torch.Tensor, got"),
        ({"threads": -2}, r"`num_threads` must be >= 1, got -2"),
        ({"isa": ""}, r"`isa` must be 'auto'"),
    ],
)
def test_axis_sums_names_what_does_not_fit(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _sums(**arguments)


def test_an_error_leaves_nothing_behind() -> None:
    big = torch.ones(1200, 600)
    before = _core.memory.pool_use()[0]
    with pytest.raises(ValueError, match="keeps position"):
        _slice(tensors=(big, W), patterns=(((0, np.arange(1000)),),), pattern_of=(0, 0))
    assert _core.memory.pool_use()[0] == before


def test_tensors_that_overlap_each_other_are_only_read() -> None:
    base = torch.arange(24.0).view(4, 6)
    before = base.clone()
    windows = [base.as_strided((3, 4), (6, 1), offset) for offset in (0, 1, 2)]
    windows.append(base.as_strided((5, 5), (1, 2)))
    for got, window in zip(_slice(tensors=windows, pattern_of=(0, 0, 0, 0)), windows, strict=True):
        assert torch.equal(got, window[[0, 2]])
    assert torch.equal(base, before)


def test_lists_changed_by_nobody_may_hold_the_same_tensor_twice() -> None:
    first, second = _slice(tensors=(W, W), pattern_of=(0, 0))
    assert first.data_ptr() != second.data_ptr()


JUNK = st.one_of(
    st.none(),
    st.integers(-3, 20),
    st.text(max_size=3),
    st.sampled_from([W, W.t(), W[::2], W.int(), torch.empty(0, 3), torch.tensor(2.0), W.expand(2, 4, 3), KEEP]),
)
POSITIONS = st.one_of(
    JUNK, st.lists(st.integers(-2, 9), max_size=5).map(lambda xs: np.array(xs, dtype=np.int64)), st.just(KEEP)
)
PATTERN = st.one_of(JUNK, st.lists(st.tuples(st.integers(-2, 4), POSITIONS), max_size=3).map(tuple))


@given(
    tensors=st.lists(JUNK, max_size=3),
    patterns=st.lists(PATTERN, max_size=3),
    pattern_of=st.lists(st.one_of(st.integers(-1, 3), JUNK), max_size=3),
)
def test_any_junk_given_to_slice_is_an_answer_or_a_clean_error(
    tensors: list[Any], patterns: list[Any], pattern_of: list[Any]
) -> None:
    try:
        results = _core.slice.slice(tensors, patterns, pattern_of, 2, "auto")
    except (ValueError, TypeError, RuntimeError):
        return
    for result, tensor, which in zip(results, tensors, pattern_of, strict=True):
        expected = tensor
        for axis, kept in patterns[which]:
            expected = expected.index_select(axis, torch.from_numpy(kept))
        assert torch.equal(result, expected)


@given(
    tensors=st.lists(JUNK, max_size=3),
    axes=st.lists(st.one_of(JUNK, st.lists(st.integers(-1, 3), max_size=3).map(tuple)), max_size=3),
    others=st.lists(JUNK, max_size=3),
    statistic=st.sampled_from(["abs", "product", "nonsense"]),
)
def test_any_junk_given_to_axis_sums_is_an_answer_or_a_clean_error(
    tensors: list[Any], axes: list[Any], others: list[Any], statistic: str
) -> None:
    try:
        sums = _core.score.axis_sums(tensors, axes, others, statistic, 2, "auto")
    except (ValueError, TypeError, RuntimeError):
        return
    lengths = [tensor.shape[axis] for tensor, wanted in zip(tensors, axes, strict=True) for axis in wanted]
    assert len(sums) == sum(lengths)
