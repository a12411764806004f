"""Where the kernels run in these tests: on a GPU where there is one, else in Triton's interpreter.

The interpreter is chosen by TRITON_INTERPRET=1 before triton is first imported, and nothing can be compiled in such a
process. So without a GPU the tests that launch kernels are skipped here, and test_interpreter.py runs them in a process
of their own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from gsprune.backends import bind_torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


@pytest.fixture
def device() -> torch.device:
    if INTERPRETED:
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    pytest.skip("needs a GPU or TRITON_INTERPRET=1; test_interpreter.py runs it in the interpreter")


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """New memory is full of NaN, or of 0x55, so that an element nobody writes is seen."""

    def poison(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def wrapper(*args: Any, **kwargs: Any) -> torch.Tensor:
            tensor = make(*args, **kwargs)
            fill = float("nan") if tensor.is_floating_point() or tensor.is_complex() else 0x55
            return tensor.fill_(fill)

        return wrapper

    monkeypatch.setattr(torch, "empty", poison(torch.empty))
    bind_torch(empty_strided=poison(torch.empty_strided))
    yield
    bind_torch()
