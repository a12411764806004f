"""Odd tensors and odd arrays, drawn at random: the core answers as torch does, or refuses; it never crashes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_features import needs_exchange_table

from gsprune import _core

W = torch.ones(3, 2)
REFUSED = (ValueError, TypeError, RuntimeError, BufferError)
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool)

View = Callable[[torch.Tensor], torch.Tensor]

# Views that share memory with a dense tensor in every way that torch allows.
VIEWS: dict[str, View] = {
    "itself": lambda t: t,
    "transposed": lambda t: t.transpose(0, -1),
    "every other": lambda t: t[::2],
    "from an offset": lambda t: t[1:],
    "expanded": lambda t: t[:1].expand(5, *t.shape[1:]),
    "a new axis": lambda t: t.unsqueeze(1),
    "overlapping windows": lambda t: t.flatten().unfold(0, min(3, t.numel()), 1) if t.numel() else t,
    "flipped": lambda t: t.flip(0),
    "an empty axis": lambda t: t[:0],
    "requires grad": lambda t: t.clone().requires_grad_() if t.is_floating_point() else t,
    "a graph's result": lambda t: t.clone().requires_grad_() * 2 if t.is_floating_point() else t,
    "channels last": lambda t: t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t,
}

# What the core cannot read as memory, or must not.
STRANGERS: dict[str, Callable[[], Any]] = {
    "conjugated": lambda: torch.ones(3, 2, dtype=torch.complex64).conj(),
    "negated": lambda: torch.ones(3, 2, dtype=torch.complex64).conj().imag,
    "sparse": lambda: torch.eye(3).to_sparse(),
    "on no device": lambda: torch.ones(3, 2, device="meta"),
    "an array": lambda: np.ones((3, 2), np.float32),
    "a list": lambda: [[1.0, 2.0]],
    "nothing": lambda: None,
}


@st.composite
def odd_tensors(draw: st.DrawFn) -> torch.Tensor:
    """A tensor of one to four axes, of a few elements, seen through one or two views."""
    shape = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    tensor = torch.randint(0, 100, shape, generator=generator).to(draw(st.sampled_from(DTYPES)))
    for name in draw(st.lists(st.sampled_from(sorted(VIEWS)), max_size=2)):
        tensor = VIEWS[name](tensor)
        if tensor.ndim == 0 or tensor.shape[0] == 0:
            break
    return tensor


@st.composite
def kept(draw: st.DrawFn, size: int) -> np.ndarray:
    """Positions of an axis: all, none, all but one, one alone, or any."""
    everything = np.arange(size, dtype=np.int64)
    which = draw(st.sampled_from(["all", "none", "all but one", "one", "any"]))
    if size == 0 or which == "all":
        return everything
    position = draw(st.integers(0, size - 1))
    if which == "none":
        return everything[:0]
    if which == "one":
        return everything[position : position + 1].copy()
    if which == "all but one":
        return np.delete(everything, position)
    mask = np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    return everything[mask]


@given(tensor=odd_tensors(), data=st.data(), isa=st.sampled_from(["plain", "auto"]))
def test_any_view_of_any_dtype_is_sliced_as_torch_does(tensor: torch.Tensor, data: st.DataObject, isa: str) -> None:
    axes = data.draw(st.lists(st.integers(0, tensor.ndim - 1), unique=True))
    pattern = tuple((axis, data.draw(kept(tensor.shape[axis]))) for axis in axes)
    before = tensor.detach().clone()
    (got,) = _core.slice.slice([tensor], [pattern], [0], data.draw(st.integers(1, 3)), isa)
    expected = before
    for axis, positions in pattern:
        expected = expected.index_select(axis, torch.from_numpy(positions))
    assert torch.equal(got, expected)
    assert got.dtype == tensor.dtype
    assert not got.requires_grad
    assert got.untyped_storage().nbytes() == got.numel() * got.element_size()
    assert torch.equal(tensor.detach(), before)


@given(tensor=odd_tensors(), data=st.data(), isa=st.sampled_from(["plain", "auto"]))
def test_any_view_is_summed_as_torch_does_or_refused_by_its_dtype(
    tensor: torch.Tensor, data: st.DataObject, isa: str
) -> None:
    axes = tuple(data.draw(st.lists(st.integers(0, tensor.ndim - 1), unique=True)))
    if not tensor.is_floating_point():
        with pytest.raises(ValueError, match=r"`tensors\[0\]` must be float32"):
            _core.score.axis_sums([tensor], [axes], [None], "abs", 2, isa)
        return
    other = VIEWS[data.draw(st.sampled_from(["itself", "requires grad"]))](tensor.detach().flip(0))
    sums = _core.score.axis_sums([tensor], [axes], [other], "product", 2, isa)
    product = tensor.detach().double() * other.detach().double()
    ends = np.cumsum([tensor.shape[axis] for axis in axes], dtype=int)
    for axis, got in zip(axes, np.split(sums, ends[:-1]), strict=bool(axes)):
        expected = product.movedim(axis, 0).flatten(1).sum(1) if tensor.ndim > 1 else product
        np.testing.assert_array_equal(got, expected.numpy())  # whole numbers: sums are exact


@pytest.mark.parametrize("name", STRANGERS)
def test_what_is_no_memory_of_numbers_is_refused_by_name(name: str) -> None:
    stranger = STRANGERS[name]()
    keep = np.array([0], dtype=np.int64)
    with pytest.raises(REFUSED, match=r"`tensors\[1\]`"):
        _core.slice.slice([torch.ones(2, 2), stranger], [((0, keep),)], [0, 0], 1, "auto")
    with pytest.raises(REFUSED, match=r"`tensors\[1\]`"):
        _core.score.axis_sums([torch.ones(2, 2), stranger], [(0,), (0,)], [None, None], "abs", 1, "auto")


def _misaligned(values: np.ndarray) -> np.ndarray:
    """The same numbers at an address that is no multiple of their size."""
    raw = np.zeros(values.nbytes + 1, np.uint8)
    raw[1:] = values.view(np.uint8)
    return raw[1:].view(values.dtype)


def _read_only(values: np.ndarray) -> np.ndarray:
    values = values.copy()
    values.flags.writeable = False
    return values


ARRAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "read-only": _read_only,
    "misaligned": _misaligned,
    "of the other byte order": lambda values: values.astype(values.dtype.newbyteorder()),
    "with gaps": lambda values: np.repeat(values, 2)[::2],
    "backwards": lambda values: values[::-1].copy()[::-1],
    "of two axes": lambda values: values[None],
    "of floats": lambda values: values.astype(np.float64),
    "unsigned": lambda values: values.astype(np.uint64),
    "of objects": lambda values: values.astype(object),
    "empty": lambda values: values[:0],
}


@pytest.mark.parametrize("name", ARRAYS)
def test_positions_in_odd_arrays_are_read_right_or_refused(name: str) -> None:
    positions = ARRAYS[name](np.array([0, 2, 3], dtype=np.int64))
    tensor = torch.arange(20.0).view(5, 4)
    if name in ("read-only", "empty"):
        (got,) = _core.slice.slice([tensor], [((0, positions),)], [0], 1, "auto")
        assert torch.equal(got, tensor[positions.tolist()])
        return
    with pytest.raises(ValueError, match=r"`patterns\[0\]`"):
        _core.slice.slice([tensor], [((0, positions),)], [0], 1, "auto")


@pytest.mark.parametrize("name", ARRAYS)
def test_scores_in_odd_arrays_are_read_right_or_refused(name: str) -> None:
    scores = ARRAYS[name](np.array([3.0, 1.0, 2.0], dtype=np.float32))
    try:
        bounds, kept = np.array([0, scores.size]), np.array([2 if scores.size else 0])
        chosen = np.flatnonzero(_core.select.select_groups(scores, bounds, kept))
    except REFUSED:
        chosen = None
    assert chosen is None or chosen.tolist() == ([0, 2] if scores.size else [])


@given(tensor=odd_tensors(), data=st.data())
def test_any_view_takes_over_its_slice_or_stays_as_it_is(tensor: torch.Tensor, data: st.DataObject) -> None:
    axes = data.draw(st.lists(st.integers(0, tensor.ndim - 1), unique=True))
    pattern = tuple((axis, data.draw(kept(tensor.shape[axis]))) for axis in axes)
    before, place = tensor.detach().clone(), tensor.data_ptr()
    expected = before
    for axis, positions in pattern:
        expected = expected.index_select(axis, torch.from_numpy(positions))
    try:
        with torch.no_grad():
            _core.slice.rewrite([tensor], [pattern], [0], 0, [], data.draw(st.integers(1, 3)), "auto")
    except REFUSED:
        assert torch.equal(tensor.detach(), before)
        assert tensor.data_ptr() == place
    else:
        assert torch.equal(tensor.detach(), expected)


@pytest.mark.parametrize("name", STRANGERS)
def test_what_is_no_memory_of_numbers_lets_nothing_be_rewritten(name: str) -> None:
    tensor, keep = torch.arange(4.0).view(2, 2), np.array([0], dtype=np.int64)
    attributes: dict[str, int] = {}
    with pytest.raises(REFUSED, match=r"`tensors\[1\]`"):
        _core.slice.rewrite([tensor, STRANGERS[name]()], [((0, keep),)], [0, 0], 0, [(attributes, "a", 1)], 1, "auto")
    assert tensor.tolist() == [[0.0, 1.0], [2.0, 3.0]]
    assert attributes == {}


def find_followers(parameters: list[Any], states: list[Any]) -> tuple[list[Any], list[int], list[Any]]:
    """What follows parameters that are all cut, each by a pattern of its own: tensors, whose they are, and the rest."""
    count, keep = len(parameters), np.array([0], dtype=np.int64)
    cuts = tuple(((0, vector),) for vector in range(count))
    module = (parameters, list(range(count)), [])
    planned = _core.slice.plan_cuts(cuts, [keep] * count, np.zeros(count + 1, dtype=np.int64), [module], states)
    assert planned.patterns == [((0, keep),)] * count
    assert list(map(id, planned.tensors[:count])) == list(map(id, parameters))
    assert planned.pattern_of[:count] == list(range(count))
    assert (planned.num_owned, planned.num_of_first, planned.entries) == (count, count, [])
    return planned.tensors[count:], planned.pattern_of[count:], planned.others


@needs_exchange_table
@given(
    values=st.lists(
        st.one_of(odd_tensors(), st.none(), st.floats(), st.sampled_from([{}, [torch.ones(2)], "text"])), max_size=4
    ),
    parameter=odd_tensors().map(torch.Tensor.detach),
)
def test_states_are_told_apart_by_their_shape_alone(values: list[Any], parameter: torch.Tensor) -> None:
    found, owners, rest = find_followers([parameter], [{parameter: dict(enumerate(values))}])
    like = [value for value in values if isinstance(value, torch.Tensor) and value.shape == parameter.shape]
    assert list(map(id, found)) == list(map(id, like))
    assert owners == [0] * len(like)
    others = [value for value in values if isinstance(value, torch.Tensor) and value.shape != parameter.shape]
    others = [value for value in others if value.numel() != 1]
    assert [id(value) for *_, value in rest if isinstance(value, torch.Tensor)] == list(map(id, others))


def test_states_that_are_no_memory_are_left_to_a_closer_look() -> None:
    values = [make() for name, make in STRANGERS.items() if name not in ("conjugated", "negated", "nothing")]
    parameter = torch.ones(3, 2)
    found, _, rest = find_followers([parameter], [{parameter: dict(enumerate(values))}])
    looked_at = [*map(id, found), *(id(value) for *_, value in rest)]
    assert sorted(looked_at) == sorted(map(id, values))
    assert find_followers([parameter], [{parameter: None}])[2] == [(0, 0, None, None)]  # type: ignore[dict-item]


@needs_exchange_table
def test_gradients_come_first_and_those_of_another_layout_are_left_to_a_closer_look() -> None:
    dense, sparse, bare = (torch.ones(3, 2, requires_grad=True) for _ in range(3))
    dense.grad, sparse.grad = torch.zeros(3, 2), torch.eye(3, 2).to_sparse()
    moment = torch.zeros(3, 2)
    found, owners, rest = find_followers([bare, dense, sparse], [{}, {bare: {"exp_avg": moment, "step": 3}}])
    assert list(map(id, found)) == [id(dense.grad), id(moment)]
    assert owners == [1, 0]
    assert [(owner, which, key) for owner, which, key, _ in rest] == [(2, None, "grad")]
    assert rest[0][3] is sparse.grad
    with pytest.raises(AttributeError, match="grad"):
        find_followers([object()], [])  # type: ignore[list-item]


def test_a_plan_leaves_out_what_is_not_cut_and_what_modules_share() -> None:
    first, kept, shared, own = (torch.ones(3, 2) for _ in range(4))
    keep = np.array([0, 2], dtype=np.int64)
    attributes: dict[str, Any] = {"width": 3, "heads": 1, "text": "3"}
    values = [(attributes, "width", 0, 1, 1), (attributes, "heads", 0, 2, 4), (attributes, "text", 1, 1, 1)]
    cuts = (((0, 0), (1, 1)), ((1, 1),))
    modules = [([first, kept, shared], [0, 1, 0], values), ([shared, own], [0, 0], [])]
    planned = _core.slice.plan_cuts(cuts, [keep, None], np.array([0, 2, 4]), modules, [])
    assert planned.patterns == [((0, keep),)]
    assert list(map(id, planned.tensors)) == list(map(id, [first, shared, own]))
    assert (planned.pattern_of, planned.num_owned, planned.num_of_first, planned.others) == ([0, 0, 0], 3, 2, [])
    assert planned.entries == [(attributes, "width", 2), (attributes, "text", 2)]  # 2 * 2 // 4 is what it was


INTEGER: dict[str, Any] = {"modules": [([W], [0], [({"a": 2}, "a", 0, 1, 1)])]}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"cuts": (((0, 1),),)}, IndexError, "out of range"),
        ({"cuts": (((0, -1),),)}, TypeError, "incompatible"),
        ({"starts": np.zeros((1, 2), dtype=np.int64), **INTEGER}, IndexError, "dim"),
        ({"modules": [([W], [], [])]}, IndexError, "out_of_range|range"),
        ({"modules": [([W], [1], [])]}, IndexError, "out_of_range|range"),
        ({"modules": [([W], [0], [({}, "a", 1, 1, 1)])]}, ValueError, r"`modules` must be \(dictionary"),
        ({"modules": [([W], [0], [({}, "a", -1, 1, 1)])]}, ValueError, r"`modules` must be \(dictionary"),
        ({"modules": [([W], [0], [({}, "a", 0, 1, 0)])]}, ValueError, r"`modules` must be \(dictionary"),
        ({"modules": [([W], [0], [({}, "a", 0, 2**40, 1)])]}, ValueError, r"`modules` must be \(dictionary"),
        ({"modules": [([W], [0], [({}, "a", 0, -1, 1)])]}, ValueError, r"`modules` must be \(dictionary"),
        ({"modules": [([W], [0], [({}, "a", 0, 1, 1)])]}, KeyError, "a"),
        ({"states": [None]}, TypeError, "incompatible"),
    ],
)
def test_a_plan_of_what_cannot_be_is_refused(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {
        "cuts": (((0, 0),),),
        "keeps": [np.array([0], dtype=np.int64)],
        "starts": np.array([0, 1]),
        "modules": [([W], [0], [])],
        "states": [],
    }
    assert len(_core.slice.plan_cuts(**arguments).tensors) == 1
    with pytest.raises(error, match=message):
        _core.slice.plan_cuts(**{**arguments, **change})


class Clearing(torch.Tensor):
    """A tensor that clears the state that holds it when its sizes are asked for."""

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        STATE.clear()
        raise NotImplementedError


STATE: dict[str, Any] = {}


@needs_exchange_table
def test_a_state_that_is_cleared_while_it_is_read_crashes_nothing() -> None:
    for index in range(20):
        STATE[f"moment {index}"] = torch.Tensor._make_wrapper_subclass(
            Clearing, (3, 2), strides=(2, 1), dispatch_sizes_strides_policy="sizes"
        )
    found, _, rest = find_followers([W], [{W: STATE}])
    assert found == []
    assert STATE == {}
    assert [(owner, which, key) for owner, which, key, _ in rest] == [(0, 0, "moment 0")]
