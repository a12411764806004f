from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gsprune.engines.portable_call import PortableCall, portable_call
from gsprune.errors import ExportError
from gsprune.exporting.comparison import Comparison, compare

INPUTS = torch.linspace(-1, 1, 250).reshape(250, 1) * torch.tensor([[1.0, -2.0, 0.5]])


@pytest.fixture
def call() -> PortableCall:
    return portable_call(nn.Identity(), INPUTS[:2])


def shifted(by: float) -> Any:
    def run(inputs: Sequence[Tensor]) -> list[Any]:
        output = inputs[0].numpy().copy()
        output[:, 0] += np.float32(by)
        return [output]

    return run


def test_what_is_equal_passes_and_is_counted(call: PortableCall) -> None:
    assert compare(call, shifted(0), [INPUTS], 1e-5) == Comparison(250, 0.0, 250, 0)


def test_a_difference_within_the_tolerance_is_told(call: PortableCall) -> None:
    found = compare(call, shifted(1e-4), [INPUTS], 1e-3)
    assert found.max_abs_diff == pytest.approx(1e-4, rel=1e-2)


def test_the_tolerance_is_relative_to_outputs_above_one(call: PortableCall) -> None:
    compare(call, shifted(1e-3), [INPUTS * 1000], 1e-5)
    with pytest.raises(ExportError, match=r"more than 2.00e-05.*larger `tolerance`"):
        compare(call, shifted(1e-3), [INPUTS], 1e-5)


@pytest.mark.parametrize(
    ("exported", "message"),
    [
        (lambda inputs: [], "has 0 outputs, the network has 1"),
        (lambda inputs: [inputs[0].numpy()[:, :2]], r"is float32 \(100, 2\), the network's float32 \(100, 3\)"),
        (lambda inputs: [inputs[0].double().numpy()], r"is float64 .* the network's float32"),
        (lambda inputs: [inputs[0].numpy() * np.float32("nan")], "is not finite where the network's is"),
        (lambda inputs: 1 / 0, "fails where the network does not: division by zero"),
    ],
)
def test_a_broken_export_is_an_error(call: PortableCall, exported: Any, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        compare(call, exported, [INPUTS], 1e-5)


def test_another_choice_is_an_error_unless_it_is_a_tie(call: PortableCall) -> None:
    near = torch.tensor([[1.0, 1.0 - 1e-6, 0.0], [5.0, 0.0, 1.0]])
    swapped = lambda inputs: [inputs[0].numpy()[:, [1, 0, 2]]]  # noqa: E731
    found = compare(call, swapped, [near[:1]], 1e-5)
    assert (found.same_choice, found.ties) == (0, 1)
    apart = torch.tensor([[1.0, 0.85, 0.0]])
    with pytest.raises(ExportError, match="chooses otherwise in 1 of 1 examples"):
        compare(call, lambda inputs: [np.array([[0.92, 0.93, 0.0]], np.float32)], [apart], tolerance=0.1)


def test_what_is_known_to_differ_is_only_measured(call: PortableCall) -> None:
    found = compare(call, shifted(0.5), [INPUTS], math.inf)
    assert found.examples == 250
    assert found.max_abs_diff == pytest.approx(0.5)
    assert found.same_choice is not None
    assert found.same_choice < 250
