"""The effect of a step: exact on known outputs, and without a trace in the network or the random generators."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from gsprune.distributed.ranks import Ranks
from gsprune.rl.training.step_effect import AgentOutputs, StepEffect, held_out_count


def effect_of(network: nn.Module) -> StepEffect:
    def outputs(frames: Tensor) -> AgentOutputs:
        with torch.no_grad():
            result = network(frames)
        return AgentOutputs(result, result[:, 0])

    return StepEffect(network, outputs, lambda before, after: (after - before).abs().sum(1), "policy", Ranks())


def test_the_error_of_the_values_is_relative_to_their_standard_deviation() -> None:
    network = nn.Linear(2, 2, bias=False)
    effect = effect_of(network)
    frames = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    for weights in ([[2.0, 0.0], [0.0, 0.0]], [[4.0, 0.0], [0.0, 0.0]]):  # the second is twice the first
        with torch.no_grad():
            network.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
        before = effect.observe(frames)
        with torch.no_grad():
            network.weight.copy_(torch.tensor(weights))
        effect.compare(before)
    # Values 1 and 3 have a standard deviation of 1; times four they change by 3 and 9, the policy by 6 on average.
    assert effect.take_row() == pytest.approx({"policy": 6.0, "pruning/value_error": math.sqrt((9 + 81) / 2)})
    assert effect.take_row() == {}


def test_values_that_are_all_equal_have_no_relative_error() -> None:
    effect = effect_of(nn.Linear(2, 2))
    effect.compare(effect.observe(torch.ones(4, 2)))
    row = effect.take_row()
    assert row["policy"] == 0
    assert math.isnan(row["pruning/value_error"])


def test_without_frames_nothing_is_logged() -> None:
    effect = effect_of(nn.Linear(2, 2))
    effect.compare(effect.observe(torch.ones(0, 2)))
    assert effect.take_row() == {}


def test_a_comparison_leaves_network_and_random_generators_as_they_were() -> None:
    network = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 8), nn.Dropout())
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    generator = torch.get_rng_state()
    effect = effect_of(network)
    effect.compare(effect.observe(torch.randn(16, 2, generator=torch.Generator().manual_seed(0))))
    assert effect.take_row()["policy"] == 0  # dropout would show
    assert all(module.training for module in network.modules())
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)


@pytest.mark.parametrize(("total", "count"), [(1, 1), (64, 5), (1024, 85), (16_384, 512)])
def test_at_most_a_twelfth_of_the_frames_is_compared(total: int, count: int) -> None:
    assert held_out_count(total) == count
