"""Calibration data that a step would refuse is an error before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from snapshots import snapshot
from torch import nn

import gsprune

X = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
SCHEDULE = gsprune.schedules.OneShot(final=0.5, begin=0.0)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 2))


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"importance": "reconstruction"}, ValueError, "`importance` 'reconstruction' needs `calibration`, and got none"),
    ({"importance": "reconstruction", "compensate": "linear"}, ValueError, "'reconstruction' needs `calibration`"),
    (
        {"importance": "reconstruction", "calibration": X[:15]},
        ValueError,
        "`importance` 'reconstruction' needs at least 16 examples .* `calibration` has 15",
    ),
    ({"compensate": "linear", "calibration": [X[:7], X[:8]]}, ValueError, "`compensate` needs .*`calibration` has 15"),
    ({"compensate": "bias", "example_inputs": X[:2]}, ValueError, "`compensate` needs .* the example has 2"),
    ({"compensate": "linear", "calibration": 3}, TypeError, "`calibration` must be a tensor, a tuple"),
    ({"compensate": "linear", "calibration": [X, 3]}, TypeError, "`calibration` must be a tensor, a tuple"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD)
def test_too_little_data_is_refused_by_the_step_and_by_the_pruner(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    net = network()
    before = snapshot(net)
    with pytest.raises(error, match=message):
        gsprune.prune_step(net, 0.5, **{"example_inputs": X, **options})
    with pytest.raises(error, match=message):
        gsprune.Pruner(net, SCHEDULE, **options)
    assert snapshot(net) == before


def test_a_list_may_be_filled_after_the_pruner_is_made() -> None:
    recent: list[torch.Tensor] = []
    pruner = gsprune.Pruner(network(), SCHEDULE, compensate="linear", calibration=recent)
    with pytest.raises(ValueError, match="`calibration` has 0"):
        pruner.step(1.0)
    recent.append(X)
    assert pruner.step(1.0).changed


def test_an_iterator_is_read_once_for_scores_and_compensation() -> None:
    def batches() -> Iterator[torch.Tensor]:
        yield X[:20]
        yield X[20:]

    whole, parts = network(), network()
    gsprune.prune_step(whole, 0.5, importance="reconstruction", compensate="linear", calibration=[X[:20], X[20:]])
    gsprune.prune_step(parts, 0.5, importance="reconstruction", compensate="linear", calibration=batches())
    assert torch.equal(whole[2].weight, parts[2].weight)


def test_the_activation_criterion_reads_the_calibration_data() -> None:
    one, other = network(), network()
    hot = torch.zeros(20, 5)
    hot[:, 0] = 5.0
    gsprune.prune_step(one, 0.5, importance="activation", example_inputs=hot)
    gsprune.prune_step(other, 0.5, importance="activation", example_inputs=X[:2], calibration=hot)
    assert torch.equal(one[0].weight, other[0].weight)
    third = network()
    gsprune.prune_step(third, 0.5, importance="activation", example_inputs=X[:2])
    assert not torch.equal(one[0].weight, third[0].weight)


@pytest.mark.parametrize("options", [{"compensate": "linear"}, {"importance": "activation"}])
def test_data_on_which_the_network_fails_is_refused_by_name(options: dict[str, Any]) -> None:
    net = network()
    before = snapshot(net)
    with pytest.raises(ValueError, match=r"`calibration` must be what the forward .* fails on float32 \(40, 3\)"):
        gsprune.prune_step(net, 0.5, example_inputs=X[:2], calibration=X[:, :3], **options)
    assert snapshot(net) == before


def test_the_report_says_that_calibration_data_are_not_used() -> None:
    said = "`calibration` is not used: `compensate` is 'none', and `importance` 'l1' reads no data"
    report = gsprune.prune_step(network(), 0.5, example_inputs=X[:2], calibration=X)
    assert said in str(report)
    assert said in gsprune.Pruner(network(), SCHEDULE, calibration=X).step(1.0).notes
    for options in ({"compensate": "bias"}, {"importance": "activation"}):
        report = gsprune.prune_step(network(), 0.5, example_inputs=X[:2], calibration=X, **options)
        assert "is not used" not in str(report)
