"""When the outputs of a smaller network count as those of the masked one."""

from __future__ import annotations

import pytest
import torch

from gsprune.rewrite.check import mismatch


def test_what_cancellation_leaves_may_be_off_by_the_rounding_of_its_terms() -> None:
    term, value = torch.tensor([0.05]), torch.linspace(5e-6, 9e-6, 100)
    cancelled = (value + term) - term
    assert ((cancelled - value).abs() > 1e-4 * value).any()  # more than the tolerance of float32
    assert mismatch(cancelled, value) is None


@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e5])
def test_a_hundredth_more_or_less_is_a_mismatch_at_every_scale_of_outputs(scale: float) -> None:
    expected = scale * torch.tensor([[1.0, -0.5]])
    assert mismatch(expected * 1.00001, expected) is None
    assert "differs from the masked network's by" in str(mismatch(expected * 1.01, expected))


def test_other_shapes_and_numbers_of_outputs_are_told() -> None:
    assert "has shape (2,)" in str(mismatch(torch.ones(2), torch.ones(3)))
    assert "hold 1 tensors, the masked network's 2" in str(mismatch(torch.ones(2), (torch.ones(2), torch.ones(2))))
