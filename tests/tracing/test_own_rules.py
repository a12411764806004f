"""Rules that a user adds from outside of the package."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gsprune
from gsprune.tracing import Call, Shadow, Tape, rule


@torch.library.custom_op("gsprune_tests::twice", mutates_args=())
def twice(x: Tensor) -> Tensor:
    """Every channel of (N, C, H, W) twice, one after the other."""
    return x.repeat_interleave(2, 1)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(16, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.ops.gsprune_tests.twice(self.first(x)))


def test_a_rule_from_outside_makes_an_operation_prunable() -> None:
    net, x = Twice(), torch.randn(2, 3, 8, 8)
    [protected] = [item for item in gsprune.trace(net, x).protected if "has no rule" in item.reason]
    assert protected.names == ("first",)

    @rule("gsprune_tests::twice")
    def twice_rule(tape: Tape, call: Call) -> Shadow:
        return tape.of(call.args[0]).carry(lambda layer: np.repeat(layer, 2, 1))

    report = gsprune.prune_step(net, 0.5, example_inputs=x)
    assert report.changed
    assert net.first.weight.shape[0] == 4
    assert net.second.weight.shape[1] == 8
    with pytest.raises(ValueError, match="has a rule already: pass replace=True"):
        rule("gsprune_tests::twice")(twice_rule)
    rule("gsprune_tests::twice", replace=True)(twice_rule)


def test_a_name_without_a_namespace_is_refused() -> None:
    with pytest.raises(ValueError, match="got 'twice'"):
        rule("twice")
