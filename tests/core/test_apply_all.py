from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from gsprune import _core


def test_calls_are_made_in_order() -> None:
    seen: list[int] = []
    _core.apply_all([(seen.append, i) for i in range(5)], [(seen.clear,)] * 5)
    assert seen == [0, 1, 2, 3, 4]


def test_what_was_done_is_undone_in_reverse_when_a_call_raises() -> None:
    seen: list[str] = []

    def fail() -> None:
        seen.append("half")
        raise RuntimeError("third")

    calls: list[tuple[Any, ...]] = [(seen.append, "a"), (seen.append, "b"), (fail,), (seen.append, "never")]
    undo: list[tuple[Any, ...]] = [(seen.append, "undo a"), (seen.append, "undo b"), (seen.append, "undo half")]
    with pytest.raises(RuntimeError, match="third"):
        _core.apply_all(calls, [*undo, (seen.append, "never")])
    assert seen == ["a", "b", "half", "undo half", "undo b", "undo a"]


def test_an_interrupt_comes_after_the_last_call() -> None:
    # The signal arrives in the first call; its handler runs where the interpreter next looks, which is not in between.
    parameters = [torch.nn.Parameter(torch.ones(4)) for _ in range(50)]
    fresh = [torch.zeros(2) for _ in range(50)]
    # Not os.kill: that one runs the handlers before it returns.
    calls: list[tuple[Any, ...]] = [(ctypes.CDLL(None)["raise"], int(signal.SIGINT))]
    calls += [(torch.Tensor.set_, *pair) for pair in zip(parameters, fresh, strict=True)]

    def swap() -> None:
        with torch.no_grad():
            _core.apply_all(calls, [(int,)] * len(calls))

    swapped_at_interrupt = _run_interrupted(swap, lambda: [parameter.shape[0] for parameter in parameters])
    assert swapped_at_interrupt == [2] * 50


def _run_interrupted(action: Callable[[], None], look: Callable[[], list[int]]) -> list[int]:
    """What `look` sees at the moment the interrupt is delivered."""
    seen: list[int] = []

    def handler(*_: object) -> None:
        seen.extend(look())
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            action()
    finally:
        signal.signal(signal.SIGINT, before)
    return seen


def test_an_undo_that_raises_does_not_stop_the_others() -> None:
    seen: list[str] = []
    unraisable: list[object] = []
    before = sys.unraisablehook
    sys.unraisablehook = lambda report: unraisable.append(report.exc_value)
    try:
        with pytest.raises(ZeroDivisionError):
            _core.apply_all([(int,), (divmod, 1, 0)], [(seen.append, "undone"), (int, "no number")])
    finally:
        sys.unraisablehook = before
    assert seen == ["undone"]
    assert isinstance(unraisable[0], ValueError)


def test_bad_lists_are_refused_before_anything_is_called() -> None:
    seen: list[int] = []
    call = (seen.append, 1)
    with pytest.raises(ValueError, match="same length, got 2 and 1"):
        _core.apply_all([call, call], [call])
    with pytest.raises(ValueError, match=r"`calls\[1\]` must be a tuple"):
        _core.apply_all([call, ()], [call, call])
    with pytest.raises(ValueError, match=r"`undo\[0\]` must be a tuple"):
        _core.apply_all([call], [seen.append])  # type: ignore[list-item]
    assert not seen
