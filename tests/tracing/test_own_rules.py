"""Rules that a user adds from outside of the package."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gsprune
from gsprune.tracing import Call, Shadow, Tape, rule
from gsprune.tracing.rules.registry import Rule


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


@torch.library.custom_op("gsprune_tests::negate", mutates_args=())
def negate(x: Tensor) -> Tensor:
    """The negative of every element."""
    return -x


class Negative(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.ops.gsprune_tests.negate(self.first(x)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda tape, call: None, "must return the Shadow of its outputs, or a list with one for each, got NoneType"),
        (lambda tape, call: list(tape.of(call.args[0]).layers), "must return .*, got list"),
        (lambda tape, call: [tape.of(call.args[0])] * 2, "returned 2 shadows for 1 outputs"),
        (lambda tape, call: call.args[1], r"failed with IndexError: .* \(.*test_own_rules.py, line \d+, in <lambda>\)"),
        (
            lambda tape, call: tape.of(call.args[0]).carry(lambda layer: layer.reshape(-1)),
            r"returned a layer of shape \(8,\) for an output of shape \(2, 8, 6, 6\)",
        ),
        (
            lambda tape, call: tape.of(call.args[0]).carry(lambda layer: layer.swapaxes(0, 1)),
            r"returned a layer of shape \(8, 1, 1, 1\) for an output of shape \(2, 8, 6, 6\)",
        ),
    ],
)
def test_a_wrong_rule_is_named_with_its_operation(wrong: Rule, message: str) -> None:
    rule("gsprune_tests::negate", replace=True)(wrong)
    net = Negative()
    with pytest.raises(gsprune.TraceError, match=rf"the rule of gsprune_tests.negate {message}"):
        gsprune.prune_step(net, 0.5, example_inputs=torch.randn(2, 3, 8, 8))
    assert net.first.out_channels == 8


def test_a_decorator_without_names_or_without_a_function_is_refused() -> None:
    with pytest.raises(TypeError, match=r'`names` must be strings, as in @rule\("mylib::shift"\), got <function'):
        rule(lambda tape, call: None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`names` must have at least one operation"):
        rule()
    with pytest.raises(TypeError, match="must decorate a function of"):
        rule("gsprune_tests::other")(3)  # type: ignore[type-var]
