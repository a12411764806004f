"""A refused width is reported with the module whose code contains it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import gsprune


class WrittenState(nn.Module):
    """A cell of torch whose state has a size that this module's code contains."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTMCell(6, 12), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(len(x), 12), torch.zeros(len(x), 12)
        return self.head(self.cell(x, state)[0])


def test_a_size_in_the_code_is_reported_with_the_user_s_module_that_calls_the_failing_layer_of_torch() -> None:
    with pytest.warns(gsprune.PruneWarning, match="limited by sizes written into the code"):
        report = gsprune.prune_step(WrittenState(), 0.5, example_inputs=torch.randn(4, 6))
    (reason,) = [item.reason for item in report.protected if item.names == ("cell",)]
    assert reason.startswith("a size written into the code in WrittenState, which calls LSTMCell: ")
