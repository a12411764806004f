"""`Graph.mixed` names the groups whose channels meet without a weight."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import gsprune

READINGS: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "element-wise": (torch.tanh, False),
    "scaled by a constant": (lambda h: h * torch.full((8,), 0.5), False),
    "layer norm": (lambda h: nn.functional.layer_norm(h, (8,)), True),
    "softmax": (lambda h: h.softmax(-1), True),
    "a sum": (lambda h: h + h.sum(-1, keepdim=True), True),
    "a norm": (lambda h: nn.functional.normalize(h, dim=-1), True),
    "a product with itself": (lambda h: torch.tanh(h @ h.T) @ h, True),
    "a product with a constant": (lambda h: h + h @ torch.ones(8, 1), True),
}


class Net(nn.Module):
    def __init__(self, read: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.last, self.read = nn.Linear(4, 8), nn.Linear(8, 6), nn.Linear(6, 2), read

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.second(self.read(self.first(x)))))


@pytest.mark.parametrize("reading", READINGS)
def test_groups_that_meet_without_a_weight_are_mixed(reading: str) -> None:
    read, is_mixed = READINGS[reading]
    graph = gsprune.trace(Net(read), torch.randn(3, 4))
    assert [group.name for group in graph.groups if group.name not in graph.mixed][-1] == "second"
    assert graph.mixed == (frozenset({"first"}) if is_mixed and len(graph.groups) == 2 else frozenset())
    assert len(graph.groups) == 2 or is_mixed
